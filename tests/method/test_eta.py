"""The weight of the anchor penalty: schedules by hand, the controller in a closed loop, both inside the trainer."""

from __future__ import annotations

import json
import math
import random
import shutil
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dphrl.config.load import build_config
from dphrl.errors import ConfigError
from dphrl.method.eta import GAIN, SCHEDULES, EtaControl, controlled_eta, scheduled_eta


def test_schedules_start_and_end_where_they_say() -> None:
    """Five steps from 0.4 to 0.1: the middle one is half way in both."""
    for name in ("linear", "cosine"):
        course = [scheduled_eta(name, 0.4, 0.1, step=i, steps=5) for i in range(5)]
        assert course == sorted(course, reverse=True)
        assert [course[0], course[2], course[4]] == pytest.approx([0.4, 0.25, 0.1])
    assert scheduled_eta("linear", 0.4, 0.1, step=1, steps=5) == pytest.approx(0.325)
    assert scheduled_eta("cosine", 0.4, 0.1, step=1, steps=5) == pytest.approx(0.1 + 0.3 * (1 + math.sqrt(0.5)) / 2)
    assert [scheduled_eta("constant", 0.3, 0.0, step=i, steps=3) for i in range(3)] == [0.3] * 3
    assert all(scheduled_eta(name, 0.3, 0.1, step=0, steps=1) == 0.3 for name in SCHEDULES)


def test_one_step_of_the_controller_by_hand() -> None:
    """Drift 1.5 x its target: ln eta + 0.1 * 0.5; far above or below, the error counts as 1 or -1."""
    held: dict[str, float] = {"target": 0.1, "low": 0.001, "high": 10.0}
    assert controlled_eta(0.2, 0.1, **held) == 0.2
    assert controlled_eta(0.2, 0.15, **held) == pytest.approx(0.2 * math.exp(GAIN / 2))
    assert controlled_eta(0.2, 99.0, **held) == pytest.approx(0.2 * math.exp(GAIN))
    assert controlled_eta(0.2, math.inf, **held) == pytest.approx(0.2 * math.exp(GAIN))
    assert controlled_eta(0.2, -99.0, **held) == pytest.approx(0.2 * math.exp(-GAIN))
    assert controlled_eta(0.2, math.nan, **held) == 0.2
    assert controlled_eta(10.0, 99.0, **held) == 10.0 and controlled_eta(0.001, -1.0, **held) == 0.001


def closed_loop(push: float, lag: float, noise: float, start: float, steps: int = 600) -> tuple[list[float], float]:
    """A policy pushed away by `push` a step and pulled back by eta: drift' = push - eta * drift, seen through noise."""
    rng, drift, eta, seen = random.Random(0), 0.0, start, []
    for _ in range(steps):
        drift += (push - eta * drift) / lag
        eta = controlled_eta(eta, drift + rng.gauss(0, noise), target=0.05, low=start / 100, high=start * 100)
        seen.append(drift)
    return seen, eta


@pytest.mark.parametrize("push", [0.002, 0.01, 0.04])
@pytest.mark.parametrize("start", [0.1, 0.6])
@pytest.mark.parametrize(("lag", "noise"), [(1, 0.0), (5, 0.0), (5, 0.02)])
def test_the_loop_settles_at_the_target(push: float, start: float, lag: float, noise: float) -> None:
    """Wherever it starts; at rest eta = push / target. The noise is 40 % of the target."""
    drifts, eta = closed_loop(push, lag, noise, start)
    late = drifts[300:]
    assert sum(late) / len(late) == pytest.approx(0.05, rel=0.1)
    assert min(late) > 0.033 and max(late) < 0.067  # a third, also where it answers only after lag / eta = 125 steps
    if noise == 0 and push > 0.002:
        assert late[-1] == pytest.approx(0.05, rel=1e-3) and eta == pytest.approx(push / 0.05, rel=1e-3)


def test_what_cannot_be_held_ends_at_a_bound() -> None:
    _, eta = closed_loop(push=100.0, lag=100, noise=0.0, start=0.2)
    assert eta == 20.0
    _, eta = closed_loop(push=0.0, lag=1, noise=0.0, start=0.2)
    assert eta == 0.002


@pytest.mark.parametrize(
    ("objective", "part"),
    [
        ({"eta_schedule": "target"}, "needs objective.drift_target > 0.*nats per token"),
        ({"eta_schedule": "target", "drift_target": 0.05, "eta": 0}, "0 < low <= eta <= high"),
        ({"eta_schedule": "target", "drift_target": 0.05, "eta_bounds": [0.5, 1.0]}, "eta=0.2 within"),
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
    """64 completions in 2 updates: 0.125 x 32 = 4 anchors; never none; where nothing is said 32,
    or an eighth of the completions."""
    from dphrl.engines.trl.settings import anchors_per_step

    def count(train: dict[str, Any] | None = None, **objective: Any) -> int:
        return anchors_per_step(build_config({"objective": objective, "train": train or {}}))

    assert [count(anchor_ratio=r) for r in (0.125, 0.7, 1.0, 2.5, 1e-6)] == [4, 22, 32, 80, 1]
    assert count() == 32 and count(anchors_per_step=5) == 5
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
        return [json.loads(line) for line in run.metrics.read_text().splitlines()], run.root

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


def test_a_resumed_controller_goes_on_from_its_checkpoint() -> None:
    """Two controllers with the same measurements, one of them carried over through JSON: the same eta to the bit."""
    settings = build_config({"objective": {"eta_schedule": "target", "drift_target": 0.03, "eta": 0.3}}).objective
    drifts = [0.01, 0.2, 0.035, 0.029, 0.07]

    def run(control: EtaControl, first: int, last: int) -> None:
        for step in range(first, last):
            control.on_step_begin(None, state_of(step), None)
            control.on_step_end(None, state_of(step), None)

    whole, before = (EtaControl(settings, iter(drifts).__next__) for _ in range(2))
    run(whole, 0, 5)
    run(before, 0, 3)
    after = EtaControl(settings, iter(drifts[3:]).__next__)
    after.on_train_begin(None, state_of(3, EtaControl=json.loads(json.dumps(before.state()))), None)
    run(after, 3, 5)
    assert after.state() == whole.state() and after.eta == whole.eta != before.eta
    with pytest.raises(ConfigError, match="step 3 holds no eta"):
        after.on_train_begin(None, state_of(3), None)


def test_a_schedule_needs_nothing_of_a_checkpoint() -> None:
    settings = build_config({"objective": {"eta_schedule": "linear", "eta": 0.9}}).objective
    control = EtaControl(settings, lambda: math.nan)
    state = state_of(3)
    control.on_train_begin(None, state, None)
    control.on_step_begin(None, state, None)
    assert control.eta == pytest.approx(0.6) and "EtaControl" in state.stateful_callbacks
