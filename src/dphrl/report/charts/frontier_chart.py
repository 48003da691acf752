"""The frontier: average quality against reach, one point an entry."""

from __future__ import annotations

from collections.abc import Sequence

from dphrl.report.charts.axes import Axis, percent_axis
from dphrl.report.charts.looks import looks
from dphrl.report.charts.placing import FONT, Label, Point, place_labels
from dphrl.report.charts.spec import (
    HEIGHT,
    MUTED,
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

LIMIT = "limit"
"""What stands at the line of what can be reached."""


def frontier_chart(view: View, dataset: str) -> Spec:
    """mean@n against Pass@k: one point an entry with its 95 % intervals; a sweep's points are joined, and what can be
    reached is a line, where the task knows it."""
    k, n, drawn = view.k(dataset), view.n(dataset), looks(view.entries)
    rows = [
        {"entry": entry.name, "name": visible(entry.setting) if look.sweep and entry.setting else entry.name}
        | {"css": look.css, "sweep": look.sweep, **_ends("x", x, "mean_at_n"), **_ends("y", y, f"pass@{k}")}
        for entry, look in drawn.items()
        if (x := view.get(entry, dataset, "mean_at_n")) is not None
        and (y := view.get(entry, dataset, f"pass@{k}")) is not None
    ]
    limit = view.frontier_limit(dataset)
    border = [(100 * mean, 100 * passed) for mean, passed in limit.points] if limit is not None else []
    x_axis = percent_axis([*(row[f] for row in rows for f in ("x", "x_low", "x_high")), *(x for x, _ in border)], WIDTH)
    y_axis = percent_axis(
        [*(row[f] for row in rows for f in ("y", "y_low", "y_high")), *(y for _, y in border)], HEIGHT
    )
    encoding = {"x": quantity("x", x_axis, f"mean@{n}, %"), "y": quantity("y", y_axis, None)}
    tips = [
        {"field": "entry", "title": "method"},
        {"field": "x_shown", "title": f"mean@{n}, %"},
        {"field": "y_shown", "title": f"Pass@{k}, %"},
    ]
    layers: list[Spec] = [
        *_border_line(border),
        {"mark": {"type": "rule", "opacity": 0.45}, "encoding": {"x": {"field": "x_low"}, "x2": {"field": "x_high"}}},
        {"mark": {"type": "rule", "opacity": 0.45}, "encoding": {"y": {"field": "y_low"}, "y2": {"field": "y_high"}}},
        *_joined_sweeps(rows),
        {"mark": POINT | {"size": 90}, "encoding": {**shaped(drawn), "tooltip": tips}},
        *_placed_names(rows, border, x_axis, y_axis),
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


def _border_line(border: Sequence[Point]) -> list[Spec]:
    """The limit, behind everything else."""
    if not border:
        return []
    return [
        {
            "data": {"values": [{"x": x, "y": y, "order": i} for i, (x, y) in enumerate(border)]},
            "mark": {"type": "line", "strokeWidth": 1.5, "strokeDash": [5, 3]},
            "encoding": {"order": {"field": "order"}, "color": {"value": MUTED}},
        }
    ]


def _placed_names(rows: Sequence[Spec], border: Sequence[Point], x: Axis, y: Axis) -> list[Spec]:
    """Every name beside its point, and that of the limit beside the middle of its line."""
    line = [(x.at(mean), y.at(passed)) for mean, passed in border]
    labels = [
        Label(
            (x.at(r["x"]), y.at(r["y"])),
            r["name"],
            (x.at(r["x_low"]), y.at(r["y_low"]), x.at(r["x_high"]), y.at(r["y_high"])),
        )
        for r in rows
    ]
    labels += [Label(at, LIMIT, (*at, *at)) for at in line[len(line) // 2 :][:1]]
    places = place_labels(labels, (0.0, 0.0, x.pixels, y.pixels), NAME_WIDTH, line=line)
    at = [{"x": x.value(left), "y": y.value(middle)} for left, middle in places]
    names = [{"entry": r["entry"], "name": r["name"], **place} for r, place in zip(rows, at, strict=False)]
    return [
        _texts(names, {}),
        *(_texts([{"name": LIMIT, **place}], {"color": {"value": MUTED}}) for place in at[len(rows) :]),
    ]


def _texts(names: Sequence[Spec], encoding: Spec) -> Spec:
    return {
        "data": {"values": list(names)},
        "mark": {"type": "text", "align": "left", "baseline": "middle", "fontSize": FONT, "limit": NAME_WIDTH},
        "encoding": {"text": {"field": "name"}, **encoding},
    }


def _ends(axis: str, number: Aggregate, metric: str) -> Spec:
    """A number on one axis: where it has no interval, both ends are the number itself."""
    row = number_row(number, metric)
    low, high = row.get("low", row["value"]), row.get("high", row["value"])
    return {axis: row["value"], f"{axis}_low": low, f"{axis}_high": high, f"{axis}_shown": row["shown"]}
