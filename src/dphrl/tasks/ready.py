"""The tasks that are ready to use: one table of what each fills in where the user says nothing.

To add one: an entry in `READY`, a line in docs/tasks.md, its number of rows in tests/tasks/test_ready.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dphrl.config.sources import TaskConfig
from dphrl.errors import ConfigError, nearest
from dphrl.tasks import gym
from dphrl.tasks.benchmarks import BIRD, SPIDER, boxed_answer, load_folder, with_context, with_knowledge
from dphrl.tasks.rows import Loaded, Row, read_rows

Source = Callable[[TaskConfig, Path], Loaded]
"""(settings with the task's defaults filled in, folder of the config) -> rows, and where their databases lie."""


def load_rows(cfg: TaskConfig, base_dir: Path) -> Loaded:
    """Rows of a file or of a `datasets` name."""
    return Loaded(read_rows(cfg.data, subset=cfg.subset, split=cfg.split, base_dir=base_dir))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyTask:
    """What a task fills in; the settings are those of `TaskConfig`, and every one the user writes comes first."""

    what: str
    """One line for `dphrl tasks`."""
    origin: str
    """Where the data comes from, in a few words."""
    data: str = ""
    subset: str | None = None
    split: str = "train"
    template: str = "{question}"
    chat: bool = True
    verifier: str = "math"
    verifier_args: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Field -> columns it may stand in; the first that the first row has."""
    source: Source = load_rows
    derive: Callable[[Row], Row] = dict
    """Row -> the row with what the template or the verifier needs besides."""
    descriptions: bool = False
    """Whether {schema} also says what the columns mean."""
    extra: str = ""
    """What to install first."""


BOXED = "{question}\n\nPlease reason step by step, and put your final answer within \\boxed{{}}."
TAGGED = "{question}\n\nThink step by step, then give the final answer between <answer> and </answer>."
_SQL_PROMPT = """\
Task overview: you are a data science expert. Below are a database schema and a question in natural language.
Understand the schema and write a valid SQL query that answers the question.

Database engine: SQLite

Database schema:
{{schema}}

{knowledge}Question:
{{question}}

Instructions:
- Return only what the question asks for: no further column, nothing left out.
- Think step by step about how to get there, then give the query in one code block:
```sql
-- your query
```"""
SQL = _SQL_PROMPT.format(knowledge="")
SQL_WITH_KNOWLEDGE = _SQL_PROMPT.format(knowledge="{knowledge}")

_PROBLEM = {"question": ("problem", "question"), "gold": ("answer",), "id": ("unique_id", "id", "idx")}


def _mathematics(what: str, origin: str, data: str, **settings: Any) -> ReadyTask:
    return ReadyTask(
        what=what,
        origin=origin,
        data=data,
        **{"split": "test", "template": BOXED, "fields": _PROBLEM, **settings},
    )


READY: dict[str, ReadyTask] = {
    "jsonl": ReadyTask(
        what="any file or data set: columns, template and verifier as you set them",
        origin="the file or `datasets` name in task.data",
        chat=False,
    ),
    "gsm8k": _mathematics(
        "grade-school word problems (7,473 train, 1,319 test)",
        "openai/gsm8k, or a file",
        "openai/gsm8k",
        subset="main",
        split="train",
    ),
    "math500": _mathematics(
        "500 problems of MATH, five levels", "HuggingFaceH4/MATH-500, or a file", "HuggingFaceH4/MATH-500"
    ),
    "aime24": _mathematics(
        "AIME 2024, 30 problems with integer answers",
        "HuggingFaceH4/aime_2024, or a file",
        "HuggingFaceH4/aime_2024",
        split="train",  # the only one it has
    ),
    "amc23": _mathematics("AMC 2023, 40 problems with integer answers", "math-ai/amc23, or a file", "math-ai/amc23"),
    "olympiadbench": _mathematics(
        "olympiad problems in English, text only (675)",
        "math-ai/olympiadbench, or a file",
        "math-ai/olympiadbench",
        fields=_PROBLEM | {"gold": ("final_answer",)},
        derive=with_context,
    ),
    "minerva_math": _mathematics(
        "university physics, chemistry, mathematics (272)",
        "math-ai/minervamath, or a file",
        "math-ai/minervamath",
        derive=boxed_answer,
    ),
    "college_math": _mathematics(
        "college textbook exercises (2,818)",
        "di-zhang-fdu/College_Math_Test, or a file",
        "di-zhang-fdu/College_Math_Test",
    ),
    "spider": ReadyTask(
        what="Spider 1.0: questions about 166 SQLite databases",
        origin="its folder, in task.data",
        template=SQL,
        verifier="sql",
        verifier_args={"mode": "spider"},
        fields={"gold": ("query",), "db": ("db_id",)},
        source=load_folder(SPIDER),
    ),
    "bird": ReadyTask(
        what="BIRD: questions with external knowledge about large SQLite databases",
        origin="its folder, in task.data",
        template=SQL_WITH_KNOWLEDGE,
        verifier="sql",
        verifier_args={"mode": "bird"},
        fields={"gold": ("SQL",), "db": ("db_id",), "id": ("question_id",)},
        source=load_folder(BIRD),
        derive=with_knowledge,
        descriptions=True,
    ),
    gym.PATTERN: ReadyTask(
        what="a generator of reasoning-gym, scored by itself",
        origin="made here, from one seed for each split",
        template=TAGGED,
        verifier=gym.VERIFIER,
        source=gym.load_rows,
        extra=gym.INSTALL,
    ),
}
"""Name -> task. A name that starts with `gym.PREFIX` is the last one."""


def ready_task(name: str) -> ReadyTask:
    """The ready task of a name.

    Raises:
        ConfigError: there is none.
    """
    if name.startswith(gym.PREFIX):
        return READY[gym.PATTERN]
    if name not in READY:
        raise ConfigError(
            f"task.name={name!r} is not one of {', '.join(READY)}{nearest(name, READY)}; "
            "`dphrl tasks` lists them, and jsonl takes any data of your own"
        )
    return READY[name]


def with_defaults(cfg: TaskConfig, ready: ReadyTask) -> TaskConfig:
    """The settings with everything the user did not write filled in by the ready task.

    Empty text and null mean "not written"; none of these settings has a use for them. What belongs together goes
    together: the task's subset only with its own data, its verifier_args only with its own verifier.

    Returns:
        Settings that say all, but for `columns`: those need the first row (`columns_of`). Filling them in again
        changes nothing.
    """
    own_verifier = cfg.verifier in ("", ready.verifier)
    return dataclasses.replace(
        cfg,
        data=cfg.data or ready.data,
        subset=cfg.subset if cfg.subset or cfg.data not in ("", ready.data) else ready.subset,
        split=cfg.split or ready.split,
        template=cfg.template or ready.template,
        chat=ready.chat if cfg.chat is None else cfg.chat,
        verifier=cfg.verifier or ready.verifier,
        verifier_args={**(ready.verifier_args if own_verifier else {}), **cfg.verifier_args},
    )


def columns_of(cfg: TaskConfig, ready: ReadyTask, row: Row) -> dict[str, str]:
    """Field -> column: the user's, else the first of the ready task's that the row has.

    A field that no column holds keeps the first name, which the error about it then says, but for the id, which not
    every file has.
    """
    found = {
        name: next((column for column in columns if column in row), columns[0])
        for name, columns in ready.fields.items()
        if name != "id" or any(column in row for column in columns)
    }
    return found | cfg.columns
