"""Distances to a limit, worked by hand."""

from __future__ import annotations

import math

import pytest

from dphrl.metrics.frontier_limit import distance_to_limit


@pytest.mark.parametrize(
    ("point", "border", "expected"),
    [
        ((0.0, 0.0), [(0.0, 1.0), (1.0, 0.0)], math.sqrt(0.5)),
        ((0.5, 0.5), [(0.0, 1.0), (1.0, 0.0)], 0.0),
        ((2.0, 1.0), [(0.0, 1.0), (1.0, 0.0)], math.sqrt(2)),
        ((-1.0, 1.0), [(0.0, 1.0), (1.0, 0.0)], 1.0),
        ((0.5, 0.0), [(0.0, 1.0), (1.0, 1.0), (1.0, 0.0)], 0.5),
        ((3.0, 4.0), [(0.0, 0.0)], 5.0),
        ((3.0, 4.0), [(0.0, 0.0), (0.0, 0.0)], 5.0),
    ],
)
def test_distance(point: tuple[float, float], border: list[tuple[float, float]], expected: float) -> None:
    """Within a side, on it, past either end of it, at the nearer of two, and to a limit of one pair."""
    assert distance_to_limit(point, border) == pytest.approx(expected)
