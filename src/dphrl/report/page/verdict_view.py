"""The first screen of the page: the verdict's sentence, and its table with a small forest plot in each cell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dphrl.metrics.verdict import Change, Verdict
from dphrl.report.charts.axes import Axis
from dphrl.report.charts.looks import Look
from dphrl.report.comparison import Entry
from dphrl.report.comparison_view import View
from dphrl.report.labels import SHAPES
from dphrl.report.number_text import number_text
from dphrl.report.verdict_lines import VerdictGroup, entry_of, verdict_groups, verdict_sentence
from dphrl.report.verdict_table import change_text, nothing_to_compare

if TYPE_CHECKING:
    from markupsafe import Markup

WIDTH, EDGE = 128, 7
"""Of a forest plot, and of the room that its markers need at each side, in pixels."""
LEAST = 0.05
"""Shortest axis to each side of its line, so that hundredths are not magnified."""
STEPS = (0.02, 0.05, 0.1, 0.2, 0.25, 0.5)
"""Between two ticks of an axis."""
TICKS = 4
"""Most ticks beside that of its line."""

COLUMNS: dict[str, tuple[Callable[[Verdict], Change | None], float]] = {
    "mean": (lambda line: line.mean, 0.0),
    "passed": (lambda line: line.passed, 0.0),
    "distinct": (lambda line: line.distinct, 0.0),
    "kept": (lambda line: line.kept, 1.0),
}
"""Number of a line -> where it is found, and where the line of its plot stands: nothing changed."""
HEADINGS = {"distinct": "different solutions, %", "kept": "kept of what the base solved, %"}
SHAPE = {-1: "down", 0: "circle", 1: "up", None: "circle"}
"""Side of the line on which the whole interval lies -> marker: no colour is needed to read it."""


@dataclass(frozen=True, slots=True)
class ForestCell:
    """One number with its interval, drawn in pixels from the left of its plot."""

    label: str
    """What it is, for narrow pages."""
    text: str
    bounds: str
    more: str
    """'13.7 to 3.3' of different solutions; else ''."""
    side: str
    """'down', 'up' or 'circle', see SHAPE; '' where there is no number."""
    marker: str
    """Its path, see `labels.SHAPES`."""
    zero: float
    at: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class VerdictLine:
    """One method on one task."""

    name: str
    sign: Markup
    """Its sign in legends."""
    reach: str
    accuracy: str
    cells: tuple[ForestCell, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VerdictView:
    """The content of the first screen."""

    said: str
    headings: tuple[str, ...]
    ticks: tuple[tuple[tuple[float, str], ...], ...]
    """Of each column: pixels from the left, and text."""
    groups: tuple[tuple[str, str, tuple[VerdictLine, ...]], ...]
    """Title, facts and lines."""


def verdict_view(view: View, looks: Mapping[Entry, Look], sign: Callable[[Look], Markup]) -> VerdictView:
    """The first screen; without a base a sentence that says so."""
    groups = verdict_groups(view)
    if not groups:
        return VerdictView(nothing_to_compare(view), (), (), ())
    lines = [line for group in groups for line in group.lines]
    axes = {name: _axis([of(line) for line in lines], zero) for name, (of, zero) in COLUMNS.items()}
    first = groups[0]
    headings = {"mean": f"{first.mean}, points", "passed": f"{first.passed}, points"} | HEADINGS
    return VerdictView(
        said=verdict_sentence(groups),
        headings=tuple(headings.values()),
        ticks=tuple(_ticks(axes[name], zero, signed=name != "kept") for name, (_, zero) in COLUMNS.items()),
        groups=tuple(
            (group.title, _facts(group), tuple(_line(line, group, axes, looks, sign) for line in group.lines))
            for group in groups
        ),
    )


def _facts(group: VerdictGroup) -> str:
    return f"{group.prompts:,} prompts, {group.mean}, {group.passed}"


def _line(
    line: Verdict,
    group: VerdictGroup,
    axes: Mapping[str, Axis],
    looks: Mapping[Entry, Look],
    sign: Callable[[Look], Markup],
) -> VerdictLine:
    labels = {"mean": group.mean, "passed": group.passed, "distinct": "different", "kept": "kept, %"}
    cells = []
    for name, (of, zero) in COLUMNS.items():
        more = ""
        if name == "distinct" and line.distinct_before is not None and line.distinct_after is not None:
            before, after = (number_text(x, "distinct_correct") for x in (line.distinct_before, line.distinct_after))
            more = f"{before} to {after}" if before != after else ""
        cells.append(_cell(of(line), zero, axes[name], labels[name], more))
    entry = entry_of(line)
    return VerdictLine(entry.name, sign(looks[entry]), line.reach, line.accuracy, tuple(cells), line.warnings)


def _cell(change: Change | None, zero: float, axis: Axis, label: str, more: str) -> ForestCell:
    line = round(EDGE + axis.at(zero), 1)
    if change is None:
        return ForestCell(label, "–", "", more, "", "", line, line, line, line)
    level = zero != 0.0  # kept is no change: its marker says nothing of a side
    side = "circle" if level else SHAPE[change.sign]
    value, _, bounds = change_text(change, signed=not level).partition(" ")
    at, low, high = (
        round(EDGE + axis.at(change.value if x is None else x), 1) for x in (change.value, change.low, change.high)
    )
    return ForestCell(label, value, bounds, more, side, SHAPES[side], line, at, low, high)


def _axis(changes: Sequence[Change | None], zero: float) -> Axis:
    """Over all lines of a column, so that they can be compared; the line of no change is on it."""
    ends = [x for c in changes if c is not None for x in (c.value, c.low, c.high) if x is not None]
    low, high = min([zero - LEAST, *ends]), max([zero + (LEAST if zero == 0.0 else 0.0), *ends])
    return Axis(low, high, WIDTH - 2 * EDGE)


def _ticks(axis: Axis, zero: float, *, signed: bool) -> tuple[tuple[float, str], ...]:
    span = axis.high - axis.low
    step = next((s for s in STEPS if span / s <= TICKS), STEPS[-1])
    places = [zero + i * step for i in range(-50, 51)]
    shown = [x for x in places if axis.low - 1e-9 <= x <= axis.high + 1e-9]
    return tuple(
        (
            round(EDGE + axis.at(x), 1),
            f"{100 * x:+.0f}" if signed and abs(x) > 1e-9 else f"{100 * x:.0f}".replace("-0", "0"),
        )
        for x in shown
    )
