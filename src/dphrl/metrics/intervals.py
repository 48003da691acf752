"""Score matrices joined by prompt id, and their bootstrap intervals over prompts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from dphrl.errors import DataError

RESAMPLES = 10_000
"""Bootstrap resamples of an interval (count)."""

CHUNK = 1 << 16
"""Resampled prompts held at once (count): 512 KiB an array, which stays in the processor's cache and in the allocator's
pool. Twice as many took ten times as long, for page faults."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its percentile interval; all NaN when no prompt counts."""

    value: float
    low: float
    high: float

    @classmethod
    def from_json(cls, values: Mapping[str, float | None] | None) -> Interval | None:
        """The interval of {"value", "low", "high"}, where null is NaN; None for None."""
        if values is None:
            return None
        return cls(*(math.nan if (x := values[name]) is None else float(x) for name in ("value", "low", "high")))


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """One row a prompt, one column a metric; a metric's value is the mean of its column.

    NaN = the prompt does not count for that metric (it was not judged, or the base model had not solved it): it leaves
    numerator and denominator alike, so a ratio such as keep is a column too. Where prompts count for more or less than
    one, `weights_PM` says so: the value is then the weighted mean.
    """

    ids: tuple[str, ...]
    names: tuple[str, ...]
    values_PM: Float[np.ndarray, "prompts metrics"]
    weights_PM: Float[np.ndarray, "prompts metrics"] | None = None
    """>= 0; None = 1 everywhere."""

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

    def counting(self) -> Float[np.ndarray, "prompts metrics"]:
        """What each prompt counts for in each metric: its weight, 0 where the value is NaN."""
        known_PM = ~np.isnan(self.values_PM)
        return known_PM.astype(np.float64) if self.weights_PM is None else np.where(known_PM, self.weights_PM, 0.0)

    def sizes(self) -> dict[str, float]:
        """Metric -> prompts that its mean rests on, (sum of weights)^2 / sum of squares: their number where all count
        for one."""
        weights_PM = self.counting()
        total_M, squares_M = weights_PM.sum(axis=0), (weights_PM**2).sum(axis=0)
        sizes_M = np.divide(total_M**2, squares_M, out=np.zeros_like(total_M), where=squares_M > 0)
        return dict(zip(self.names, sizes_M.tolist(), strict=True))

    def only(self, names: Sequence[str]) -> Scores:
        """These metrics, in this order; ValueError when one is not there."""
        columns = [self.names.index(name) for name in names]
        weights_PM = None if self.weights_PM is None else self.weights_PM[:, columns]
        return Scores(self.ids, tuple(names), self.values_PM[:, columns], weights_PM)


def bootstrap(
    scores: Scores, *, rng: np.random.Generator, resamples: int = RESAMPLES, level: float = 0.95
) -> dict[str, Interval]:
    """Percentile bootstrap interval over prompts of every metric; all metrics share the same resamples.

    Args:
        scores: at least one prompt. Memory is 16 bytes x resamples x metrics, and a few MiB. Where all prompts agree
            the interval has no width; `widened` mends that for rates.
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
    weights_PM = scores.counting()
    totals_PM = np.where(np.isnan(scores.values_PM), 0.0, scores.values_PM) * weights_PM
    values_M = _column_means(np.ones((1, len(scores.ids))), totals_PM, weights_PM)[0]
    means_RM = _resampled_means(totals_PM, weights_PM, rng, resamples)
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
            counts on neither. Weights must be the same on both sides.
        rng, resamples, level: as for `bootstrap`.
    Raises:
        DataError: the prompts or the metrics differ; the first three are named.
        ValueError: as `bootstrap`; or a prompt counts for more on one side.
    """
    other = align(baseline, scores)
    values_PM = scores.values_PM - other.values_PM
    weights_PM, other_weights_PM = (np.where(np.isnan(values_PM), 0.0, s.counting()) for s in (scores, other))
    if not np.array_equal(weights_PM, other_weights_PM):
        raise ValueError("a paired difference needs the same weights on both sides; make columns of full prompts first")
    difference = Scores(scores.ids, scores.names, values_PM, weights_PM)
    return bootstrap(difference, rng=rng, resamples=resamples, level=level)


def widened(interval: Interval, prompts: float, *, level: float = 0.95) -> Interval:
    """An honest interval of a rate where the bootstrap has none to give, because all prompts agree.

    Where every prompt scored 1, a mean of mu would have given that with a chance of at most mu ** prompts, whatever the
    distribution on [0, 1]: the interval begins at ((1 - level) / 2) ** (1 / prompts), which for scores 0 and 1 is that
    of Clopper and Pearson. Likewise for 0. Where all prompts share another score, Hoeffding's bound is taken.

    Args:
        interval: of the mean of scores in [0, 1]; one that has a width comes back as it is.
        prompts: that the mean rests on (`Scores.sizes`), > 0.
        level: coverage, in (0, 1).
    Source: Clopper and Pearson, Biometrika 26, 1934; Hoeffding, JASA 58, 1963.
    """
    value = interval.value
    if not interval.high - interval.low < 1e-12:  # NaN included: nothing counts, nothing is known
        return interval
    tail = (1.0 - level) / 2.0
    if value > 1.0 - 1e-12:
        return Interval(value, tail ** (1.0 / prompts), 1.0)
    if value < 1e-12:
        return Interval(value, 0.0, 1.0 - tail ** (1.0 / prompts))
    reach = math.sqrt(-math.log(tail) / (2.0 * prompts))
    return Interval(value, max(value - reach, 0.0), min(value + reach, 1.0))


def align(scores: Scores, like: Scores) -> Scores:
    """`scores` with the rows and columns in the order of `like`.

    Raises:
        DataError: the prompts or the metrics of the two differ; the first three are named.
    """
    chosen = np.ix_(_order(scores.ids, like.ids, "prompt ids"), _order(scores.names, like.names, "metrics"))
    weights_PM = None if scores.weights_PM is None else scores.weights_PM[chosen]
    return Scores(like.ids, like.names, scores.values_PM[chosen], weights_PM)


def join_scores(parts: Sequence[Scores]) -> Scores:
    """The metrics of all parts side by side, joined by prompt id; rows sorted by id, so no result hangs on file order.

    Args:
        parts: at least one; the same prompts, no metric twice.
    Raises:
        DataError: the prompts differ, or a metric comes twice.
    """
    ids = tuple(sorted(parts[0].ids))
    rows = [_order(part.ids, ids, "prompt ids") for part in parts]
    names = tuple(name for part in parts for name in part.names)
    values_PM = np.concatenate([p.values_PM[r] for p, r in zip(parts, rows, strict=True)], axis=1)
    if all(part.weights_PM is None for part in parts):
        return Scores(ids, names, values_PM)
    weights_PM = np.concatenate([p.counting()[r] for p, r in zip(parts, rows, strict=True)], axis=1)
    return Scores(ids, names, values_PM, weights_PM)


def _resampled_means(
    totals_PM: Float[np.ndarray, "prompts metrics"],
    weights_PM: Float[np.ndarray, "prompts metrics"],
    rng: np.random.Generator,
    resamples: int,
) -> Float[np.ndarray, "resamples metrics"]:
    """Means of resamples, a chunk at a time: how often each prompt was drawn, times the score matrix."""
    prompts = totals_PM.shape[0]
    rows = max(1, CHUNK // prompts)
    means = []
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        drawn = rng.integers(prompts, size=(size, prompts))
        drawn += prompts * np.arange(size)[:, None]  # a range of bins for each resample: one bincount for the chunk
        times_RP = np.bincount(drawn.ravel(), minlength=size * prompts).reshape(size, prompts)
        means.append(_column_means(times_RP.astype(np.float64), totals_PM, weights_PM))
    return np.concatenate(means)


def _column_means(
    times_RP: Float[np.ndarray, "resamples prompts"],
    totals_PM: Float[np.ndarray, "prompts metrics"],
    weights_PM: Float[np.ndarray, "prompts metrics"],
) -> Float[np.ndarray, "resamples metrics"]:
    """Weighted mean of each column, prompts taken so many times; NaN where none counts."""
    whole_M = (weights_PM == 1.0).all(axis=0)  # there the weights of a resample add up to the number of prompts
    weight_RM = np.full((len(times_RP), totals_PM.shape[1]), float(len(totals_PM)))
    weight_RM[:, ~whole_M] = times_RP @ weights_PM[:, ~whole_M]
    totals_RM = times_RP @ totals_PM
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
