"""Training curves: lines of metrics.jsonl of several seeds -> one smoothed curve with the range of the seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from dphrl.report.comparison import Entry
from dphrl.types import MetricsRow

WINDOW = 5
"""Log lines of the moving average: single steps of a few prompts are mostly noise."""

POINTS = 150
"""Most points of a drawn curve, evenly over its steps: a chart has no room for more."""


Log = Sequence[MetricsRow]
"""Lines of one run's metrics.jsonl."""
Training = Mapping[Entry, Sequence[Log]]
"""Entry -> the log of each of its seeds."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One training chart."""

    key: str
    """In metrics.jsonl."""
    title: str
    smoothed: bool = True
    """Whether neighbouring log lines are averaged; not where they are few and far apart."""


PANELS: dict[str, Panel] = {
    "reward": Panel("reward", "Reward, mean of a step"),
    "entropy": Panel("entropy", "Entropy of the policy, nats a token"),
    "course_mean": Panel("course/mean_at_n", "mean@n on a few prompts, %", smoothed=False),
    "course_pass": Panel("course/pass_at_k", "Pass@k on a few prompts, %", smoothed=False),
    "course_distinct": Panel("course/distinct", "Different right solutions on a few prompts", smoothed=False),
    "anchor": Panel("anchor/forward_kl", "Forward-KL on anchors, nats a token"),
    "eta": Panel("anchor/eta", "eta, weight of the anchor penalty"),
}


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """A metric over optimiser steps; low and high are the extreme seeds."""

    steps: Float[np.ndarray, " steps"]
    mean: Float[np.ndarray, " steps"]
    low: Float[np.ndarray, " steps"]
    high: Float[np.ndarray, " steps"]
    seeds: int


def curves(training: Training) -> dict[str, dict[Entry, Curve]]:
    """Panel -> entry -> curve; panels and entries without a finite value are left out."""
    by_panel: dict[str, dict[Entry, Curve]] = {}
    for name, panel in PANELS.items():
        for entry, logs in training.items():
            curve = _curve(logs, panel)
            if curve is not None:
                by_panel.setdefault(name, {})[entry] = curve
    return by_panel


def _curve(logs: Sequence[Log], panel: Panel) -> Curve | None:
    """The seeds on the steps that all of them logged, smoothed where the panel says so."""
    by_seed: list[dict[float, float]] = []
    for log in logs:
        values = [(_finite(line.get("step")), _finite(line.get(panel.key))) for line in log]
        known = {step: value for step, value in values if step is not None and value is not None}
        by_seed += [known] if known else []
    if not by_seed:
        return None
    steps = sorted(set.intersection(*(set(values) for values in by_seed)))
    if not steps:
        return None
    values_ST = [[values[s] for s in steps] for values in by_seed]
    smooth_ST = np.stack([_moving(of_seed) if panel.smoothed else np.array(of_seed) for of_seed in values_ST])
    shown = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), POINTS)).round().astype(int))
    shown_ST = smooth_ST[:, shown]
    return Curve(
        np.array(steps)[shown], shown_ST.mean(axis=0), shown_ST.min(axis=0), shown_ST.max(axis=0), len(by_seed)
    )


def _moving(values: Sequence[float]) -> Float[np.ndarray, " steps"]:
    """Centred moving average; at the ends over the values that exist."""
    reach = WINDOW // 2
    return np.array([np.mean(values[max(0, i - reach) : i + reach + 1]) for i in range(len(values))])


def _finite(value: object) -> float | None:
    """The value as a number, None where it is none or not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
