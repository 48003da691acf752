"""Bands of the base's solve rate."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dphrl.method.verdict_counts import Counts
from dphrl.metrics.bands import BANDS, band_of, scores_by_band
from dphrl.metrics.intervals import Interval, Scores


@pytest.mark.parametrize(
    ("share", "name"),
    [
        *((0.0, "never"), (1e-9, "rarely"), (0.25, "rarely"), (0.26, "sometimes"), (0.74, "sometimes")),
        *((0.75, "mostly"), (1 - 1e-9, "mostly"), (1.0, "always")),
    ],
)
def test_edges(share, name):
    assert band_of(share).name == name


@given(st.floats(0, 1), st.floats(0, 1))
def test_bands_cover_and_follow_the_share(one, other):
    low, high = sorted((one, other))
    assert BANDS.index(band_of(low)) <= BANDS.index(band_of(high))


def test_by_hand():
    """Base solves a in 0 of 4, b and c in 2, d could not be judged: two bands, and d in none."""
    scores = Scores(
        tuple("abcd"),
        ("mean_at_n", "pass@4", "keep"),
        np.array([[0.25, 1, np.nan], [0.5, 1, 1], [0.0, 0, 0], [0.9, 1, np.nan]]),
    )
    base = {"a": Counts(4, 4, 0), "b": Counts(4, 4, 2), "c": Counts(4, 4, 2), "d": Counts(4, 0, 0)}
    never, sometimes = scores_by_band(scores, base, 4, rng=np.random.default_rng(0), resamples=200)
    assert (never.band, never.prompts, never.keep) == ("never", 1, None)
    assert never.mean_at_n.value == 0.25 and never.pass_at_n.low == pytest.approx(0.025)
    assert (sometimes.band, sometimes.low, sometimes.high) == ("sometimes", 0.25, 0.75)
    assert sometimes.prompts == 2
    assert sometimes.keep == Interval(0.5, 0.0, 1.0) and sometimes.mean_at_n.value == 0.25
