"""Signs of collapse: pure from rows to warnings, told once a run, on the screen and in warnings.jsonl."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dphrl.engines.trl.callbacks import CollapseWarnings, ShowProgress
from dphrl.method.collapse import SIGNS, WINDOW, TrainingWarning, warnings_of
from dphrl.progress import PlainProgress

DOCS = Path(__file__).parents[2] / "docs"


def rows_of(metric: str, *values: float | None) -> list[dict[str, Any]]:
    return [{"step": 2 * (i + 1), metric: value} for i, value in enumerate(values)]


@pytest.mark.parametrize(
    ("metric", "values", "value", "limit"),
    [
        # mean of the first five 0.9, a third of it 0.3; of the last five 0.29
        ("entropy", [1.0, 0.9, 0.8, 0.9, 0.9, 0.5, 0.4, 0.25, 0.2, 0.1], 0.29, 0.3),
        ("anchor/forward_kl", [0.0, 0.2, 0.2, 0.3, 0.35], 0.21, 0.2),
        ("frac_reward_zero_std", [0.9, 0.8, 0.8, 0.8, 0.8], 0.82, 0.8),
        ("completions/clipped_ratio", [0.0, 0.0, 0.5, 0.5, 0.5], 0.3, 0.25),
    ],
)
def test_a_sign_is_seen_just_beyond_its_limit(metric: str, values: list[float], value: float, limit: float) -> None:
    (found,) = warnings_of(rows_of(metric, *values))
    assert (found.metric, found.step) == (metric, 2 * len(values))
    assert found.value == pytest.approx(value) and found.limit == pytest.approx(limit)
    advice = next(sign.advice for sign in SIGNS if sign.metric == metric)
    assert found.text.startswith(f"{metric} is {value}") and found.text.endswith(advice)


@pytest.mark.parametrize(
    ("metric", "values"),
    [
        ("entropy", [0.9] * 5 + [0.5, 0.4, 0.3, 0.2, 0.1]),  # 0.3 is not below 0.3
        ("entropy", [0.9, 0.01, 0.01, 0.01]),  # too few lines
        ("entropy", [0.0] * 9),
        ("anchor/forward_kl", [0.2] * 5),
        ("anchor/forward_kl", [-5.0] * 9),
        ("anchor/forward_kl", [9.0, 9.0, 9.0, *[0.1] * 5]),  # over again
        ("frac_reward_zero_std", [None] * 9),
        ("completions/mean_length", [1e9] * 9),
    ],
)
def test_nothing_is_seen_within_the_limits(metric: str, values: list[float | None]) -> None:
    assert warnings_of(rows_of(metric, *values)) == ()


def test_null_is_passed_over_and_only_the_ends_are_read() -> None:
    """A mean of 0.5 over what is there; the lines between the first five and the last five may be missing."""
    rows = rows_of("completions/clipped_ratio", *[0.0] * 30, None, None, 0.5, None, 0.5)
    (found,) = warnings_of(rows)
    assert found.value == 0.5 and warnings_of([*rows[:WINDOW], *rows[-WINDOW:]]) == (found,)


def test_two_signs_come_in_the_order_of_the_table() -> None:
    rows = [{"step": i, "frac_reward_zero_std": 1.0, "anchor/forward_kl": 1.0} for i in range(WINDOW)]
    assert [w.metric for w in warnings_of(rows)] == ["anchor/forward_kl", "frac_reward_zero_std"]


def test_the_signs_stand_in_the_docs() -> None:
    text = (DOCS / "metrics.md").read_text(encoding="utf-8")
    documented = text.partition("## Warnings")[2].partition("\n## ")[0]
    assert all(f"`{sign.metric}`" in documented for sign in SIGNS)


def test_each_is_told_once_a_run_however_often_it_is_resumed(tmp_path: Path) -> None:
    metrics, told = tmp_path / "metrics.jsonl", tmp_path / "warnings.jsonl"

    def train(first: int, last: int) -> list[TrainingWarning]:
        said: list[TrainingWarning] = []

        def warn(warned: TrainingWarning) -> None:
            said.append(warned)
            with told.open("a") as file:
                file.write(json.dumps(asdict(warned)) + "\n")

        callback = CollapseWarnings(metrics, told, warn)
        callback.on_train_begin(None, None, None)
        for step in range(first, last):
            logs = {"loss": 0.1, "entropy": 1.0 if step <= 5 else 0.1, "anchor/forward_kl": 0.1 if step < 60 else 5.0}
            state = SimpleNamespace(global_step=step, is_world_process_zero=True)
            callback.on_log(None, state, None, logs=logs)
            with metrics.open("a") as file:
                file.write(json.dumps({"step": step, **logs}) + "\n")
        return said

    assert train(1, 8) == []
    (entropy,) = train(8, 40)  # the window of 5 holds the first lines, read from the file
    assert (entropy.metric, entropy.step) == ("entropy", 9) and entropy.limit == pytest.approx(1 / 3)
    assert train(40, 50) == []
    assert [(w.metric, w.step) for w in train(50, 70)] == [("anchor/forward_kl", 60)]


def test_another_rank_and_other_logs_are_silent(tmp_path: Path) -> None:
    def fail(warned: TrainingWarning) -> None:
        raise AssertionError(warned)

    callback = CollapseWarnings(tmp_path / "none", tmp_path / "none", fail)
    bad = {"completions/clipped_ratio": 1.0}
    for logs, main in (({"loss": 0.0, **bad}, False), (bad, True), ({}, True), (None, True)):
        for step in range(20):
            state = SimpleNamespace(global_step=step, is_world_process_zero=main)
            callback.on_log(None, state, None, logs=logs)


def test_training_shows_rate_time_left_and_the_reward_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """2 optimiser steps a generation, a log line every second: each generation is shown with its own reward."""
    clock = iter(range(0, 1000, 20))
    monkeypatch.setattr("dphrl.progress.time.monotonic", lambda: float(next(clock)))
    stream = io.StringIO()
    callback = ShowProgress(PlainProgress(stream), "train dph", 2)
    for step in range(5):
        state = SimpleNamespace(global_step=step, max_steps=10, is_world_process_zero=True)
        logs = step > 0 and step % 2 == 0
        if step == 0:
            callback.on_train_begin(None, state, None)
            continue
        callback.on_step_end(None, state, SimpleNamespace(should_log=logs))
        if logs:
            callback.on_log(None, state, None, logs={"loss": 0.0, "reward": step / 10})
    assert stream.getvalue().splitlines() == [
        "train dph: 0/5",
        "train dph: 1/5 (0.05/s, 80 s left) reward 0.200",
        "train dph: 2/5 (0.05/s, 60 s left) reward 0.400",
    ]


def test_a_message_is_a_line_of_its_own_each_time() -> None:
    stream = io.StringIO()
    progress = PlainProgress(stream)
    progress("warning, step 4", 0, 0, "look [here]")
    progress("warning, step 4", 0, 0, "and there")
    assert stream.getvalue() == "warning, step 4: look [here]\nwarning, step 4: and there\n"
