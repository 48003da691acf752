"""Names, colours and markers of methods, and names of metrics: a new one is one table entry."""

from __future__ import annotations

import re
from dataclasses import dataclass

DPH_LABELS: dict[str, str] = {
    "forward_kl": "dph_f",
    "js": "dph_js",
    "alpha": "dph_alpha",
    "reverse_kl": "dph_rkl",
    "jeffreys": "dph_jeffreys",
    "squared_hellinger": "dph_hellinger",
}
"""`objective.divergence` -> label of a dph run; the other methods are their own label."""


@dataclass(frozen=True, slots=True)
class MethodStyle:
    """How a method is written and drawn, everywhere."""

    name: str
    light: str
    """Colour on white, lower-case hex; at least 3:1 against it."""
    dark: str
    """Colour on a dark page."""
    marker: str
    """A name in SHAPES; no two methods share one, so the charts need no colour vision."""


SHAPES: dict[str, str] = {
    "cross": "M-1-.6L-.6-1L0-.4L.6-1L1-.6L.4 0L1 .6L.6 1L0 .4L-.6 1L-1 .6L-.4 0Z",
    "square": "M-.85-.85H.85V.85H-.85Z",
    "up": "M0-1L1 .8H-1Z",
    "diamond": "M0-1.1L1.1 0L0 1.1L-1.1 0Z",
    "down": "M0 1L-1-.8H1Z",
    "circle": "M-.95 0A.95 .95 0 1 1 .95 0A.95 .95 0 1 1-.95 0Z",
    "plus": "M-.35-1H.35V-.35H1V.35H.35V1H-.35V.35H-1V-.35H-.35Z",
    "hexagon": "M-.5-.87H.5L1 0L.5 .87H-.5L-1 0Z",
    "left": "M-1 0L.8-1V1Z",
    "right": "M1 0L-.8 1V-1Z",
    "pentagon": "M0-1L.95-.31L.59 .81H-.59L-.95-.31Z",
    "lozenge": "M0-1.1L.55 0L0 1.1L-.55 0Z",
}
"""Outlines of the markers as SVG paths around the origin, about 1 wide to each side."""

METHODS: dict[str, MethodStyle] = {
    "base": MethodStyle("Base", "#6b7280", "#a3acba", "cross"),
    "grpo": MethodStyle("GRPO", "#d55e00", "#ff8a3d", "square"),
    "dapo": MethodStyle("DAPO", "#b57f00", "#f0b93f", "up"),
    "rkl": MethodStyle("RKL", "#b5479b", "#e68fd0", "diamond"),
    "replay": MethodStyle("Replay", "#8c6239", "#cfa274", "down"),
    "dph_f": MethodStyle("DPH-F", "#0072b2", "#56b4f5", "circle"),
    "dph_js": MethodStyle("DPH-JS", "#00875f", "#38d3a2", "plus"),
    "dph_alpha": MethodStyle("DPH-alpha", "#6a51a3", "#b6a3f0", "hexagon"),
    "dph_rkl": MethodStyle("DPH-RKL", "#882255", "#dd7ba6", "left"),
    "dph_jeffreys": MethodStyle("DPH-Jeffreys", "#5f7a1f", "#b8cf57", "right"),
    "dph_hellinger": MethodStyle("DPH-Hellinger", "#3f7280", "#82c6d6", "pentagon"),
}
"""In the order of every table and legend. Colours follow Okabe and Ito, darkened or lightened to stay readable."""

METRIC_NAMES: dict[str, str] = {
    "greedy": "greedy",
    "mean_at_n": "mean@{n}",
    "pass@{k}": "Pass@{k}",
    "pass@n": "Pass@{n}",
    "keep": "keep",
    "explore": "explore",
    "distinct_correct": "distinct correct",
}
"""Columns of every table, in order: metric -> heading. {n} is the number of draws, {k} the k compared (`View.k`)."""

METRIC_HELP: dict[str, str] = {
    "greedy": "share of prompts solved by the most likely completion, %",
    "mean@n": "share of right completions among n draws, %",
    "Pass@k": "chance that at least one of k draws is right, %",
    "keep": "of the prompts the base solves in n draws, the share the trained model still solves, %",
    "explore": "of the prompts the base does not solve in n draws, the share the trained model solves, %",
    "distinct correct": "different right solutions among the n draws of a prompt (count)",
}

COUNTS = frozenset({"distinct_correct", "style_entropy", "tokens"})
"""Metrics that are no rate: shown as they are, not in %."""

_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


def dph_label(divergence: str) -> str:
    """The label of a run of method dph; a run of another method is labelled with its method."""
    return DPH_LABELS.get(divergence, f"dph_{divergence}")


def method_style(method: str) -> MethodStyle:
    """How to write and draw a method; one without an entry goes by its label, in grey."""
    return METHODS.get(method, MethodStyle(visible(method), "#51565f", "#c0c6d0", "lozenge"))


def display(method: str, setting: str = "") -> str:
    """('dph_f', 'eta=0.2') -> 'DPH-F eta=0.2'."""
    return f"{method_style(method).name} {visible(setting)}".strip()


def visible(text: object) -> str:
    """Text of a user or model with control, bidirectional and invisible characters written out as \\uXXXX.

    They could reorder or hide what stands beside them, in a page and in a terminal.
    """
    return _HIDDEN.sub(lambda match: f"\\u{ord(match[0]):04x}", str(text))


def dataset_name(dataset: str) -> str:
    """A dataset's name as people read it: 'in_domain' -> 'in-domain', 'cross_domain' -> 'cross-domain'."""
    return visible(dataset).replace("_domain", "-domain").replace("_", " ")
