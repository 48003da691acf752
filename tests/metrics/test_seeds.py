"""Variance components and the interval over prompts and seeds, on data whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dphrl.metrics.seeds import seed_spread, student
from dphrl.types import as_json


@pytest.mark.parametrize(
    ("df", "t"), [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (5, 2.5706), (30, 2.0423), (120, 1.9799)]
)
def test_quantiles_are_those_of_every_table(df, t):
    assert student(0.95, df) == pytest.approx(t, abs=1e-4)


def test_the_normal_limit_and_other_levels():
    assert student(0.95, 10**6) == pytest.approx(1.959964, abs=1e-6)
    assert student(0.99, 10) == pytest.approx(3.1693, abs=1e-4)
    assert student(0.95, 299) == pytest.approx(student(0.95, 300), abs=0.01)


def test_by_hand():
    """Rows 1 2 3 and 3 4 5: only seeds differ beside the prompts. MS_prompts 2, MS_seeds 6, MS_rest 0; se^2 = 8 / 6."""
    found = seed_spread(np.array([[1.0, 2.0, 3.0], [3.0, 4.0, 5.0]]))
    assert found is not None and (found.low + found.high) / 2 == pytest.approx(3.0) and found.rest == 0.0
    assert (found.prompts, found.seeds) == (pytest.approx(math.sqrt(2 / 6)), pytest.approx(math.sqrt(6 / 6)))
    assert found.df == pytest.approx(64 / (4 / 2 + 36 / 1))
    assert found.high - 3.0 == pytest.approx(student(0.95, 1) * math.sqrt(8 / 6))
    assert set(as_json(found)) == {"prompts", "seeds", "rest", "df", "low", "high"}


def test_one_seed_or_one_prompt_says_nothing_of_others():
    assert seed_spread(np.ones((1, 9))) is None and seed_spread(np.ones((3, 1))) is None
    same = seed_spread(np.ones((3, 4)))
    assert same is not None and (same.low, same.high, same.seeds) == (1.0, 1.0, 0.0)


def simulate(rng: np.random.Generator, seeds: int, prompts: int, sd: tuple[float, float, float]) -> np.ndarray:
    """mean 0 + prompt + seed + rest, with these standard deviations."""
    sizes = ((1, prompts), (seeds, 1), (seeds, prompts))
    return sum(rng.normal(0, s, size=size) for s, size in zip(sd, sizes, strict=True))


@pytest.mark.parametrize("sd", [(0.3, 0.05, 0.2), (0.3, 0.0, 0.2), (0.05, 0.2, 0.1)])
def test_covers_the_truth_where_prompts_alone_would_not(sd):
    """2,000 times three seeds on 60 prompts: at least 93 % of the intervals hold 0 (the standard error of that share is
    0.5 %). Where seeds matter an interval over prompts alone holds it far less often."""
    rng, covered, alone, seed_variance = np.random.default_rng(0), 0, 0, []
    for _ in range(2000):
        scores = simulate(rng, 3, 60, sd)
        found = seed_spread(scores)
        covered += found.low <= 0.0 <= found.high
        means = scores.mean(axis=0)
        alone += abs(means.mean()) <= 1.96 * means.std(ddof=1) / math.sqrt(60)
        seed_variance.append(found.seeds**2)
    assert covered / 2000 >= 0.93
    assert np.mean(seed_variance) == pytest.approx(sd[1] ** 2 / 3, abs=0.03 * (sum(sd) ** 2))
    if sd[1] == 0.2:
        assert alone / 2000 < 0.5


def test_components_are_those_of_the_simulation():
    """Many seeds and prompts: each component within 10 % of the truth."""
    found = seed_spread(simulate(np.random.default_rng(1), 200, 400, (0.3, 0.1, 0.2)))
    assert found.prompts == pytest.approx(0.3 / math.sqrt(400), rel=0.1)
    assert found.seeds == pytest.approx(0.1 / math.sqrt(200), rel=0.15)
    assert found.rest == pytest.approx(0.2 / math.sqrt(400 * 200), rel=0.05)
