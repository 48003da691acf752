"""Keep and explore: what a trained model still solves of what its base solved, and what it solves anew."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dphrl.errors import DataError
from dphrl.metrics.intervals import Scores
from dphrl.partition import Counts


def retention(base: Mapping[str, Counts], trained: Mapping[str, Counts]) -> Scores:
    """Indicators, one row a prompt, whose column means are keep and explore.

    `keep`: of the prompts the base solved in n draws, 1 where the trained model solves them in n draws too.
    `explore`: of the prompts the base did not solve, 1 where the trained model does.

    Args:
        base, trained: counts of the same prompts, with the same n draws on both sides: more draws solve more.
    Returns:
        Metrics keep and explore, in {0, 1}, rows sorted by id; each prompt counts in one and is NaN in the other. In
        both NaN where a draw of either side was not judged, as for pass@n: with fewer draws than n, `unsolved` would
        mean less. The sum of a column is the number of prompts; the mean of an empty one is NaN.
    Raises:
        DataError: the prompts differ, or the n.
    Source: DPH-RL, arXiv:2509.07430, keep/explore analysis.
    """
    odd = sorted(base.keys() ^ trained.keys())
    if odd:
        raise DataError(f"{len(odd)} prompts were evaluated for one of base and trained only: {odd[:3]}; evaluate both")
    sizes = {counts.drawn for side in (base, trained) for counts in side.values()}
    if len(sizes) > 1:
        raise DataError(f"n={sorted(sizes)} draws per prompt differ; evaluate base and trained model with the same n")
    ids = tuple(sorted(base))
    before_P, after_P = (np.array([_solved(side[i]) for i in ids], dtype=np.float64) for side in (base, trained))
    keep_P = np.where(before_P == 1.0, after_P, np.nan)
    explore_P = np.where(before_P == 0.0, after_P, np.nan)
    return Scores(ids, ("keep", "explore"), np.stack([keep_P, explore_P], axis=1))


def _solved(counts: Counts) -> float:
    """1 solved, 0 not, NaN when a draw could not be judged."""
    return float(counts.successes > 0) if counts.judged == counts.drawn else float("nan")
