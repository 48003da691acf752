"""The charts as Vega-Lite specifications: data that a browser draws, and `drawing` turns into SVG and PNG.

Colours are names of the page's CSS variables, so that one chart follows light and dark; files replace them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dphrl.report.charts.axes import Axis, percent_axis, shown_ks
from dphrl.report.charts.curves import PANELS, Curve
from dphrl.report.charts.looks import Look, looks
from dphrl.report.charts.placing import FONT, Label, place, spread
from dphrl.report.labels import COUNTS, dataset_name, plain
from dphrl.report.view import Entry, Stat, View, interval, number

Spec = dict[str, Any]
Row = dict[str, Any]

WIDTH, HEIGHT = 280, 220
"""Of a plot without its axes, in pixels: with them it fits a phone, where letters then keep their size."""
NAME_WIDTH = 100
"""Longest name in a plot, in pixels; more of it becomes an ellipsis, and the legend has all."""
BAR = 24
"""Height of a bar with the room around it, in pixels."""
BANDS_UP_TO = 8
"""Entries in a chart beyond which bands would hide each other and are left out."""
NAMED_UP_TO = 8
"""Entries in a chart of curves beyond which their names at the right end would not fit."""

HOVER = "hover"
"""Name of a layer that only answers to the pointer: pictures do without it."""

INK, MUTED = "var(--ink)", "var(--muted)"


def pass_at_k(view: View, dataset: str) -> Spec:
    """Pass@k of every entry over k, with 95 % bands and names at the right end."""
    rows = [
        {"entry": entry.name, "k": k, **_stat_row(stat, f"pass@{k}")}
        for entry in view.entries
        for k in view.ks(entry, dataset)
        if (stat := view.get(entry, dataset, f"pass@{k}")) is not None
    ]
    for row in rows:
        if row["value"] in (0.0, 100.0):  # an exact interval stands here, a resampled one beside it: no band for both
            row.pop("low", None)
            row.pop("high", None)
    y = percent_axis([v for row in rows for v in (row["value"], row.get("low"), row.get("high"))], HEIGHT)
    ks = sorted({row["k"] for row in rows}) or [1]
    encoding = {
        "x": {
            "field": "k",
            "type": "quantitative",
            "scale": {"type": "log", "base": 2, "domain": [ks[0], max(ks[-1], ks[0] + 1)], "nice": False},
            "axis": {"title": "k, completions drawn", "values": shown_ks(ks), "grid": False, "labelFlush": False},
        },
        "y": _quantity("value", y, None),
    }
    layers = [
        *_bands(rows, view.entries),
        {"mark": {"type": "line", "strokeWidth": 2}, "encoding": _dashed(looks(view.entries))},
        {"mark": _POINT, "encoding": {**_shaped(looks(view.entries)), "tooltip": _tips("k", "k", "Pass@k, %")}},
    ]
    last = [max((r for r in rows if r["entry"] == e.name), key=lambda r: r["k"], default=None) for e in view.entries]
    if len(view.entries) <= NAMED_UP_TO:
        layers.append(_names_at_the_end([row for row in last if row is not None], y, "k"))
    return _chart(f"Pass@k, {dataset_name(dataset)}, %", rows, encoding, layers, view.entries)


def frontier(view: View, dataset: str) -> Spec:
    """mean@n against Pass@k: one point an entry with its 95 % intervals; a sweep's points are joined."""
    k, n, drawn = view.k(dataset), view.n(dataset), looks(view.entries)
    rows = [
        {"entry": entry.name, "name": plain(entry.setting) if look.sweep and entry.setting else entry.name}
        | {"css": look.css, "sweep": look.sweep, **_ends("x", x, "mean_at_n"), **_ends("y", y, f"pass@{k}")}
        for entry, look in drawn.items()
        if (x := view.get(entry, dataset, "mean_at_n")) is not None
        and (y := view.get(entry, dataset, f"pass@{k}")) is not None
    ]
    x_axis = percent_axis([row[f] for row in rows for f in ("x", "x_low", "x_high")], WIDTH)
    y_axis = percent_axis([row[f] for row in rows for f in ("y", "y_low", "y_high")], HEIGHT)
    encoding = {"x": _quantity("x", x_axis, f"mean@{n}, %"), "y": _quantity("y", y_axis, None)}
    tips = [
        {"field": "entry", "title": "method"},
        {"field": "x_shown", "title": f"mean@{n}, %"},
        {"field": "y_shown", "title": f"Pass@{k}, %"},
    ]
    layers: list[Spec] = [
        {"mark": {"type": "rule", "opacity": 0.45}, "encoding": {"x": {"field": "x_low"}, "x2": {"field": "x_high"}}},
        {"mark": {"type": "rule", "opacity": 0.45}, "encoding": {"y": {"field": "y_low"}, "y2": {"field": "y_high"}}},
        *_joined(rows),
        {"mark": _POINT | {"size": 90}, "encoding": {**_shaped(drawn), "tooltip": tips}},
        _placed_names(rows, x_axis, y_axis),
    ]
    return _chart(f"Pass@{k} against mean@{n}, {dataset_name(dataset)}, %", rows, encoding, layers, view.entries)


def bars(view: View, dataset: str, metric: str, title: str) -> Spec | None:
    """One bar an entry with its 95 % interval and number; None where no entry has the metric."""
    stats = [(entry, view.get(entry, dataset, metric)) for entry in view.entries]
    rows = [{"entry": e.name, **_stat_row(s, metric)} for e, s in stats if s is not None]
    if not rows:
        return None
    most = max(row.get("high", row["value"]) for row in rows)
    top = most * 1.02 or 1.0 if metric in COUNTS else 100.0
    for row in rows:
        row["end"] = row.get("high", row["value"])
    encoding = {
        "y": {
            "field": "entry",
            "type": "nominal",
            "sort": [row["entry"] for row in rows],
            "axis": {
                "title": None,
                "domain": False,
                "ticks": False,
                "grid": False,
                "labelColor": INK,
                "labelLimit": 110,
            },
        },
        "x": {
            "field": "value",
            "type": "quantitative",
            "scale": {"domain": [0, top], "nice": False},
            "axis": {"title": None, "tickCount": 5, "labelFlush": False},
        },
        "tooltip": [{"field": "entry", "title": "method"}, {"field": "shown", "title": title}],
    }
    layers: list[Spec] = [
        {"mark": {"type": "bar", "opacity": 0.85, "height": {"band": 0.62}}},
        {"mark": {"type": "rule", "color": INK}, "encoding": {"x": {"field": "low"}, "x2": {"field": "high"}}},
        {
            "mark": {"type": "text", "align": "left", "dx": 5, "fontSize": FONT},
            "encoding": {"x": {"field": "end"}, "text": {"field": "number"}, "color": {"value": INK}},
        },
    ]
    layers[1]["encoding"] |= {"color": {"value": INK}}
    made = _chart(f"{title}, {dataset_name(dataset)}", rows, encoding, layers, view.entries)
    return made | {"width": 200, "height": BAR * len(rows)}


def forgetting(view: View) -> Spec | None:
    """Task x method: what is no longer solved of what the base solved; None where nothing was kept or lost."""
    rows: list[Row] = [
        {"task": dataset_name(d), "entry": e.name, "value": round(100 * (1 - stat.mean), 2)}
        for d in view.datasets
        for e in view.entries
        if (stat := view.get(e, d, "keep")) is not None
    ]
    if not rows:
        return None
    fill = {
        "domain": [0, max(20.0, *(row["value"] for row in rows))],
        "range": ["#ffffff", "#f0a27a"],
        "interpolate": "rgb",
    }
    order = list(dict.fromkeys(row["entry"] for row in rows))
    return {
        "title": "Forgotten: no longer solved of what the base solved, %",
        "width": {"step": 74},
        "height": {"step": 34},
        "data": {"values": rows},
        "encoding": {
            "x": {
                "field": "entry",
                "type": "nominal",
                "sort": order,
                "axis": _NAMES | {"orient": "top", "labelAngle": 0},
            },
            "y": {"field": "task", "type": "nominal", "sort": None, "axis": _NAMES},
        },
        "layer": [
            {
                "mark": {"type": "rect", "stroke": "var(--page)", "strokeWidth": 2},
                "encoding": {"color": {"field": "value", "type": "quantitative", "scale": fill, "legend": None}},
            },
            {
                "mark": {"type": "text", "fontSize": 12, "color": "#20242c"},
                "encoding": {"text": {"field": "value", "type": "quantitative", "format": ".1f"}},
            },
        ],
    }


def training(mine: Mapping[Entry, Curve], panel: str, drawn: Mapping[Entry, Look]) -> Spec:
    """One training metric over optimiser steps: mean over seeds, band from the lowest to the highest seed."""
    rows: list[Row] = [
        {"entry": entry.name, "step": float(step), "value": _short(mean)}
        | ({"low": _short(low), "high": _short(high)} if curve.seeds > 1 else {})
        for entry, curve in mine.items()
        for step, mean, low, high in zip(curve.steps, curve.mean, curve.low, curve.high, strict=True)
    ]
    for row in rows:
        row["shown"] = f"{row['value']:.4g}" + (f" [{row['low']:.4g}, {row['high']:.4g}]" if "low" in row else "")
    steps = [row["step"] for row in rows]
    encoding = {
        "x": {
            "field": "step",
            "type": "quantitative",
            "scale": {"domain": [min(steps), max(max(steps), min(steps) + 1)], "nice": False},
            "axis": {"title": "optimiser step", "tickCount": 6, "grid": False, "labelFlush": False},
        },
        "y": {
            "field": "value",
            "type": "quantitative",
            "scale": {"zero": False},
            "axis": {"title": None, "tickCount": 6},
        },
    }
    shown = {entry: look for entry, look in drawn.items() if entry in mine}
    layers = [
        *_bands(rows, list(shown)),
        {"mark": {"type": "line", "strokeWidth": 1.8}, "encoding": _dashed(drawn)},
        {
            "name": HOVER,
            "mark": {"type": "point", "opacity": 0, "size": 60},
            "encoding": {"tooltip": _tips("step", "step", PANELS[panel].title)},
        },
    ]
    return _chart(PANELS[panel].title, rows, encoding, layers, list(drawn)) | {"height": 180}


def beside(specs: Sequence[Spec], entries: Sequence[Entry], *, columns: int = 3) -> Spec:
    """Several charts in one figure with one legend, for files."""
    legend = {"orient": "bottom", "title": None, "symbolOpacity": 1, "columns": 6, "labelFontSize": 12}
    used = {row["entry"] for spec in specs for row in spec["data"]["values"] if "entry" in row}
    drawn = {entry: look for entry, look in looks(entries).items() if entry.name in used}
    parts = [dict(spec) for spec in specs]
    for part in parts:
        if "color" in part["encoding"]:
            part["encoding"] = part["encoding"] | {"color": _colored(drawn) | {"legend": legend}}
    return {"concat": parts, "columns": columns, "spacing": 34}


_NAMES: Spec = {
    "title": None,
    "domain": False,
    "ticks": False,
    "grid": False,
    "labelColor": INK,
    "labelLimit": 110,
}
"""An axis of names."""

_POINT: Spec = {"type": "point", "filled": True, "size": 46, "opacity": 1}


def _chart(title: str, rows: Sequence[Row], encoding: Spec, layers: Sequence[Spec], entries: Sequence[Entry]) -> Spec:
    return {
        "title": title,
        "width": WIDTH,
        "height": HEIGHT,
        "data": {"values": list(rows)},
        "encoding": {**encoding, "color": _colored(looks(entries))},
        "layer": list(layers),
    }


def _colored(drawn: Mapping[Entry, Look]) -> Spec:
    scale = {"domain": [e.name for e in drawn], "range": [look.css for look in drawn.values()]}
    return {"field": "entry", "type": "nominal", "scale": scale, "legend": None}


def _shaped(drawn: Mapping[Entry, Look]) -> Spec:
    scale = {"domain": [e.name for e in drawn], "range": [look.marker for look in drawn.values()]}
    return {"shape": {"field": "entry", "type": "nominal", "scale": scale, "legend": None}}


def _dashed(drawn: Mapping[Entry, Look]) -> Spec:
    scale = {"domain": [e.name for e in drawn], "range": [list(look.line) or [1, 0] for look in drawn.values()]}
    return {"strokeDash": {"field": "entry", "type": "nominal", "scale": scale, "legend": None}}


def _bands(rows: Sequence[Row], entries: Sequence[Entry]) -> list[Spec]:
    if len(entries) > BANDS_UP_TO or not any("low" in row for row in rows):
        return []
    ends = {"y": {"field": "low"}, "y2": {"field": "high"}}
    return [
        {"mark": {"type": "area", "opacity": 0.14}, "transform": [{"filter": "isValid(datum.low)"}], "encoding": ends}
    ]


def _joined(rows: Sequence[Row]) -> list[Spec]:
    """The points of each sweep, joined in the order of its settings."""
    joined = [row | {"order": i} for i, row in enumerate(rows) if row["sweep"]]
    if not joined:
        return []
    last = {row["sweep"]: row["css"] for row in joined}
    return [
        {
            "data": {"values": [row | {"css": last[row["sweep"]]} for row in joined]},
            "mark": {"type": "line", "strokeWidth": 1.3, "opacity": 0.6},
            "encoding": {
                "detail": {"field": "sweep"},
                "order": {"field": "order"},
                "color": {"field": "css", "type": "nominal", "scale": None},
            },
        }
    ]


def _names_at_the_end(last: Sequence[Row], y: Axis, x: str) -> Spec:
    """Names beside the last points, moved apart where they would cover each other."""
    heights = spread([y.at(row["value"]) for row in last], y.pixels)
    rows = [{"entry": r["entry"], x: r[x], "value": y.value(h)} for r, h in zip(last, heights, strict=True)]
    return {
        "data": {"values": rows},
        "mark": {"type": "text", "align": "left", "dx": 9, "fontSize": FONT, "limit": NAME_WIDTH},
        "encoding": {"text": {"field": "entry"}},
    }


def _placed_names(rows: Sequence[Row], x: Axis, y: Axis) -> Spec:
    labels = [
        Label(
            (x.at(r["x"]), y.at(r["y"])),
            r["name"],
            (x.at(r["x_low"]), y.at(r["y_low"]), x.at(r["x_high"]), y.at(r["y_high"])),
        )
        for r in rows
    ]
    places = place(labels, (0.0, 0.0, x.pixels, y.pixels), NAME_WIDTH)
    at = [
        {"entry": r["entry"], "name": r["name"], "x": x.value(left), "y": y.value(middle)}
        for r, (left, middle) in zip(rows, places, strict=True)
    ]
    return {
        "data": {"values": at},
        "mark": {"type": "text", "align": "left", "baseline": "middle", "fontSize": FONT, "limit": NAME_WIDTH},
        "encoding": {"text": {"field": "name"}},
    }


def _stat_row(stat: Stat, metric: str) -> Row:
    """A number and its interval in the units of the chart, and as text."""
    factor = 1.0 if metric in COUNTS else 100.0
    shown = number(stat.mean, metric)
    row: Row = {"value": round(factor * stat.mean, 3), "number": shown}
    if stat.low is not None and stat.high is not None:
        row |= {"low": round(factor * stat.low, 3), "high": round(factor * stat.high, 3)}
        shown = f"{shown} {interval(stat.low, stat.high, metric)}"
    return row | {"shown": shown}


def _ends(axis: str, stat: Stat, metric: str) -> Row:
    """The same for one axis of the frontier: a point without an interval has both ends in itself."""
    row = _stat_row(stat, metric)
    low, high = row.get("low", row["value"]), row.get("high", row["value"])
    return {axis: row["value"], f"{axis}_low": low, f"{axis}_high": high, f"{axis}_shown": row["shown"]}


def _tips(field: str, title: str, value: str) -> list[Spec]:
    return [
        {"field": "entry", "title": "method"},
        {"field": field, "title": title},
        {"field": "shown", "title": value},
    ]


def _quantity(field: str, axis: Axis, title: str | None) -> Spec:
    return {
        "field": field,
        "type": "quantitative",
        "scale": {"domain": [axis.low, axis.high], "nice": False, "zero": False},
        "axis": {"title": title, "tickCount": 6, "labelFlush": False},
    }


def _short(value: float) -> float:
    return float(f"{value:.5g}")
