"""Bars of one metric, and the matrix of what was forgotten."""

from __future__ import annotations

from dphrl.report.charts.placing import FONT
from dphrl.report.charts.spec import INK, NAMES_AXIS, Spec, layered_chart, number_row
from dphrl.report.comparison_view import View
from dphrl.report.labels import COUNTS, dataset_name

BAR = 24
"""Height of a bar with the room around it, in pixels."""


def bar_chart(view: View, dataset: str, metric: str, title: str) -> Spec | None:
    """One bar an entry with its 95 % interval and number; None where no entry has the metric."""
    numbers = [(entry, view.get(entry, dataset, metric)) for entry in view.entries]
    rows = [{"entry": e.name, **number_row(number, metric)} for e, number in numbers if number is not None]
    if not rows:
        return None
    most = max(row.get("high", row["value"]) for row in rows)
    top = most * 1.02 or 1.0 if metric in COUNTS else 100.0
    for row in rows:
        row["end"] = row.get("high", row["value"])
    encoding = {
        "y": {"field": "entry", "type": "nominal", "sort": [row["entry"] for row in rows], "axis": NAMES_AXIS},
        "x": {
            "field": "value",
            "type": "quantitative",
            "scale": {"domain": [0, top], "nice": False},
            "axis": {"title": None, "tickCount": 5, "labelFlush": False},
        },
        "tooltip": [{"field": "entry", "title": "method"}, {"field": "shown", "title": title}],
    }
    ink = {"color": {"value": INK}}
    layers: list[Spec] = [
        {"mark": {"type": "bar", "opacity": 0.85, "height": {"band": 0.62}}},
        {"mark": {"type": "rule", "color": INK}, "encoding": {"x": {"field": "low"}, "x2": {"field": "high"}, **ink}},
        {
            "mark": {"type": "text", "align": "left", "dx": 5, "fontSize": FONT},
            "encoding": {"x": {"field": "end"}, "text": {"field": "number"}, **ink},
        },
    ]
    chart = layered_chart(f"{title}, {dataset_name(dataset)}", rows, encoding, layers, view.entries)
    return chart | {"width": 200, "height": BAR * len(rows)}


def forgetting_chart(view: View) -> Spec | None:
    """Task x method: what is no longer solved of what the base solved; None where nothing was kept or lost."""
    rows: list[Spec] = [
        {"task": dataset_name(d), "entry": e.name, "value": round(100 * (1 - number.mean), 2)}
        for d in view.datasets
        for e in view.entries
        if (number := view.get(e, d, "keep")) is not None
    ]
    if not rows:
        return None
    fill = {
        "domain": [0, max(20.0, *(row["value"] for row in rows))],
        "range": ["#ffffff", "#f0a27a"],
        "interpolate": "rgb",
    }
    return {
        "title": ["Forgotten, %:", "no longer solved", "of what the base solved"],
        "width": {"step": 74},
        "height": {"step": 34},
        "data": {"values": rows},
        "encoding": {
            "x": {
                "field": "entry",
                "type": "nominal",
                "sort": list(dict.fromkeys(row["entry"] for row in rows)),
                "axis": NAMES_AXIS | {"orient": "top", "labelAngle": 0},
            },
            "y": {"field": "task", "type": "nominal", "sort": None, "axis": NAMES_AXIS},
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
