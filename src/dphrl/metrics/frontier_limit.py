"""How far a model lies from the best that a policy can do on its prompts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence


def distance_to_limit(point: tuple[float, float], border: Sequence[tuple[float, float]]) -> float:
    """From (mean@n, Pass@k) to the nearest point of a limit's line, in its unit; one pair is a line of no length.

    Args:
        point, border: in one unit, 0..1 or %; of the border one pair or more, joined in their order.
    """
    ends = itertools.pairwise(border) if len(border) > 1 else [(border[0], border[0])]
    return min(_to_segment(point, *segment) for segment in ends)


def _to_segment(point: tuple[float, float], start: tuple[float, float], end: tuple[float, float]) -> float:
    along, away = (end[0] - start[0], end[1] - start[1]), (point[0] - start[0], point[1] - start[1])
    length = along[0] ** 2 + along[1] ** 2
    share = 0.0 if length == 0 else min(max((away[0] * along[0] + away[1] * along[1]) / length, 0.0), 1.0)
    return math.hypot(away[0] - share * along[0], away[1] - share * along[1])
