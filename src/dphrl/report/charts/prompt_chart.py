"""Prompt by prompt: the base's solve rate against the trained model's, one spot for the prompts of equal rates."""

from __future__ import annotations

from dphrl.report.charts.spec import INK, MUTED, Spec, chart_title
from dphrl.report.labels import SHAPES, dataset_name
from dphrl.report.page.prompt_spots import PromptSpots

SIDE = 240
"""Of the plot, in pixels."""
MARKS = {
    "lost": ("down", "var(--bad)"),
    "found": ("up", "var(--good)"),
    "narrowed": ("diamond", "var(--bad)"),
    "other": ("circle", MUTED),
}
"""Mark -> shape and colour."""


def prompt_chart(of: PromptSpots) -> Spec:
    """One chart of one method on one task; a click on a spot opens the samples of its prompts (page.js)."""
    rows = [
        {
            "entry": of.entry.name,
            "before": round(100 * spot.before, 1),
            "after": round(100 * spot.after, 1),
            "mark": spot.mark,
            "prompts": spot.prompts,
            "ids": list(spot.ids),
            "task": of.dataset,
        }
        for spot in of.spots
    ]

    def axis(field: str, title: str) -> Spec:
        ticks = {"title": title, "values": [0, 25, 50, 75, 100], "labelFlush": False}
        return {"field": field, "type": "quantitative", "scale": {"domain": [0, 100]}, "axis": ticks}

    names = list(MARKS)
    tips = [("mark", "mark"), ("prompts", "prompts"), ("before", "base, %"), ("after", f"{of.entry.name}, %")]
    points = {
        "mark": {"type": "point", "filled": True, "opacity": 0.8, "clip": False, "cursor": "pointer", "aria": False},
        "encoding": {
            "shape": {
                "field": "mark",
                "type": "nominal",
                "scale": {"domain": names, "range": [SHAPES[MARKS[m][0]] for m in names]},
                "legend": None,
            },
            "color": {
                "field": "mark",
                "type": "nominal",
                "scale": {"domain": names, "range": [MARKS[m][1] for m in names]},
                "legend": None,
            },
            "size": {
                "field": "prompts",
                "type": "quantitative",
                "scale": {"type": "linear", "domain": [1, 40], "range": [30, 400], "clamp": True},
                "legend": None,
            },
            "tooltip": [{"field": field, "title": title} for field, title in tips],
        },
    }
    same = {
        "data": {"values": [{"before": 0, "after": 0}, {"before": 100, "after": 100}]},
        "mark": {"type": "line", "strokeWidth": 1, "strokeDash": [4, 3]},
        "encoding": {"color": {"value": INK}},
    }
    return {
        "title": chart_title(f"{of.entry.name}, {dataset_name(of.dataset)}"),
        "width": SIDE,
        "height": SIDE,
        "data": {"values": rows},
        "encoding": {"x": axis("before", "base solves, % of draws"), "y": axis("after", f"{of.entry.name} solves, %")},
        "layer": [same, points],
    }
