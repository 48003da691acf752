"""OUT/eval/NAME/lm-eval.json: what lm-evaluation-harness measured on one model; docs/evaluation.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dphrl.errors import RunDirError
from dphrl.files import checked, damage_refused, read_json, write_json

Arguments = Mapping[str, Any]
"""Keyword arguments of lm_eval, as YAML has them."""

FILE = "lm-eval.json"
SCHEMA = 1
"""Version of the file; raised when an older reader would misread it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HarnessRow:
    """One metric of one task."""

    asked: str
    """The name that was given; a group has several tasks."""
    task: str
    metric: str
    filter: str
    value: float
    """The metric in lm_eval's own units, often a share."""
    stderr: float | None
    n: int | None
    """Number of prompts."""
    shots: int | None
    """Examples before each prompt."""
    higher_is_better: bool | None
    version: float | str | None
    """Version of the task."""


@dataclass(frozen=True, slots=True)
class HarnessResults:
    """All that was measured on one model with one group of settings."""

    settings: Arguments = field(default_factory=dict)
    """Version of lm_eval, precision of the weights, and the arguments that were given."""
    rows: tuple[HarnessRow, ...] = ()


def write_harness_results(folder: Path, results: HarnessResults) -> None:
    """Write FOLDER/lm-eval.json, whole or not at all."""
    write_json(folder / FILE, {"schema": SCHEMA, **asdict(results)})


def read_harness_results(folder: Path) -> HarnessResults:
    """What FOLDER/lm-eval.json says; no rows where the model was not measured so.

    Raises:
        RunDirError: damaged, or of a later version of dphrl.
    """
    path = folder / FILE
    if not path.exists():
        return HarnessResults()
    with damage_refused(path, "delete it and evaluate again"):
        values = read_json(path)
        if values["schema"] != SCHEMA:
            raise RunDirError(
                f"{path} has schema {values['schema']!r}, and this version of dphrl reads {SCHEMA}; update dphrl"
            )
        return checked(HarnessResults(dict(values["settings"]), tuple(HarnessRow(**row) for row in values["rows"])))
