"""Labels of points in a chart, each where it covers least."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[float, float]
Box = tuple[float, float, float, float]
"""left, bottom, right, top in pixels, y upwards."""

SIDES = ((1, 1), (-1, 1), (1, -1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1))
"""Where a label may stand from its point (right, up), best first: diagonally it covers no interval line."""

GAPS = (6.0, 12.0, 20.0, 30.0)
"""Distance of a label from its point, in pixels."""

LETTER, LINE = 6.3, 13.0
"""Mean width of a letter and height of a line at FONT pixels, in pixels. Names of wide letters take more room."""
FONT = 11


@dataclass(frozen=True, slots=True)
class Label:
    """A text that belongs to a point of a chart."""

    at: Point
    """In pixels, y upwards."""
    text: str
    cross: Box
    """The point's interval lines: left, bottom, right and top end."""


def place_labels(
    labels: Sequence[Label], frame: Box, widest: float = 1000.0, *, line: Sequence[Point] = ()
) -> list[Point]:
    """Where each label starts (left end, middle of its height) so that it covers least of points, lines and labels.

    Args:
        labels: in any order; the result has the same.
        frame: the plot, which labels should not leave.
        widest: a longer label is cut to this width, in pixels.
        line: corners of a line that labels should not cover either.
    """
    taken = [box for label in labels for box in _lines(label)]
    taken += [_around(at, 2.0) for start, end in itertools.pairwise(line) for at in _between(start, end)]
    starts: dict[int, Point] = {}
    for i in sorted(range(len(labels)), key=lambda i: -labels[i].at[1]):
        width = min(LETTER * len(labels[i].text), widest)
        options = [_box(labels[i].at, width, side, gap) for gap in GAPS for side in SIDES]
        others = [_around(other.at, 8.0) for j, other in enumerate(labels) if j != i]
        costs = [_cost(box, [*taken, *others], frame) + 20 * (o // len(SIDES)) for o, box in enumerate(options)]
        box = options[costs.index(min(costs))]
        taken.append(box)
        starts[i] = (box[0], (box[1] + box[3]) / 2)
    return [starts[i] for i in range(len(labels))]


def moved_apart(heights: Sequence[float], top: float, gap: float = LINE) -> list[float]:
    """Heights of labels in a column: as near as possible to those given, at least `gap` apart, order kept.

    Args:
        heights: wanted, in pixels upwards from the bottom.
        top: no label stands above it, or below 0, as long as there is room for all.
        gap: between the middles of two labels, in pixels.
    """
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    blocks: list[tuple[float, list[int]]] = []  # centre and members, from below
    for i in order:
        blocks.append((heights[i], [i]))
        while len(blocks) > 1 and _touch(blocks[-2], blocks[-1], gap):
            (_, below), (_, above) = blocks[-2:]
            members = [*below, *above]
            blocks[-2:] = [(sum(heights[m] for m in members) / len(members), members)]
    placed = {
        m: centre + gap * (rank - (len(members) - 1) / 2)
        for centre, members in blocks
        for rank, m in enumerate(members)
    }
    for rank, i in enumerate(order):
        placed[i] = max(placed[i], gap * rank)
    for rank, i in enumerate(reversed(order)):
        placed[i] = min(placed[i], top - gap * rank)
    return [placed[i] for i in range(len(heights))]


def _between(start: Point, end: Point) -> list[Point]:
    """Points of a segment, 4 pixels apart or less, its end left out."""
    steps = max(1, math.ceil(math.dist(start, end) / 4))
    (x, y), (across, up) = start, (end[0] - start[0], end[1] - start[1])
    return [(x + across * i / steps, y + up * i / steps) for i in range(steps)]


def _touch(below: tuple[float, list[int]], above: tuple[float, list[int]], gap: float) -> bool:
    return above[0] - below[0] < gap * (len(below[1]) + len(above[1])) / 2


def _around(at: Point, reach: float) -> Box:
    """A point with the room in which a label would seem to be its own."""
    return at[0] - reach, at[1] - reach, at[0] + reach, at[1] + reach


def _lines(label: Label) -> list[Box]:
    """The interval lines as thin boxes."""
    left, bottom, right, top = label.cross
    x, y = label.at
    return [(left, y - 1, right, y + 1), (x - 1, bottom, x + 1, top)]


def _box(at: Point, width: float, side: tuple[int, int], gap: float) -> Box:
    """The box of a label on one side of a point."""
    across, up = side
    left = at[0] + across * gap - width * (1 - across) / 2
    bottom = at[1] + up * gap * 0.6 - LINE * (1 - up) / 2
    return left, bottom, left + width, bottom + LINE


def _cost(box: Box, taken: Sequence[Box], frame: Box) -> float:
    """Area that a label would share with what is there, or have outside the frame (square pixels)."""
    area = (box[2] - box[0]) * (box[3] - box[1])
    return round(sum(_shared(box, other) for other in taken) + 3 * (area - _shared(box, frame)), 3)


def _shared(a: Box, b: Box) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
