"""Score matrices joined by prompt id, and their bootstrap intervals over prompts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from dphrl.errors import DataError

RESAMPLES = 10_000
"""Bootstrap resamples of an interval (count)."""

CHUNK = 1 << 16
"""Resampled prompts held at once (count): 512 KiB an array. It stays in the cache and in the allocator's pool; twice as
much was ten times slower, all of it page faults."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its percentile interval; all NaN when no prompt counts."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """One row a prompt, one column a metric; a metric's value is the mean of its column.

    NaN = the prompt does not count for that metric (it was not judged, or the base model had not solved it): it leaves
    numerator and denominator alike, so a ratio such as keep is a column too.
    """

    ids: tuple[str, ...]
    names: tuple[str, ...]
    values_PM: Float[np.ndarray, "prompts metrics"]

    def __post_init__(self) -> None:
        if self.values_PM.shape != (len(self.ids), len(self.names)):
            raise ValueError(f"values {self.values_PM.shape} must be {len(self.ids)} ids x {len(self.names)} names")
        for what, labels in (("prompt ids", self.ids), ("metrics", self.names)):
            if len(set(labels)) != len(labels):
                raise DataError(
                    f"{what} come twice: {[x for x in labels if labels.count(x) > 1][:3]}; make them unique"
                )

    def column(self, name: str) -> Float[np.ndarray, " prompts"]:
        """One metric of every prompt; ValueError when there is no such metric."""
        return self.values_PM[:, self.names.index(name)]


def bootstrap(
    scores: Scores, *, rng: np.random.Generator, resamples: int = RESAMPLES, level: float = 0.95
) -> dict[str, Interval]:
    """Percentile bootstrap interval over prompts of every metric; all metrics share the same resamples.

    Args:
        scores: at least one prompt. Memory is 16 bytes x resamples x metrics, and a few MiB.
        rng: draws the resamples; the same state and row order give the same interval.
        resamples: >= 1 (count).
        level: coverage, in (0, 1).
    Returns:
        Metric -> mean over the prompts that count, and the (1 -+ level)/2 quantiles of the resampled means. A resample
        in which no prompt counts has no mean and is left out.
    Raises:
        ValueError: no prompt, or resamples or level out of range.
    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13.
    """
    if not scores.ids:
        raise ValueError("an interval needs at least one prompt; evaluate some first")
    if resamples < 1 or not 0.0 < level < 1.0:
        raise ValueError(f"resamples={resamples} must be >= 1 and level={level} in (0, 1)")
    values_M = _column_means(np.ones((1, len(scores.ids))), scores.values_PM)[0]
    means_RM = _resampled_means(scores.values_PM, rng, resamples)
    tail = (1.0 - level) / 2.0
    intervals = {}
    for name, value, means_R in zip(scores.names, values_M, means_RM.T, strict=True):
        kept_R = means_R[~np.isnan(means_R)]
        low, high = np.quantile(kept_R, [tail, 1.0 - tail]) if kept_R.size else (np.nan, np.nan)
        intervals[name] = Interval(float(value), float(low), float(high))
    return intervals


def paired_bootstrap(
    scores: Scores,
    baseline: Scores,
    *,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Interval of the difference `scores` - `baseline` of every metric, resampling prompts, not runs.

    The same resample serves both sides, so what makes a prompt hard for both cancels; a model against itself gives
    exactly 0.

    Args:
        scores, baseline: the same prompts and metrics, in any order. A prompt that does not count on one side (NaN)
            counts on neither.
        rng, resamples, level: as for `bootstrap`.
    Raises:
        DataError: the prompts or the metrics differ; the first three are named.
        ValueError: as `bootstrap`.
    """
    difference = Scores(scores.ids, scores.names, scores.values_PM - align(baseline, scores).values_PM)
    return bootstrap(difference, rng=rng, resamples=resamples, level=level)


def align(scores: Scores, like: Scores) -> Scores:
    """`scores` with the rows and columns in the order of `like`.

    Raises:
        DataError: the prompts or the metrics of the two differ; the first three are named.
    """
    rows = _order(scores.ids, like.ids, "prompt ids")
    columns = _order(scores.names, like.names, "metrics")
    return Scores(like.ids, like.names, scores.values_PM[np.ix_(rows, columns)])


def beside(parts: Sequence[Scores]) -> Scores:
    """The metrics of all parts side by side, joined by prompt id; rows sorted by id, so no result hangs on file order.

    Args:
        parts: at least one; the same prompts, no metric twice.
    Raises:
        DataError: the prompts differ, or a metric comes twice.
    """
    ids = tuple(sorted(parts[0].ids))
    columns = [part.values_PM[_order(part.ids, ids, "prompt ids")] for part in parts]
    return Scores(ids, tuple(name for part in parts for name in part.names), np.concatenate(columns, axis=1))


def average(runs: Sequence[Scores]) -> Scores:
    """The mean over runs (seeds of one method) of every prompt and metric; NaN where any run is NaN.

    Args:
        runs: at least one; the same prompts and metrics, in any order.
    Raises:
        DataError: the prompts or the metrics of two runs differ.
    """
    values_PM = np.mean([align(run, runs[0]).values_PM for run in runs], axis=0)
    return Scores(runs[0].ids, runs[0].names, values_PM)


def _resampled_means(
    values_PM: Float[np.ndarray, "prompts metrics"], rng: np.random.Generator, resamples: int
) -> Float[np.ndarray, "resamples metrics"]:
    """Means of resamples, a chunk at a time: how often each prompt was drawn, times the score matrix."""
    prompts = values_PM.shape[0]
    rows = max(1, CHUNK // prompts)
    means = []
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        drawn = rng.integers(prompts, size=(size, prompts))
        drawn += prompts * np.arange(size)[:, None]  # a range of bins for each resample: one bincount for the chunk
        weights = np.bincount(drawn.ravel(), minlength=size * prompts).reshape(size, prompts)
        means.append(_column_means(weights.astype(np.float64), values_PM))
    return np.concatenate(means)


def _column_means(
    weights_RP: Float[np.ndarray, "resamples prompts"], values_PM: Float[np.ndarray, "prompts metrics"]
) -> Float[np.ndarray, "resamples metrics"]:
    """Weighted mean of each column over the prompts that count in it; NaN where none does."""
    counts_PM = ~np.isnan(values_PM)
    totals_RM = weights_RP @ np.where(counts_PM, values_PM, 0.0)
    weight_RM = weights_RP @ counts_PM.astype(np.float64)
    means_RM = np.full(totals_RM.shape, np.nan)
    np.divide(totals_RM, weight_RM, out=means_RM, where=weight_RM > 0)
    return means_RM


def _order(have: Iterable[str], want: Iterable[str], what: str) -> list[int]:
    """Where each of `want` stands in `have`; both must hold the same labels."""
    place = {label: index for index, label in enumerate(have)}
    wanted = list(want)
    odd = sorted(place.keys() ^ set(wanted))
    if odd:
        raise DataError(f"{len(odd)} {what} are on one side only: {odd[:3]}; compare evaluations of the same prompts")
    return [place[label] for label in wanted]
