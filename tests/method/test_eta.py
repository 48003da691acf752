"""The weight of the anchor penalty: schedules by hand, the controller in a closed loop."""

from __future__ import annotations

import math
import random

import pytest

from dphrl.method.eta import GAIN, SCHEDULES, controlled_eta, scheduled_eta


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
