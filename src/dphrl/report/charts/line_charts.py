"""Charts of lines: Pass@k over k, and training metrics over optimiser steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dphrl.report.charts.axes import Axis, percent_axis, shown_ks
from dphrl.report.charts.curves import PANELS, Curve
from dphrl.report.charts.looks import Look, looks
from dphrl.report.charts.placing import FONT, moved_apart
from dphrl.report.charts.spec import (
    HEIGHT,
    HOVER,
    NAME_WIDTH,
    POINT,
    Spec,
    dashed,
    interval_bands,
    layered_chart,
    number_row,
    quantity,
    shaped,
    tooltips,
)
from dphrl.report.comparison import Entry
from dphrl.report.comparison_view import View
from dphrl.report.labels import dataset_name

NAMED_UP_TO = 8
"""Entries in a chart of curves beyond which their names at the right end would not fit."""


def pass_at_k_chart(view: View, dataset: str) -> Spec:
    """Pass@k of every entry over k, with 95 % bands and names at the right end."""
    rows = [
        {"entry": entry.name, "k": k, **number_row(number, f"pass@{k}")}
        for entry in view.entries
        for k in view.ks(entry, dataset)
        if (number := view.get(entry, dataset, f"pass@{k}")) is not None
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
        "y": quantity("value", y, None),
    }
    drawn = looks(view.entries)
    layers = [
        *interval_bands(rows, view.entries),
        {"mark": {"type": "line", "strokeWidth": 2}, "encoding": dashed(drawn)},
        {"mark": POINT, "encoding": {**shaped(drawn), "tooltip": tooltips("k", "k", "Pass@k, %")}},
    ]
    last = [max((r for r in rows if r["entry"] == e.name), key=lambda r: r["k"], default=None) for e in view.entries]
    if len(view.entries) <= NAMED_UP_TO:
        layers.append(_names_at_the_end([row for row in last if row is not None], y, "k"))
    return layered_chart(f"Pass@k, {dataset_name(dataset)}, %", rows, encoding, layers, view.entries)


def training_chart(curves: Mapping[Entry, Curve], panel: str, drawn: Mapping[Entry, Look]) -> Spec:
    """One training metric over optimiser steps: mean over seeds, band from the lowest to the highest seed."""
    rows: list[Spec] = [
        {"entry": entry.name, "step": float(step), "value": _short(mean)}
        | ({"low": _short(low), "high": _short(high)} if curve.seeds > 1 else {})
        for entry, curve in curves.items()
        for step, mean, low, high in zip(curve.steps, curve.mean, curve.low, curve.high, strict=True)
    ]
    for row in rows:
        row["shown"] = f"{row['value']:.4g}" + (f" [{row['low']:.4g}, {row['high']:.4g}]" if "low" in row else "")
    steps = [row["step"] for row in rows]
    bounds = [row[end] for row in rows for end in ("low", "value", "high") if end in row]
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
            "scale": _scale(bounds),
            "axis": {"title": None, "tickCount": 6},
        },
    }
    layers = [
        *interval_bands(rows, [entry for entry in drawn if entry in curves]),
        {"mark": {"type": "line", "strokeWidth": 1.8}, "encoding": dashed(drawn)},
        {
            "name": HOVER,
            "mark": {"type": "point", "opacity": 0, "size": 60},
            "encoding": {"tooltip": tooltips("step", "step", PANELS[panel].title)},
        },
    ]
    return layered_chart(PANELS[panel].title, rows, encoding, layers, list(drawn)) | {"height": 180}


def _scale(values: Sequence[float]) -> Spec:
    """Of the values alone; where all are one, from 0: an axis without a length has one tick with a wrong label."""
    low, high = min(values), max(values)
    return {"zero": False} if low < high else {"domain": [min(low, 0.0), max(high, 0.0) or float(low == 0)]}


def _names_at_the_end(last: Sequence[Spec], y: Axis, x: str) -> Spec:
    """Names beside the last points, moved apart where they would cover each other."""
    heights = moved_apart([y.at(row["value"]) for row in last], y.pixels)
    rows = [{"entry": r["entry"], x: r[x], "value": y.value(h)} for r, h in zip(last, heights, strict=True)]
    return {
        "data": {"values": rows},
        "mark": {"type": "text", "align": "left", "dx": 9, "fontSize": FONT, "limit": NAME_WIDTH},
        "encoding": {"text": {"field": "entry"}},
    }


def _short(value: float) -> float:
    return float(f"{value:.5g}")
