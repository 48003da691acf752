"""eta inside the trainer: settings, schedules and the controller, resumed to the bit."""

from __future__ import annotations

import json
import math
import shutil
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dphrl.config.load import build_config
from dphrl.engines.common.eta_control import EtaCourse, EtaSettings
from dphrl.engines.trl.callbacks import EtaControl
from dphrl.errors import ConfigError
from dphrl.method.eta import controlled_eta
from dphrl.runs.training_log import read_metrics


@pytest.mark.parametrize(
    ("objective", "part"),
    [
        ({"eta_schedule": "target"}, "needs objective.drift_target > 0.*nats per token"),
        ({"eta_schedule": "target", "drift_target": 0.05, "eta": 0}, "0 < low <= eta <= high"),
        ({"eta_schedule": "target", "drift_target": 0.05, "eta_bounds": [0.5, 1.0]}, "eta=0.05 within"),
        ({"eta_schedule": "target", "drift_target": 0.05, "eta_bounds": [0.1]}, "eta_bounds="),
        ({"eta_schedule": "target", "drift_target": 0.05, "eta_end": 0.1}, "eta_end is read with .*linear or cosine"),
        ({"drift_target": 0.05}, "drift_target is read with objective.eta_schedule=target, but it is constant"),
        ({"eta_schedule": "linear", "eta_bounds": [0.1, 1.0]}, "eta_bounds is read with"),
        ({"eta_schedule": "square"}, "eta_schedule"),
        ({"anchors_per_step": 8, "anchor_ratio": 0.1}, "same thing twice"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(objective: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        build_config({"objective": objective})


def test_anchors_follow_the_completions_of_an_optimiser_step() -> None:
    """64 completions in 2 updates: 0.125 x 32 = 4 anchors; never none; where nothing is said an
    eighth, and one a micro-batch at least where anchors have a forward of their own."""
    from dphrl.engines.trl.config_to_trl import anchors_per_step

    def count(train: dict[str, Any] | None = None, **objective: Any) -> int:
        return anchors_per_step(build_config({"objective": objective, "train": train or {}}))

    assert [count(anchor_ratio=r) for r in (0.125, 0.7, 1.0, 2.5, 1e-6)] == [4, 22, 32, 80, 1]
    assert count() == 4 and count(anchors_per_step=5) == 5
    assert [count({"micro_batch": 4}, anchor_forward=how) for how in ("separate", "auto", "merged")] == [8, 4, 4]
    assert count({"prompts_per_step": 128, "group_size": 16}) == 128, "1,024 completions in each of 2 updates"


@pytest.fixture
def trained(demo_values: dict[str, Any]) -> Any:
    """Run the stages on the shipped model; the lines of metrics.jsonl and the run directory."""
    from dphrl.stages.presample.presample import presample
    from dphrl.stages.train.train import train

    def make(out: str, base: str | None = None, **objective: Any) -> tuple[list[dict[str, Any]], Path]:
        values = {**demo_values, "out": str(Path(demo_values["out"]).parent / out), "base_run": base}
        values["objective"] = {**demo_values["objective"], **objective}
        values["train"] = {**demo_values["train"], "steps": 4, "log_every": 1}
        config = build_config(values)
        if base is None:
            presample(config, base_dir=Path())
        run = train(config, base_dir=Path())
        return read_metrics(run.metrics), run.root

    return make


@pytest.mark.slow
def test_eta_in_training_is_scheduled_logged_and_resumed_to_the_bit(trained: Any) -> None:
    rows, base = trained("linear", eta_schedule="linear", eta=0.4, eta_end=0.05)
    assert [row["anchor/eta"] for row in rows] == pytest.approx([0.4 - 0.05 * i for i in range(8)])

    target = {"eta_schedule": "target", "eta": 0.5, "drift_target": 0.01, "eta_bounds": [0.05, 5.0]}
    rows, root = trained("target", base=str(base), **target)
    for before, after in pairwise(rows):
        want = controlled_eta(before["anchor/eta"], before["anchor/forward_kl"], target=0.01, low=0.05, high=5.0)
        assert after["anchor/eta"] == want
    assert len({row["anchor/eta"] for row in rows}) > 4

    weights = (root / "train/final/model.safetensors").read_bytes()
    shutil.rmtree(root / "train/final")
    shutil.rmtree(root / "train/checkpoint-8")
    again, _ = trained("target", base=str(base), **target)  # goes on from checkpoint-6
    timed = {k for r in rows for k in r if k in ("step_time", "train_runtime", "epoch") or k.startswith("throughput/")}
    assert [{k: v for k, v in r.items() if k not in timed} for r in again] == [
        {k: v for k, v in r.items() if k not in timed} for r in rows
    ]
    assert (root / "train/final/model.safetensors").read_bytes() == weights


def state_of(step: int, **callbacks: Any) -> Any:
    return SimpleNamespace(global_step=step, max_steps=10, stateful_callbacks=dict(callbacks))


def test_a_checkpoint_carries_the_next_eta_through_json() -> None:
    """Two controllers with the same measurements, one of them carried over: the same eta to the bit."""
    drifts = [0.01, 0.2, 0.035, 0.029, 0.07]

    def control(measured: list[float]) -> tuple[EtaCourse, EtaControl]:
        course = EtaCourse(EtaSettings(0.3, "target", drift_target=0.03))
        return course, EtaControl(course, iter(measured).__next__)

    def run(callback: EtaControl, first: int, last: int) -> None:
        for step in range(first, last):
            callback.on_step_begin(None, state_of(step), None)
            callback.on_step_end(None, state_of(step), None)

    (whole, all_steps), (_, before), (course, after) = control(drifts), control(drifts), control(drifts[3:])
    run(all_steps, 0, 5)
    run(before, 0, 3)
    after.on_train_begin(None, state_of(3, EtaControl=json.loads(json.dumps(before.state()))), None)
    run(after, 3, 5)
    assert after.state() == all_steps.state() and course.now == whole.now
    with pytest.raises(ConfigError, match="step 3 holds no eta"):
        after.on_train_begin(None, state_of(3), None)


def test_a_schedule_needs_nothing_of_a_checkpoint() -> None:
    course = EtaCourse(EtaSettings(0.9, "linear"))
    callback, state = EtaControl(course, lambda: math.nan), state_of(3)
    callback.on_train_begin(None, state, None)
    callback.on_step_begin(None, state, None)
    assert course.now == pytest.approx(0.6) and "EtaControl" in state.stateful_callbacks
