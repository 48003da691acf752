"""Which numbers of two results count as one number, when computing them another way may change their last digits."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable
from itertools import chain
from typing import cast

from dphrl.verifiers.sql.result_json import Row, Rows

TOLERANCE = 1e-9
"""Largest difference of two numbers taken for one, as a share of the larger."""
_WHOLE_BELOW = 2.0**53
"""Floats below it hold whole numbers exactly."""

Number = int | float


def is_whole(number: Number) -> bool:
    """Whether a number is a count rather than a measurement: two different ones are never near. Ids, seconds since 1970
    and other large whole numbers differ by less than the tolerance."""
    return type(number) is int or (cast(float, number).is_integer() and abs(number) < _WHOLE_BELOW)


def has_fractions(rows: Rows) -> bool:
    """Whether any number is not whole; without one, near and equal are the same."""
    if float not in map(type, chain.from_iterable(rows)):  # most results; a tenth of the time
        return False
    return any(type(cell) is float and not is_whole(cell) for cell in chain.from_iterable(rows))


class GoldNumbers:
    """The numbers of a gold result, in groups of those that count as one.

    Being near is not transitive, so results cannot be compared by pairs of cells alone. Here each number has one
    stand-in, and results are compared exactly by stand-ins. Groups are made of gold numbers only, from the smallest
    on, so that all numbers of a group are near each other; a number of another result is taken for a group only if it
    is near all of it. So two results that are found equal can be matched cell by cell with near numbers, always; and
    where being near is transitive among the numbers at hand, as between any results but made-up ones, all that can be
    matched are found equal.
    """

    def __init__(self, rows: Rows) -> None:
        numbers = sorted(
            {
                cell
                for cell in chain.from_iterable(rows)
                if type(cell) in (int, float) and math.isfinite(cast(float, cell))
            }
        )  # type: ignore[type-var]
        self._first: list[Number] = []
        self._last: list[Number] = []
        self._whole: list[bool] = []  # whether a group has a whole number; it cannot have two
        self._stand_in: dict[Number, Number] = {}
        for number in cast(list[Number], numbers):
            whole = is_whole(number)
            if self._first and _near(self._first[-1], number) and not (whole and self._whole[-1]):
                self._last[-1] = number
                self._whole[-1] = self._whole[-1] or whole
            else:
                self._first.append(number)
                self._last.append(number)
                self._whole.append(whole)
            self._stand_in[number] = self._first[-1]

    def canonical(self, rows: Iterable[Row]) -> list[Row]:
        """The rows with each number replaced by its stand-in."""
        return [tuple(self._of(cell) if type(cell) in (int, float) else cell for cell in row) for row in rows]  # type: ignore[arg-type]

    def _of(self, number: Number) -> Number:
        known = self._stand_in.get(number)
        if known is not None:
            return known
        behind = bisect_right(self._first, number)
        groups = [
            group for group in (behind - 1, behind) if 0 <= group < len(self._first) and self._takes(group, number)
        ]
        return self._first[min(groups, key=lambda group: self._distance(group, number))] if groups else number

    def _takes(self, group: int, number: Number) -> bool:
        if self._whole[group] and is_whole(number):
            return False
        return _near(self._first[group], number) and _near(self._last[group], number)

    def _distance(self, group: int, number: Number) -> Number:
        return max(self._first[group] - number, number - self._last[group])


def _near(one: Number, other: Number) -> bool:
    return math.isclose(one, other, rel_tol=TOLERANCE)
