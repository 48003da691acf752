"""How a model does on prompts that its base found hard, and on those it found easy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dphrl.method.verdict_counts import Counts
from dphrl.metrics.intervals import Interval, Scores, bootstrap, widened


@dataclass(frozen=True, slots=True)
class Band:
    """Prompts by the share of right ones among the base's judged draws: low <= share <= high.

    A share on the edge of two bands belongs to the outer one, the one nearer to never or always.
    """

    name: str
    low: float
    high: float


BANDS = (
    Band("never", 0.0, 0.0),
    Band("rarely", 0.0, 0.25),
    Band("sometimes", 0.25, 0.75),
    Band("mostly", 0.75, 1.0),
    Band("always", 1.0, 1.0),
)
"""Every share from 0 to 1 is in exactly one: 0 | (0, 1/4] | (1/4, 3/4) | [3/4, 1) | 1."""

_OUTER_FIRST = (BANDS[0], BANDS[4], BANDS[1], BANDS[3], BANDS[2])
OF_A_BAND = {"mean_at_n": "mean_at_n", "pass_at_n": "pass@{n}", "keep": "keep"}
"""Number of a band -> metric of `per_prompt`."""


@dataclass(frozen=True, slots=True)
class BandScores:
    """How a model does on the prompts of one band; None where no prompt counts."""

    band: str
    low: float
    high: float
    prompts: int
    mean_at_n: Interval | None
    pass_at_n: Interval | None
    keep: Interval | None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> BandScores:
        """The band of {"band", "low", "high", "prompts", "mean_at_n", "pass_at_n", "keep"}."""
        return cls(**{**values, **{name: Interval.from_json(values.get(name)) for name in OF_A_BAND}})


def band_of(share: float) -> Band:
    """The band of a share in [0, 1]."""
    return next(band for band in _OUTER_FIRST if band.low <= share <= band.high)


def scores_by_band(
    scores: Scores, base: Mapping[str, Counts], n: int, *, rng: np.random.Generator, resamples: int
) -> tuple[BandScores, ...]:
    """Mean@n, pass@n and keep of each band.

    The base's own draws choose the band, so its rates in a band are extreme by that choice; its true rates lie nearer
    to the middle (regression to the mean). Within a band compare models with each other, not with the base.

    Args:
        scores: of the model, as `per_prompt` gives them with a base.
        base: counts of the same prompts; one without a judged draw is in no band.
        n: draws per prompt.
        rng, resamples: as for `bootstrap`.
    Returns:
        The bands that have prompts, from never to always.
    """
    names = {key: form.format(n=n) for key, form in OF_A_BAND.items()}
    band_by_id = {i: band_of(c.successes / c.judged) for i, c in base.items() if c.judged}
    by_band = []
    for band in BANDS:
        rows = [row for row, i in enumerate(scores.ids) if band_by_id.get(i) == band]
        if not rows:
            continue
        values_PM = scores.only(list(names.values())).values_PM[rows]
        inside = Scores(tuple(scores.ids[row] for row in rows), tuple(names.values()), values_PM)
        levels, sizes = bootstrap(inside, rng=rng, resamples=resamples), inside.sizes()
        numbers = {key: widened(levels[name], sizes[name]) if sizes[name] else None for key, name in names.items()}
        by_band.append(BandScores(band.name, band.low, band.high, len(rows), **numbers))
    return tuple(by_band)
