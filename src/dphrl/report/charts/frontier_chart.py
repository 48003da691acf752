"""The frontier: average quality against reach, one point an entry."""

from __future__ import annotations

from collections.abc import Sequence

from dphrl.report.charts.axes import Axis, percent_axis
from dphrl.report.charts.looks import looks
from dphrl.report.charts.placing import FONT, Label, place_labels
from dphrl.report.charts.spec import (
    HEIGHT,
    NAME_WIDTH,
    POINT,
    WIDTH,
    Spec,
    layered_chart,
    number_row,
    quantity,
    shaped,
)
from dphrl.report.comparison import Aggregate
from dphrl.report.comparison_view import View
from dphrl.report.labels import dataset_name, visible


def frontier_chart(view: View, dataset: str) -> Spec:
    """mean@n against Pass@k: one point an entry with its 95 % intervals; a sweep's points are joined."""
    k, n, drawn = view.k(dataset), view.n(dataset), looks(view.entries)
    rows = [
        {"entry": entry.name, "name": visible(entry.setting) if look.sweep and entry.setting else entry.name}
        | {"css": look.css, "sweep": look.sweep, **_ends("x", x, "mean_at_n"), **_ends("y", y, f"pass@{k}")}
        for entry, look in drawn.items()
        if (x := view.get(entry, dataset, "mean_at_n")) is not None
        and (y := view.get(entry, dataset, f"pass@{k}")) is not None
    ]
    x_axis = percent_axis([row[f] for row in rows for f in ("x", "x_low", "x_high")], WIDTH)
    y_axis = percent_axis([row[f] for row in rows for f in ("y", "y_low", "y_high")], HEIGHT)
    encoding = {"x": quantity("x", x_axis, f"mean@{n}, %"), "y": quantity("y", y_axis, None)}
    tips = [
        {"field": "entry", "title": "method"},
        {"field": "x_shown", "title": f"mean@{n}, %"},
        {"field": "y_shown", "title": f"Pass@{k}, %"},
    ]
    layers: list[Spec] = [
        {"mark": {"type": "rule", "opacity": 0.45}, "encoding": {"x": {"field": "x_low"}, "x2": {"field": "x_high"}}},
        {"mark": {"type": "rule", "opacity": 0.45}, "encoding": {"y": {"field": "y_low"}, "y2": {"field": "y_high"}}},
        *_joined_sweeps(rows),
        {"mark": POINT | {"size": 90}, "encoding": {**shaped(drawn), "tooltip": tips}},
        _placed_names(rows, x_axis, y_axis),
    ]
    title = f"Pass@{k} against mean@{n}, {dataset_name(dataset)}, %"
    return layered_chart(title, rows, encoding, layers, view.entries)


def _joined_sweeps(rows: Sequence[Spec]) -> list[Spec]:
    """The points of each sweep, joined in the order of its settings."""
    of_sweeps = [row | {"order": i} for i, row in enumerate(rows) if row["sweep"]]
    if not of_sweeps:
        return []
    last_color = {row["sweep"]: row["css"] for row in of_sweeps}
    return [
        {
            "data": {"values": [row | {"css": last_color[row["sweep"]]} for row in of_sweeps]},
            "mark": {"type": "line", "strokeWidth": 1.3, "opacity": 0.6},
            "encoding": {
                "detail": {"field": "sweep"},
                "order": {"field": "order"},
                "color": {"field": "css", "type": "nominal", "scale": None},
            },
        }
    ]


def _placed_names(rows: Sequence[Spec], x: Axis, y: Axis) -> Spec:
    labels = [
        Label(
            (x.at(r["x"]), y.at(r["y"])),
            r["name"],
            (x.at(r["x_low"]), y.at(r["y_low"]), x.at(r["x_high"]), y.at(r["y_high"])),
        )
        for r in rows
    ]
    places = place_labels(labels, (0.0, 0.0, x.pixels, y.pixels), NAME_WIDTH)
    at = [
        {"entry": r["entry"], "name": r["name"], "x": x.value(left), "y": y.value(middle)}
        for r, (left, middle) in zip(rows, places, strict=True)
    ]
    return {
        "data": {"values": at},
        "mark": {"type": "text", "align": "left", "baseline": "middle", "fontSize": FONT, "limit": NAME_WIDTH},
        "encoding": {"text": {"field": "name"}},
    }


def _ends(axis: str, number: Aggregate, metric: str) -> Spec:
    """A number on one axis: where it has no interval, both ends are the number itself."""
    row = number_row(number, metric)
    low, high = row.get("low", row["value"]), row.get("high", row["value"])
    return {axis: row["value"], f"{axis}_low": low, f"{axis}_high": high, f"{axis}_shown": row["shown"]}
