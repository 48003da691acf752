"""How hard a prompt is: posterior intervals by hand, and the draws that difficulty reads."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dphrl.method.difficulty import difficulty, in_band, mean_reward, posterior
from dphrl.method.partition import Rules
from dphrl.types import Completion
from dphrl.verifiers.verifier import verdict


def test_posterior_by_hand() -> None:
    """No draw: the uniform prior. 8 of 8: the distribution function is x^9. 1 of 1: x^2."""
    assert posterior(0, 0) == pytest.approx((0.025, 0.975))
    assert posterior(8, 0) == pytest.approx((0.025 ** (1 / 9), 0.975 ** (1 / 9)))
    assert posterior(1, 0) == pytest.approx((math.sqrt(0.025), math.sqrt(0.975)))


@given(st.integers(0, 40), st.integers(0, 40), st.sampled_from([0.5, 0.9, 0.95]))
@settings(deadline=None, max_examples=40)
def test_posterior_holds_its_mass_and_mirrors(successes: int, failures: int, level: float) -> None:
    low, high = posterior(successes, failures, level)
    x = np.linspace(0, 1, 20_001)
    density = x**successes * (1 - x) ** failures
    inside = density[(x >= low) & (x <= high)].sum() / density.sum()
    assert inside == pytest.approx(level, abs=4e-3)
    assert posterior(failures, successes, level) == pytest.approx((1 - high, 1 - low))


def row(marks: str) -> dict[int, Completion]:
    of: dict[str, Any] = {"+": verdict("correct"), "-": verdict("wrong"), "v": verdict("verifier_error")}
    return {d: Completion("p", d, (1,), "", "stop", of[m]) for d, m in enumerate(marks)}


def test_difficulty_reads_the_draws_that_settled_the_set() -> None:
    """Threshold 3 of 4: two draws every prompt gets; +--... is settled by its third draw, the fourth is not read."""
    rules = Rules(threshold=3, presamples=4)
    one = difficulty(row("+--+"), rules)
    assert (one.draws, one.judged, one.successes, one.reward) == (3, 3, 1, 0.5)
    assert (one.low, one.high) == pytest.approx(posterior(1, 2), abs=1e-6)
    full = difficulty(row("+-v+"), Rules(threshold=3, presamples=4, full_counts=True))
    assert (full.draws, full.judged, full.successes) == (4, 3, 2) and full.reward == pytest.approx(2 / 3)
    none = difficulty(row("vvvv"), rules)
    assert none.reward is None and not in_band(none, [0, 1])
    assert in_band(full, [0.5, 0.7]) and not in_band(full, [0.7, 1])
    assert mean_reward({"a": one, "b": full, "c": none}, "abc") == pytest.approx((0.5 + 2 / 3) / 2)
    assert mean_reward({"c": none}, "c") is None
