"""What is measured in a micro-batch, on its way through verl's metrics to the driver.

verl averages a metric over data-parallel ranks first. Then it adds over the micro-batches of a mini-batch, or takes
their mean, minimum or maximum, as the metric says; the driver gets a number for each mini-batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from verl.utils.metric import AggregationType, Metric

from dphrl.method.anchor_stats import AnchorStats

SUMS = ("tokens", "penalty_sum", "log_u_sum", "log_u_abs_sum")
EXTREMES = ("log_u_min", "log_u_max")
PART = "dph_part/"
"""Prefix of the parts of an `AnchorStats`."""
SHARE = "dph_share/"
"""Prefix of verl's means over micro-batches, as sums over those that hold rollouts."""
HOLDING = "dph_holding"
"""Micro-batches that hold rollouts."""


def stats_as_metrics(stats: AnchorStats, ranks: int) -> dict[str, Metric]:
    """A micro-batch's record as verl's metrics, which the driver puts together again."""
    parts = {PART + name: Metric(AggregationType.SUM, getattr(stats, name) * ranks) for name in SUMS}
    parts[PART + "log_u_min"] = Metric(AggregationType.MIN, stats.log_u_min)
    parts[PART + "log_u_max"] = Metric(AggregationType.MAX, stats.log_u_max)
    return parts


def of_rollouts_alone(metrics: Mapping[str, Any], holds_rollouts: bool) -> dict[str, Any]:
    """verl's metrics of a micro-batch, so made that micro-batches of anchors alone do not dilute their means."""
    share = float(holds_rollouts)
    found: dict[str, Any] = {HOLDING: Metric(AggregationType.SUM, share)}
    for name, metric in metrics.items():
        if isinstance(metric, Metric) and metric.aggregation is AggregationType.MEAN:
            value = metric.aggregate() if holds_rollouts else 0.0
            found[SHARE + name] = Metric(AggregationType.SUM, float(value))
        else:
            found[name] = metric
    return found


def as_logged(metrics: Mapping[str, Any]) -> tuple[dict[str, Any], AnchorStats]:
    """What the workers give back -> verl's own metrics as without anchors, and the record of the update's anchors.

    Args:
        metrics: a number for each mini-batch (list), or a number.
    """
    holding = metrics[HOLDING]
    own = {k: v for k, v in metrics.items() if not k.startswith((PART, SHARE)) and k != HOLDING}
    for name, sums in metrics.items():
        if name.startswith(SHARE):
            own[name.removeprefix(SHARE)] = [s / h if h else 0.0 for s, h in zip(sums, holding, strict=True)]
    rows = zip(*(_numbers(metrics[PART + name]) for name in (*SUMS, *EXTREMES)), strict=True)
    return own, AnchorStats.unpack(torch.tensor(list(rows), dtype=torch.float64).float())


def _numbers(values: Sequence[float]) -> list[float]:
    return [float(value) for value in values]
