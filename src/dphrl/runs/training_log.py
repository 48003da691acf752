"""What a training writes as it goes, one JSON object a line with its optimiser step: metrics.jsonl, warnings.jsonl and
changes.jsonl in RUN/train.

A kill may cut off the last line; `keep_until` drops it before the training goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dphrl.errors import RunDirError
from dphrl.files import damage_refused, write_text
from dphrl.method.collapse import TrainingWarning
from dphrl.types import MetricsRow


@dataclass(frozen=True, slots=True)
class TrainingChange:
    """The changes that were made before a training went on from a checkpoint."""

    step: int
    """Optimiser steps that were done at the checkpoint."""
    time: str
    """ISO 8601, UTC."""
    changes: Mapping[str, tuple[Any, Any]]
    """Setting, fingerprint or count -> its old and its new value, as JSON has them."""


def append_metrics(path: Path, row: MetricsRow) -> None:
    """Add a line to metrics.jsonl."""
    _append(path, row)


def read_metrics(path: Path, *, running: bool = False) -> list[MetricsRow]:
    """The lines of metrics.jsonl; none where it is not there.

    Args:
        running: the last line may still be in the making, and is left out if it is no JSON.
    Raises:
        RunDirError: a line is no JSON.
    """
    return list(_lines(path, running=running))


def append_warning(path: Path, warning: TrainingWarning) -> None:
    """Add a line to warnings.jsonl."""
    _append(path, {key: value for key, value in asdict(warning).items() if value is not None})


def read_warnings(path: Path) -> list[TrainingWarning]:
    """The lines of warnings.jsonl; none where it is not there.

    Raises:
        RunDirError: a line is no JSON or lacks a key.
    """
    with damage_refused(path, "delete it: only its warnings are lost"):
        return [
            TrainingWarning(row["step"], row["metric"], row.get("value"), row.get("limit"), row["text"])
            for row in _lines(path)
        ]


def append_change(path: Path, change: TrainingChange) -> None:
    """Add a line to changes.jsonl."""
    values = {key: {"old": old, "new": new} for key, (old, new) in change.changes.items()}
    _append(path, {"step": change.step, "time": change.time, "changes": values})


def read_changes(path: Path) -> list[TrainingChange]:
    """The lines of changes.jsonl; none where it is not there.

    Raises:
        RunDirError: a line is no JSON or lacks a key.
    """
    with damage_refused(path, "delete it: only the record of changes is lost"):
        return [
            TrainingChange(row["step"], row["time"], {key: (v["old"], v["new"]) for key, v in row["changes"].items()})
            for row in _lines(path)
        ]


def keep_until(path: Path, step: int) -> None:
    """Drop lines of later steps, which are trained again, and those that are not whole."""

    def stays(line: str) -> bool:
        try:
            return bool(json.loads(line)["step"] <= step)
        except ValueError:  # empty, or cut off by a kill
            return False

    lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
    write_text(path, "".join(f"{line}\n" for line in lines if stays(line)))


def _append(path: Path, row: Mapping[str, object]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _lines(path: Path, *, running: bool = False) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines. Only a line feed ends a line: a text may hold other separators."""
    lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n") if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line or "null")
        except ValueError as error:
            if running and number == len(lines):
                return
            raise RunDirError(f"{path} line {number} is no JSON ({error}); delete the line or train again") from None
        if isinstance(row, dict):
            yield row
