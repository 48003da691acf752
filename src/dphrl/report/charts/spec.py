"""What all charts share: their size, the parts of their Vega-Lite specifications, and several charts in one figure.

Colours are names of the page's CSS variables, so that one chart follows light and dark; files replace them.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from dphrl.report.charts.axes import Axis
from dphrl.report.charts.looks import Look, looks
from dphrl.report.comparison import Aggregate, Entry
from dphrl.report.labels import COUNTS
from dphrl.report.number_text import interval_text, number_text

Spec = dict[str, Any]
"""A Vega-Lite specification, a part of one, or a row of its data."""

WIDTH, HEIGHT = 280, 220
"""Of a plot without its axes, in pixels: with them it fits a phone, where letters then keep their size."""
NAME_WIDTH = 100
"""Longest name in a plot, in pixels; more of it becomes an ellipsis, and the legend has all."""
TITLE_LETTERS, TITLE_LINES = 44, 3
"""Longest line of a chart's title, in letters, and most lines; what is longer ends in an ellipsis (`CONFIG`)."""
BANDS_UP_TO = 8
"""Entries in a chart beyond which bands would hide each other and are left out."""

HOVER = "hover"
"""Name of a layer that only answers to the pointer: pictures do without it."""

INK, MUTED = "var(--ink)", "var(--muted)"

NAMES_AXIS: Spec = {
    "title": None,
    "domain": False,
    "ticks": False,
    "grid": False,
    "labelColor": INK,
    "labelLimit": 110,
}
POINT: Spec = {"type": "point", "filled": True, "size": 46, "opacity": 1}


def side_by_side(specs: Sequence[Spec], entries: Sequence[Entry], *, columns: int = 3) -> Spec:
    """Several charts in one figure with one legend, for files."""
    legend = {"orient": "bottom", "title": None, "symbolOpacity": 1, "columns": 6, "labelFontSize": 12}
    used = {row["entry"] for spec in specs for row in spec["data"]["values"] if "entry" in row}
    drawn = {entry: look for entry, look in looks(entries).items() if entry.name in used}
    parts = [dict(spec) for spec in specs]
    for part in parts:
        if "color" in part["encoding"]:
            part["encoding"] = part["encoding"] | {"color": colored(drawn) | {"legend": legend}}
    return {"concat": parts, "columns": columns, "spacing": 34}


def layered_chart(
    title: str, rows: Sequence[Spec], encoding: Spec, layers: Sequence[Spec], entries: Sequence[Entry]
) -> Spec:
    """A chart of layers over the same rows, coloured by entry."""
    return {
        "title": chart_title(title),
        "width": WIDTH,
        "height": HEIGHT,
        "data": {"values": list(rows)},
        "encoding": {**encoding, "color": colored(looks(entries))},
        "layer": list(layers),
    }


def chart_title(text: str) -> list[str]:
    """A title in lines that are no wider than a chart: a wider one would make the whole chart small."""
    lines = textwrap.wrap(text, TITLE_LETTERS, break_on_hyphens=False)
    return [*lines[: TITLE_LINES - 1], *([" ".join(lines[TITLE_LINES - 1 :])] if len(lines) >= TITLE_LINES else [])]


def colored(drawn: Mapping[Entry, Look]) -> Spec:
    """Entries told apart by colour."""
    return _by_entry(drawn, [look.css for look in drawn.values()])


def shaped(drawn: Mapping[Entry, Look]) -> Spec:
    """Entries told apart by marker."""
    return {"shape": _by_entry(drawn, [look.marker for look in drawn.values()])}


def dashed(drawn: Mapping[Entry, Look]) -> Spec:
    """Entries told apart by line style."""
    return {"strokeDash": _by_entry(drawn, [list(look.line) or [1, 0] for look in drawn.values()])}


def interval_bands(rows: Sequence[Spec], entries: Sequence[Entry]) -> list[Spec]:
    """A layer with the intervals as bands; none where there are too many entries or no interval."""
    if len(entries) > BANDS_UP_TO or not any("low" in row for row in rows):
        return []
    ends = {"y": {"field": "low"}, "y2": {"field": "high"}}
    return [
        {"mark": {"type": "area", "opacity": 0.14}, "transform": [{"filter": "isValid(datum.low)"}], "encoding": ends}
    ]


def number_row(number: Aggregate, metric: str) -> Spec:
    """A number and its interval in the units of the chart, and as text."""
    factor = 1.0 if metric in COUNTS else 100.0
    shown = number_text(number.mean, metric)
    row: Spec = {"value": round(factor * number.mean, 3), "number": shown}
    if number.low is not None and number.high is not None:
        row |= {"low": round(factor * number.low, 3), "high": round(factor * number.high, 3)}
        shown = f"{shown} {interval_text(number.low, number.high, metric)}"
    return row | {"shown": shown}


def tooltips(field: str, title: str, value: str) -> list[Spec]:
    """What the pointer shows of a point."""
    return [
        {"field": "entry", "title": "method"},
        {"field": field, "title": title},
        {"field": "shown", "title": value},
    ]


def quantity(field: str, axis: Axis, title: str | None) -> Spec:
    """A linear axis with ends of its own."""
    return {
        "field": field,
        "type": "quantitative",
        "scale": {"domain": [axis.low, axis.high], "nice": False, "zero": False},
        "axis": {"title": title, "tickCount": 6, "labelFlush": False},
    }


def _by_entry(drawn: Mapping[Entry, Look], values: Sequence[object]) -> Spec:
    scale = {"domain": [entry.name for entry in drawn], "range": list(values)}
    return {"field": "entry", "type": "nominal", "scale": scale, "legend": None}
