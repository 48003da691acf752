"""Pass@k over training: numbers of checkpoints joined with base and trained model on the same prompts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from compare_runs import BASE, write_eval, write_run

from dphrl.stages.compare.compared_runs import open_compared_runs
from dphrl.stages.report.training_course import course_lines, course_text, training_seconds

LOG = [{"step": 2, "step_time": 1.5}, {"step": 4, "step_time": 0.5}]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two checkpoints measured on a and b; base and trained model on a, b and c. n = 2, so that k is 1."""
    path = write_run(tmp_path / "grpo", {"a": 2, "b": 2, "c": 2}, method="grpo")
    write_eval(path / "eval" / "checkpoint-2", {"a": 2, "b": 1}, None)
    write_eval(path / "eval" / "checkpoint-4", {"a": 2, "b": 0}, None)
    (path / "train").mkdir()
    (path / "train" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*LOG, {"step": 6}]))
    return path


def test_the_base_is_step_0_and_the_trained_model_the_last_step(run: Path) -> None:
    """mean@2 of a and b alone: base 2 + 1 of 4, then 3, 2 and 4 of 4 draws."""
    (opened,) = open_compared_runs([run])
    lines = course_lines(opened)
    assert BASE == {"a": 2, "b": 1, "c": 0}
    assert [(line["step"], line["course/mean_at_n"]) for line in lines] == [(0, 75.0), (2, 75.0), (4, 50.0), (6, 100.0)]
    assert [line["course/pass_at_k"] for line in lines] == [75.0, 75.0, 50.0, 100.0]
    assert lines[1]["course/distinct"] == 1.5


def test_what_it_rests_on_and_costs_is_said(run: Path) -> None:
    """Each of the two evaluations says 1 s; the training took 2 x 1.5 s + 2 x 0.5 s."""
    (opened,) = open_compared_runs([run])
    assert training_seconds(LOG) == 4.0
    assert course_text(opened) == (
        "GRPO: 2 checkpoints on 2 prompts, mean@2 and Pass@1; drawing took 2 s, 50 % of the training's 4 s"
    )


def test_without_measured_checkpoints_there_is_no_course(tmp_path: Path) -> None:
    (opened,) = open_compared_runs([write_run(tmp_path / "grpo", {"a": 2, "b": 2, "c": 2}, method="grpo")])
    assert course_lines(opened) == [] and course_text(opened) == ""
