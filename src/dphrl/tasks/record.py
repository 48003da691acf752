"""The record of a ready task, and that of a family of tasks that are named PREFIX:MEMBER."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dphrl.config.sources import TaskConfig
from dphrl.tasks.read_rows import Loaded, Row, rows_of_data
from dphrl.types import LimitOfPrompts
from dphrl.verifiers.verifier import Arguments

Source = Callable[[TaskConfig, Path], Loaded]
"""(settings with the task's defaults filled in, folder of the config) -> rows, and where their databases lie."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyTask:
    """What a task fills in. The settings are those of `TaskConfig`, and every one that the user writes comes first."""

    what: str
    """One line for `dphrl tasks`."""
    origin: str
    """Where the data comes from, in a few words."""
    data: str = ""
    subset: str | None = None
    split: str = "train"
    eval_split: str = ""
    """Split that an evaluation takes where none is named; empty = `split`."""
    template: str = "{question}"
    chat: bool = True
    verifier: str = "math"
    verifier_args: Arguments = field(default_factory=dict)
    fields: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Field -> columns it may stand in; the first that the first row has."""
    source: Source = rows_of_data
    derive: Callable[[Row], Row] = dict
    """Row -> the row with what the template or the verifier needs besides."""
    solution: Callable[[str], str] | None = None
    """Completion -> canonical form; None = the verifier's."""
    frontier_limit: LimitOfPrompts | None = None
    """What can be reached on some of its prompts, for a task whose definition tells."""
    descriptions: bool = False
    """Whether {schema} also says what the columns mean."""
    extra: str = ""
    """What to install first."""
    fixed: bool = False
    """Whether prompts and verifier are as they are: only `split`, `offset` and `limit` may be set."""
    generated: bool = False
    """Whether prompts are made as they are asked for. Arguments in `verifier_args` that the verifier does not have are
    settings of the source then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFamily:
    """Tasks named PREFIX:MEMBER; each module in `ready.FAMILIES` holds one as `FAMILY`."""

    task: Callable[[str], ReadyTask]
    """Member -> its task. It raises a DataError for a member that it can tell is unknown."""
    members: tuple[str, ...]
    """What `dphrl tasks` lists; ("NAME",) where there are too many."""
