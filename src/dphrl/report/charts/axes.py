"""Axes of the charts: their ends and ticks, so that labels can be placed in pixels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LEAST_POINTS = 5.0
"""Shortest axis of rates, in percentage points, so that differences of hundredths are not magnified."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A linear axis whose ends are ours, so that a label can be placed in pixels."""

    low: float
    high: float
    pixels: float

    def at(self, value: float) -> float:
        """Pixels from the low end."""
        return (value - self.low) / (self.high - self.low) * self.pixels

    def value(self, pixels: float) -> float:
        """The opposite of `at`."""
        return self.low + pixels / self.pixels * (self.high - self.low)


def percent_axis(values: Iterable[float | None], pixels: float) -> Axis:
    """An axis a little longer than the values, within 0 and 100 %, at least LEAST_POINTS long."""
    known = [v for v in values if v is not None] or [0.0, 100.0]
    low, high = min(known), max(known)
    edge = max(0.05 * (high - low), (LEAST_POINTS - (high - low)) / 2)
    low, high = max(low - edge, 0.0), min(high + edge, 100.0)
    if high - low < LEAST_POINTS:
        low, high = (100 - LEAST_POINTS, 100.0) if high == 100.0 else (0.0, LEAST_POINTS)
    return Axis(math.floor(low), math.ceil(high), pixels)


def shown_ks(ks: Sequence[int]) -> list[int]:
    """Powers of two and the last value. Labels as close as 8 and 12 have no room side by side."""
    shown = [k for k in ks if k & (k - 1) == 0 or k == ks[-1]]
    if len(shown) > 1 and shown[-1] < 1.5 * shown[-2]:
        del shown[-2]
    return shown
