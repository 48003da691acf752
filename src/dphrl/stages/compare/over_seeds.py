"""Means over seeds with their intervals, and differences to a baseline and to the base, paired over prompts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import mean, stdev

import numpy as np
from jaxtyping import Float

from dphrl.metrics.intervals import Interval, Scores, bootstrap, paired_bootstrap, widened
from dphrl.metrics.seeds import SeedSpread, seed_spread
from dphrl.metrics.summary import NO_RATES
from dphrl.report.comparison import Aggregate, BaseChange, Difference
from dphrl.stages.compare.evaluations import Evaluation, SeedGroup, check_same_prompts

METRICS = ("greedy", "mean_at_n", "pass@{k}", "pass@n", "keep", "explore", "distinct_correct")
"""Metrics of every aggregate, in order; pass@{k} stands for every k of the rows."""
WHERE_KNOWN = (
    *("maj@{k}", "keep@{k}", "explore@{k}"),
    *("style_entropy", "tokens", "truncated", "no_answer"),
)
"""Metrics that follow where a row has them."""
AGAINST_BASE = ("greedy", "mean_at_n", "pass@{k}", "pass@n", "distinct_correct")
"""Metrics whose difference to the base is known, whatever the baseline is."""


def aggregates(group: SeedGroup, baseline: SeedGroup | None, *, resamples: int, seed: int) -> list[Aggregate]:
    """Every metric of a group over its seeds.

    Args:
        baseline: what differences are taken to; None, or the group itself = no differences.
        resamples, seed: of the intervals over prompts.
    Raises:
        RunDirError: the baseline was evaluated on other prompts.
    """
    scores = _mean_over_seeds(group.seeds)
    levels = bootstrap(scores, rng=np.random.default_rng(seed), resamples=resamples)
    other = baseline if baseline is not None and baseline.name != group.name else None
    gaps = {} if other is None else _gaps(group, other, resamples=resamples, seed=seed)
    by_metric = []
    for metric in _metrics(group):
        values = _values(group, metric)
        level = _widened(group, metric, levels[metric]) if metric in levels else _stated_interval(group, metric)
        by_metric.append(
            Aggregate(
                method=group.entry.method,
                setting=group.entry.setting,
                dataset=group.dataset,
                metric=metric,
                mean=mean(values) if values else math.nan,
                sd=stdev(values) if len(values) > 1 else None,
                seeds=len(values),
                low=_bound(level.low, metric) if level else None,
                high=_bound(level.high, metric) if level else None,
                spread=_spread(_columns_by_seed(group, metric), metric, 0.0),
                difference=None if other is None else _difference(group, other, metric, gaps.get(metric)),
            )
        )
    return by_metric


def base_changes(groups: Sequence[SeedGroup], *, resamples: int, seed: int) -> list[BaseChange]:
    """Differences of every group to the base, in the metrics of AGAINST_BASE; none where the prompts differ."""
    bases = {g.dataset: g for g in groups if g.entry.method == "base"}
    changes = []
    for group in groups:
        base = bases.get(group.dataset)
        if base is None or group.entry.method == "base" or group.seeds[0].scores.ids != base.seeds[0].scores.ids:
            continue
        metrics = [name for name in _with_ks(AGAINST_BASE, _ks(group)) if _values(group, name) and _values(base, name)]
        gaps = _gaps(group, base, resamples=resamples, seed=seed, metrics=metrics)
        for metric in metrics:
            gap = _difference(group, base, metric, gaps.get(metric))
            if gap is not None:
                key = (group.entry.method, group.entry.setting, group.dataset, metric)
                changes.append(BaseChange(*key, gap.value, gap.low, gap.high, gap.agree))
    return changes


def _gaps(
    group: SeedGroup, other: SeedGroup, *, resamples: int, seed: int, metrics: Sequence[str] | None = None
) -> dict[str, Interval]:
    """Paired intervals of the difference to another group, in every metric that both have, or those of `metrics`."""
    check_same_prompts(group.seeds[0], other.seeds[0])
    scores, other_scores = _mean_over_seeds(group.seeds), _mean_over_seeds(other.seeds)
    shared = [name for name in scores.names if name in other_scores.names and (metrics is None or name in metrics)]
    rng = np.random.default_rng(seed)
    return paired_bootstrap(scores.only(shared), other_scores.only(shared), rng=rng, resamples=resamples)


def _difference(group: SeedGroup, other: SeedGroup, metric: str, gap: Interval | None) -> Difference | None:
    """The paired difference; without an interval where only the rows know the metric, None where they do not."""
    if gap is None or math.isnan(gap.value):
        values, other_values = _values(group, metric), _values(other, metric)
        known = values and other_values
        return Difference(other.name, mean(values) - mean(other_values), None, None, None) if known else None
    columns, other_columns = _columns_by_seed(group, metric), _columns_by_seed(other, metric)
    spread = None
    if columns.keys() == other_columns.keys():  # seeds come in pairs: what they share (presamples, base) cancels
        spread = _spread({seed: column - other_columns[seed] for seed, column in columns.items()}, metric, -1.0)
    agree = len(group.seeds[0].scores.ids) if gap.low == gap.high else None
    return Difference(other.name, gap.value, gap.low, gap.high, spread, agree)


def _widened(group: SeedGroup, metric: str, level: Interval) -> Interval:
    """The interval of a rate has a width also where all prompts agree."""
    prompts = min(e.sizes.get(metric, 0.0) for e in group.seeds)
    return widened(level, prompts) if metric not in NO_RATES and prompts else level


def _stated_interval(group: SeedGroup, metric: str) -> Interval | None:
    """The interval that a single seed's summary gives, for a metric that the samples alone do not."""
    level = group.seeds[0].summary.intervals.get(metric) if len(group.seeds) == 1 else None
    return None if level is None or math.isnan(level.low) or math.isnan(level.high) else level


def _columns_by_seed(group: SeedGroup, metric: str) -> dict[int, Float[np.ndarray, " prompts"]]:
    """Seed -> the metric of every prompt; only where every seed knows it of every prompt."""
    columns = {e.seed: e.scores.column(metric) for e in group.seeds if metric in e.scores.names}
    whole = len(columns) == len(group.seeds) and not any(np.isnan(column).any() for column in columns.values())
    return columns if whole else {}


def _spread(columns: Mapping[int, Float[np.ndarray, " prompts"]], metric: str, least: float) -> SeedSpread | None:
    """Over prompts and seeds; the interval of a rate ends at `least` and 1, whatever Student's has it."""
    spread = seed_spread(np.stack(list(columns.values()))) if columns else None
    if spread is None or metric in NO_RATES:
        return spread
    return replace(spread, low=max(spread.low, least), high=min(spread.high, 1.0))


def _mean_over_seeds(seeds: Sequence[Evaluation]) -> Scores:
    """Scores of every prompt averaged over the seeds in which the metric is known, metrics that all seeds have."""
    names = [name for name in seeds[0].scores.names if all(name in e.scores.names for e in seeds)]
    values_SPM = np.stack([e.scores.only(names).values_PM for e in seeds])  # rows are sorted by id
    known_SPM = ~np.isnan(values_SPM)
    total_PM = np.where(known_SPM, values_SPM, 0.0).sum(axis=0)
    count_PM = known_SPM.sum(axis=0)
    mean_PM = np.divide(total_PM, count_PM, out=np.full(total_PM.shape, np.nan), where=count_PM > 0)
    return Scores(seeds[0].scores.ids, tuple(names), mean_PM)


def _metrics(group: SeedGroup) -> list[str]:
    """METRICS with every k that all seeds have, and those of WHERE_KNOWN that some seed knows."""
    ks = _ks(group)
    return [*_with_ks(METRICS, ks), *(name for name in _with_ks(WHERE_KNOWN, ks) if _values(group, name))]


def _ks(group: SeedGroup) -> list[int]:
    """Every k that all seeds have, ascending."""
    return sorted(set.intersection(*(set(e.summary.pass_at_k) for e in group.seeds)))


def _with_ks(metrics: Iterable[str], ks: Sequence[int]) -> list[str]:
    return [name for m in metrics for name in ([m.format(k=k) for k in ks] if "{k}" in m else [m])]


def _values(group: SeedGroup, metric: str) -> list[float]:
    """The metric of each seed's summary, seeds without it left out."""
    return [value for e in group.seeds if (value := e.summary.value(metric)) is not None]


def _bound(value: float, metric: str) -> float | None:
    """An end of an interval; that of a ratio can leave 0..1 by its approximation (`counted`)."""
    if math.isnan(value):
        return None
    return max(value, 0.0) if metric in NO_RATES else min(max(value, 0.0), 1.0)
