"""How a model does on prompts that its base found hard, and on those it found easy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dphrl.method.partition import Counts
from dphrl.metrics.intervals import Scores, bootstrap, widened


@dataclass(frozen=True, slots=True)
class Band:
    """Prompts by the share of right ones among the base's judged draws: low <= share <= high, and not in a band that
    stands further out."""

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

_OUTSIDE_IN = (BANDS[0], BANDS[4], BANDS[1], BANDS[3], BANDS[2])
SHOWN = {"mean_at_n": "mean_at_n", "pass_at_n": "pass@{n}", "keep": "keep"}
"""Key of a band -> metric of `per_prompt`."""


def band_of(share: float) -> Band:
    """The band of a share in [0, 1]."""
    return next(band for band in _OUTSIDE_IN if band.low <= share <= band.high)


def bands(
    scores: Scores, base: Mapping[str, Counts], n: int, *, rng: np.random.Generator, resamples: int
) -> list[dict[str, Any]]:
    """Mean@n, pass@n and keep of each band.

    The base's draws choose the band, so what the base itself did in a band is decided by them, and its true rates lie
    nearer to the middle (regression to the mean): compare models with each other within a band, not with the base.

    Args:
        scores: of the model, as `per_prompt` gives them with a base.
        base: counts of the same prompts; one without a judged draw is in no band.
        n: draws per prompt.
        rng, resamples: as for `bootstrap`.
    Returns:
        One object a band that has prompts, from never to always: band, low, high, prompts, and intervals ({value, low,
        high}) of mean_at_n, pass_at_n and keep, None where no prompt counts.
    """
    names = [form.format(n=n) for form in SHOWN.values()]
    places = {i: band_of(c.successes / c.judged) for i, c in base.items() if c.judged}
    found = []
    for band in BANDS:
        rows = [row for row, i in enumerate(scores.ids) if places.get(i) == band]
        if not rows:
            continue
        mine = scores.only(names)
        mine = Scores(tuple(scores.ids[row] for row in rows), mine.names, mine.values_PM[rows])
        levels, sizes = bootstrap(mine, rng=rng, resamples=resamples), mine.sizes()
        parts = {
            key: widened(levels[name], sizes[name]).as_json() if sizes[name] else None
            for key, name in zip(SHOWN, names, strict=True)
        }
        found.append({"band": band.name, "low": band.low, "high": band.high, "prompts": len(rows), **parts})
    return found
