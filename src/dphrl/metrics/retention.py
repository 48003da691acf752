"""Keep and explore: what a trained model still solves of what its base solved, and what it solves anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from dphrl.errors import DataError
from dphrl.method.verdict_counts import Counts
from dphrl.metrics.intervals import Scores
from dphrl.metrics.pass_at_k import pass_at_k


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


def retention_at(base: Mapping[str, Counts], trained: Mapping[str, Counts], ks: Sequence[int]) -> Scores:
    """Keep and explore when either model has k draws a prompt, estimated from the n there are.

    A prompt is solved by k of a model's n draws, taken at random, with chance pass@k (hypergeometric). The draws of the
    two models are independent, so keep@k is the mean of the trained model's pass@k with the base's pass@k as weights:
    expected prompts kept over expected prompts that the base solved. For explore@k the weights are 1 - pass@k. At k = n
    the chances are 0 and 1, and both are those of `retention`.

    Args:
        base, trained: counts of the same prompts; their n may differ.
        ks: the k wanted, 1 .. the smaller n.
    Returns:
        Metrics keep@k and explore@k with their weights, rows sorted by id; NaN where either side has fewer than k
        judged draws.
    """
    ids = tuple(sorted(base))
    before_PK, after_PK = (_chances(side, ids, ks) for side in (base, trained))
    known_PK = ~np.isnan(before_PK) & ~np.isnan(after_PK)
    values_PK = np.where(known_PK, after_PK, np.nan)
    weights_PK = np.where(known_PK, before_PK, 0.0)
    names = (*(f"keep@{k}" for k in ks), *(f"explore@{k}" for k in ks))
    weights_PM = np.concatenate([weights_PK, np.where(known_PK, 1.0 - weights_PK, 0.0)], axis=1)
    return Scores(ids, names, np.concatenate([values_PK, values_PK], axis=1), weights_PM)


def _chances(side: Mapping[str, Counts], ids: Sequence[str], ks: Sequence[int]) -> Float[np.ndarray, "prompts ks"]:
    n_P = np.array([side[i].judged for i in ids])
    c_P = np.array([side[i].successes for i in ids])
    passed_PK = np.full((len(ids), len(ks)), np.nan)
    known = [column for column, k in enumerate(ks) if k <= n_P.max(initial=0)]
    passed_PK[:, known] = pass_at_k(n_P, c_P, [ks[column] for column in known])
    return passed_PK


def _solved(counts: Counts) -> float:
    """1 solved, 0 not, NaN when a draw could not be judged."""
    return float(counts.successes > 0) if counts.judged == counts.drawn else float("nan")
