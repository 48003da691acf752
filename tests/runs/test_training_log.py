"""metrics.jsonl, warnings.jsonl, changes.jsonl and started.json: what is written is read, and damage is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dphrl.errors import RunDirError
from dphrl.files import without_checksum
from dphrl.method.collapse import TrainingWarning
from dphrl.runs.run_dir import RunDir, read_versions
from dphrl.runs.training_log import (
    TrainingChange,
    append_change,
    append_metrics,
    append_warning,
    read_changes,
    read_metrics,
    read_warnings,
)
from dphrl.runs.training_start import Digested, TrainingStart, read_training_start, write_training_start


def test_lines_are_added_and_read(tmp_path: Path) -> None:
    """A line separator within a text does not end a line; null stands for a metric that was not finite."""
    rows = [{"step": 2, "loss": 0.5, "kl": None}, {"step": 4, "loss": 0.25}]
    for row in rows:
        append_metrics(tmp_path / "metrics.jsonl", row)
    assert read_metrics(tmp_path / "metrics.jsonl") == rows
    warnings = [TrainingWarning(2, "loss", None, None, "left\u2028out"), TrainingWarning(4, "entropy", 0.1, 0.3, "low")]
    for warning in warnings:
        append_warning(tmp_path / "warnings.jsonl", warning)
    assert read_warnings(tmp_path / "warnings.jsonl") == warnings
    first = without_checksum(json.loads((tmp_path / "warnings.jsonl").read_text().split("\n")[0]))
    assert first == {"step": 2, "metric": "loss", "text": "left\u2028out"}
    change = TrainingChange(4, "2026-01-01T00:00:00+00:00", {"train.steps": (3, 4), "anchors.count": (None, 2)})
    append_change(tmp_path / "changes.jsonl", change)
    assert read_changes(tmp_path / "changes.jsonl") == [change]
    (line,) = (json.loads(text) for text in (tmp_path / "changes.jsonl").read_text().splitlines())
    assert line["changes"]["train.steps"] == {"old": 3, "new": 4}


def test_files_that_are_not_there_have_no_lines(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "m") == read_warnings(tmp_path / "w") == read_changes(tmp_path / "c") == []
    assert read_versions(RunDir(tmp_path)) == {}


def test_a_line_in_the_making_is_left_out_of_a_running_training_only(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "lo')
    assert read_metrics(path, running=True) == [{"step": 1}]
    with pytest.raises(RunDirError, match=r"metrics.jsonl line 2 is damaged"):
        read_metrics(path)


def test_damage_is_named(tmp_path: Path) -> None:
    (tmp_path / "x").write_text('{"step": 1}\n')
    with pytest.raises(RunDirError, match=r"x is damaged \(KeyError: 'metric'\); delete it"):
        read_warnings(tmp_path / "x")
    with pytest.raises(RunDirError, match=r"x is damaged \(KeyError: 'time'\); delete it"):
        read_changes(tmp_path / "x")
    with pytest.raises(RunDirError, match=r"x is damaged .*delete it to go on"):
        read_training_start(tmp_path / "x")
    (tmp_path / "versions.json").write_text("[]")
    with pytest.raises(RunDirError, match=r"versions.json is damaged .*delete it"):
        read_versions(RunDir(tmp_path))


def test_what_a_training_was_begun_with_is_read_as_written(tmp_path: Path) -> None:
    for anchors in (None, Digested(3, "a")):
        start = TrainingStart(
            settings={"train": {"steps": 3}},
            policy={"weights": "w"},
            prompts=Digested(2, "p"),
            anchors=anchors,
            ranks=2,
        )
        write_training_start(tmp_path / "started.json", start)
        assert read_training_start(tmp_path / "started.json") == start
