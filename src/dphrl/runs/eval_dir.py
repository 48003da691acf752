"""The evaluation directory: models measured on tasks, without a training run; docs/evaluation.md.

What `dphrl eval --model` writes, and what other tools' samples become: `write_evaldir` names the models, `add_samples`
stores the completions of one model on one task and measures them. `dphrl compare` and `dphrl report` read it as they
read a run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dphrl.config.load import stored_config
from dphrl.config.root import Config
from dphrl.config.setting import FILE_NAME
from dphrl.errors import RunDirError, nearest
from dphrl.files import checked, damage_refused, read_json, write_json
from dphrl.metrics.intervals import RESAMPLES
from dphrl.metrics.summary import TaskSummary
from dphrl.metrics.voting import Answer
from dphrl.runs.samples import read_samples
from dphrl.runs.summary_file import store_evaluation
from dphrl.types import Completion
from dphrl.verifiers.verifier import text_style

FILE = "evaluation.json"
SCHEMA = 1
"""Version of evaluation.json; raised when an older reader would misread the file."""
BASE = "base"
"""What a comparison calls the base, whatever its name is."""
NAME = re.compile(FILE_NAME)
"""A model's or task's name: it becomes a folder's or file's."""
NAMED_PATH = re.compile(rf"(?P<name>{NAME.pattern})(?:@(?P<seed>\d+))?=(?P<path>.+)", re.DOTALL)
"""NAME=PATH or NAME@SEED=PATH, as the command line names models and files of samples."""


@dataclass(frozen=True, slots=True)
class Model:
    """One model that was measured."""

    name: str
    """Name of the model and of its folder, OUT/eval/NAME; unique."""
    path: str = ""
    """Folder or name that it was loaded from; empty where that is not known."""
    method: str = ""
    """Training method; models of one method are joined over their seeds. If it is empty, the name is used."""
    seed: int = 0
    """Seed of its training."""
    base: bool = False
    """Whether keep, explore and the bands of the others refer to it; one model at most."""

    @property
    def label(self) -> str:
        """What a comparison calls it."""
        return BASE if self.base else self.method or self.name


@dataclass(frozen=True, slots=True)
class EvalDir:
    """Paths of one evaluation directory and what its evaluation.json says."""

    root: Path
    models: tuple[Model, ...]
    tasks: tuple[str, ...]
    made: Mapping[str, Any]
    """The tool that made the directory, with its settings and versions."""

    @property
    def made_by(self) -> str | None:
        """The tool that made it; None where it does not say."""
        return self.made.get("by")

    @property
    def measured_with(self) -> Config | None:
        """The settings of `dphrl eval`, those that are newer than the directory with their defaults; None where another
        tool made it."""
        settings = self.made.get("settings")
        return None if settings is None else stored_config(settings)

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of what made it; empty where it does not say."""
        return self.made.get("versions") or {}

    @property
    def base(self) -> Model | None:
        """The model that keep and explore refer to."""
        return next((model for model in self.models if model.base), None)

    def model(self, name: str) -> Model:
        """The model that has this name.

        Raises:
            RunDirError: there is none; names those there are.
        """
        models = {model.name: model for model in self.models}
        if name not in models:
            raise RunDirError(
                f"{self.root} has no model {name!r}{nearest(name, models)}; there are: {', '.join(models) or 'none'}; "
                "name it in write_evaldir first"
            )
        return models[name]

    def folder(self, name: str) -> Path:
        """Where the samples and the summary of a model lie."""
        return self.root / "eval" / name

    def samples(self, name: str, task: str) -> Path:
        """Every completion and verdict of a model on a task."""
        return self.folder(name) / f"{task}.parquet"

    def summary(self, name: str) -> Path:
        """{"rows": [one object a task]}."""
        return self.folder(name) / "summary.json"


def is_evaldir(root: Path) -> bool:
    """Whether the folder is an evaluation directory (and no run)."""
    return (root / FILE).is_file()


def write_evaldir(
    root: Path, models: Sequence[Model], tasks: Sequence[str] = (), made: Mapping[str, Any] | None = None
) -> EvalDir:
    """Write OUT/evaluation.json; samples that are there stay.

    Args:
        root: the directory, made if it is new.
        models: all of them, names unique, at most one base.
        tasks: in the order of tables; `add_samples` adds those that are missing.
        made: what made it, plain JSON; {"by": "dphrl eval", "settings": ..., "versions": ...} for ours.
    Raises:
        RunDirError: a run directory; a name that comes twice, is no file name or is the base's; two bases.
    """
    if (root / "config.yaml").exists():
        raise RunDirError(f"{root} is a run directory (it has a config.yaml); give another --out")
    names = [model.name for model in models]
    doubled = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if doubled:
        raise RunDirError(f"two models are called {doubled[0]!r}; give each its own name: NAME=PATH")
    for name in (*names, *tasks):
        _check_name(name)
    bases = [model.name for model in models if model.base]
    if len(bases) > 1:
        raise RunDirError(f"two models are the base: {', '.join(bases)}; name one")
    taken = [model for model in models if not model.base and model.label == BASE]
    if taken:
        raise RunDirError(f"model {taken[0].name!r} is not the base but would be called {BASE!r}; give it another name")
    evaldir = EvalDir(root, tuple(models), tuple(dict.fromkeys(tasks)), dict(made or {}))
    _write(evaldir)
    return evaldir


def read_evaldir(root: Path) -> EvalDir:
    """What evaluation.json says.

    Raises:
        RunDirError: missing, damaged, or of a later version of dphrl.
    """
    path = root / FILE
    if not path.exists():
        raise RunDirError(f"{root} is no evaluation directory (it has no {FILE}); `dphrl eval --model` makes one")
    with damage_refused(path, "mend it, or evaluate into another folder"):
        values = read_json(path)
        schema = values["schema"]
        models = tuple(checked(Model(**model)) for model in values["models"])
        tasks, made = tuple(map(str, values["tasks"])), dict(values["made"])
    if schema != SCHEMA:
        raise RunDirError(f"{path} has schema {schema!r}, and this version of dphrl reads {SCHEMA}; update dphrl")
    for name in (*(model.name for model in models), *tasks):
        _check_name(name, f"{path}: ")
    return EvalDir(root, models, tasks, made)


def add_samples(
    root: Path,
    model: str,
    task: str,
    completions: Sequence[Completion],
    *,
    base: Sequence[Completion] | None = None,
    solution: Callable[[str], str] = text_style,
    answer: Answer | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    facts: Mapping[str, object] | None = None,
) -> TaskSummary:
    """Store one model's completions of one task in an evaluation directory and measure them; what was there goes.

    Args:
        root: a directory that `write_evaldir` made.
        model: a name in it. The base's completions come first: the others are measured against them.
        task: its name; added to evaluation.json where it is new.
        completions: verified; of every prompt draws 0 .. n-1, and draw -1 (greedy) of all prompts or of none.
            `token_ids` may be empty where they are not known; `length` is then null.
        base: the base's completions of the task; None = those that the directory holds, if it has a base.
        solution: completion text -> canonical form; equal forms are one solution.
        answer: completion text -> what majority voting compares; None = answers cannot be compared.
        resamples, seed: of the intervals.
        facts: further keys of the row, e.g. seconds, tokens_per_second, too_long.
    Returns:
        What the row of summary.json says.
    Raises:
        RunDirError: no such model; the base's completions of the task are not there yet.
        DataError: completions that no metric can be made of, or other prompts or another n than the base's.
    """
    evaldir = read_evaldir(root)
    entry = evaldir.model(model)
    _check_name(task)
    if base is None and not entry.base:
        base = base_samples(evaldir, task)
    summary = store_evaluation(
        evaldir.folder(model),
        task,
        completions,
        base=None if entry.base else base,
        solution=solution,
        answer=answer,
        resamples=resamples,
        seed=seed,
        facts={"model": model, **(facts or {})},
    )
    if task not in evaldir.tasks:
        _write(replace(evaldir, tasks=(*evaldir.tasks, task)))
    return summary


def base_samples(evaldir: EvalDir, task: str) -> list[Completion] | None:
    """The base's completions of a task; None where the directory has no base.

    Raises:
        RunDirError: it has one, which was not measured on this task.
    """
    if evaldir.base is None:
        return None
    path = evaldir.samples(evaldir.base.name, task)
    if not path.exists():
        raise RunDirError(f"{path} is missing, so keep and explore have no base; measure the base on {task} first")
    return read_samples(path)


def _write(evaldir: EvalDir) -> None:
    models = [{**asdict(model), "method": model.method or model.name} for model in evaldir.models]
    write_json(
        evaldir.root / FILE,
        {"schema": SCHEMA, "models": models, "tasks": list(evaldir.tasks), "made": dict(evaldir.made)},
    )


def _check_name(name: str, where: str = "") -> None:
    if not NAME.fullmatch(name) or name == "summary":
        raise RunDirError(
            f"{where}{name!r} is no name of a model or task: it names a file; use letters, digits and . _ - (first a "
            "letter or digit)"
        )
