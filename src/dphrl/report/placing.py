"""Labels of points in a chart, each where it covers least."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

Point = tuple[float, float]
Box = tuple[float, float, float, float]
"""left, bottom, right, top in pixels."""

SIDES = ((1, 1), (-1, 1), (1, -1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1))
"""Where a label may stand from its point (right, up), best first: diagonally it covers no interval line."""

GAPS = (4.5, 9.0, 15.0, 22.0)
"""Distance of a label from its point, in points."""


@dataclass(frozen=True, slots=True)
class Label:
    """A text that belongs to a point of a chart."""

    at: Point
    text: str
    color: str
    cross: tuple[float, ...]
    """The point's interval lines: left, right, bottom, top."""


def place(axes: Axes, labels: Sequence[Label]) -> None:
    """Write each label near its point, where it covers the least of points, lines and other labels."""
    figure: Any = axes.figure
    figure.canvas.draw()  # fixes the layout: positions below are in pixels
    scale = figure.dpi / 72
    dots = {label: _pixels(axes, label.at) for label in labels}
    taken = [box for label in labels for box in _lines(axes, label, scale)]
    window = axes.get_window_extent()
    for label in sorted(labels, key=lambda each: -dots[each][1]):
        x, y = dots[label]
        made = axes.annotate(label.text, label.at, xytext=(0, 0), textcoords="offset points", va="bottom", zorder=4)
        made.set(color=label.color, fontsize=9 if len(labels) > 8 else 9.5)
        size = made.get_window_extent()
        options = [_box(x, y, size.width, size.height, side, gap * scale) for gap in GAPS for side in SIDES]
        frame = (window.x0, window.y0, window.x1, window.y1)
        others = [_around(dots[other], 9 * scale) for other in labels if other is not label]
        costs = [_cost(box, [*taken, *others], frame) + 20 * scale * (i // len(SIDES)) for i, box in enumerate(options)]
        box = options[costs.index(min(costs))]
        taken.append(box)
        made.set_position(((box[0] - x) / scale, (box[1] - y) / scale))


def _pixels(axes: Axes, at: Point) -> Point:
    x, y = axes.transData.transform(at)
    return float(x), float(y)


def _around(at: Point, reach: float) -> Box:
    """A point with the room in which a label would seem to be its own."""
    return at[0] - reach, at[1] - reach, at[0] + reach, at[1] + reach


def _lines(axes: Axes, label: Label, scale: float) -> list[Box]:
    """The interval lines as thin boxes."""
    left, right, bottom, top = label.cross
    x0, y0 = _pixels(axes, (left, bottom))
    x1, y1 = _pixels(axes, (right, top))
    x, y = _pixels(axes, label.at)
    return [(x0, y - scale, x1, y + scale), (x - scale, y0, x + scale, y1)]


def _box(x: float, y: float, width: float, height: float, side: tuple[int, int], gap: float) -> Box:
    """The box of a label on one side of a point."""
    across, up = side
    left = x + across * gap - width * (1 - across) / 2
    bottom = y + up * gap * 0.6 - height * (1 - up) / 2
    return left, bottom, left + width, bottom + height


def _cost(box: Box, taken: Sequence[Box], frame: Box) -> float:
    """Area that a label would share with what is there, or have outside the frame (square pixels)."""
    area = (box[2] - box[0]) * (box[3] - box[1])
    return round(sum(_shared(box, other) for other in taken) + 3 * (area - _shared(box, frame)), 3)


def _shared(a: Box, b: Box) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
