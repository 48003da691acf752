"""What a training writes as it goes, one JSON object a line with its optimiser step: metrics.jsonl, warnings.jsonl and
changes.jsonl in RUN/train. Each object carries its checksum.

A kill may cut off the last line; `keep_until` drops it before the training goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dphrl.errors import RunDirError
from dphrl.files import checked, damage_refused, with_checksum, without_checksum, write_text
from dphrl.method.collapse import TrainingWarning
from dphrl.types import MetricsRow

MEND_METRICS = "mend or delete the line that is wrong, or train again"
"""What to do about a damaged file of lines."""


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
        RunDirError: a line is no JSON object of numbers with a step.
    """
    rows = list(_lines(path, running=running))
    with damage_refused(path, MEND_METRICS):
        return [_metrics(row) for row in rows]


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
            checked(TrainingWarning(row["step"], row["metric"], row.get("value"), row.get("limit"), row["text"]))
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
        return [checked(_change(row)) for row in _lines(path)]


def _change(row: Mapping[str, Any]) -> TrainingChange:
    return TrainingChange(
        row["step"], row["time"], {key: (pair["old"], pair["new"]) for key, pair in row["changes"].items()}
    )


def keep_until(path: Path, step: int) -> None:
    """Drop lines of later steps, which are trained again, and a last one that is not whole.

    Raises:
        RunDirError: another line is no JSON object with a step.
    """
    rows = list(_lines(path, running=True))
    with damage_refused(path, MEND_METRICS):
        kept = [row for row in rows if row["step"] <= step]
    write_text(path, "".join(_line(row) for row in kept))


def _append(path: Path, row: Mapping[str, object]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(_line(row))


def _line(row: Mapping[str, object]) -> str:
    return json.dumps(with_checksum(row), ensure_ascii=False) + "\n"


def _metrics(row: dict[str, Any]) -> MetricsRow:
    """A line of metrics.jsonl as it should be.

    Raises:
        TypeError: no number of steps, or a metric that is no number.
    """
    odd = [key for key, value in row.items() if value is not None and not isinstance(value, int | float)]
    if odd or not isinstance(row.get("step"), int | float):
        raise TypeError(f"step {row.get('step')!r}: {odd[0] if odd else 'step'} is no number")
    return row


def _lines(path: Path, *, running: bool = False) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines. Only a line feed ends a line: a text may hold other separators."""
    if not path.exists():
        return
    with damage_refused(path, MEND_METRICS):
        lines = path.read_bytes().removesuffix(b"\n").split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            row = without_checksum(json.loads(line.decode() or "{}"))
            if not isinstance(row, dict):
                raise ValueError(f"but {type(row).__name__}, where an object is wanted")
        except (ValueError, RecursionError) as error:
            if running and number == len(lines):
                return
            raise RunDirError(f"{path} line {number} is damaged ({error}); delete the line or train again") from None
        if row:
            yield row
