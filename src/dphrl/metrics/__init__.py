"""What one evaluation says: every metric of every prompt, and their summary with intervals."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dphrl.errors import DataError
from dphrl.metrics.intervals import RESAMPLES, Interval, Scores, average, beside, bootstrap, paired_bootstrap
from dphrl.metrics.pass_at_k import greedy, mean_at_n, pass_at_k, report_ks, require_ks
from dphrl.metrics.retention import retention
from dphrl.metrics.style import style
from dphrl.partition import by_draw, count, is_judged
from dphrl.types import STATUSES, Completion

__all__ = [
    "RESAMPLES",
    "Interval",
    "Scores",
    "average",
    "beside",
    "bootstrap",
    "greedy",
    "mean_at_n",
    "paired_bootstrap",
    "pass_at_k",
    "per_prompt",
    "report_ks",
    "retention",
    "style",
    "summarise",
]

PLAIN = ("greedy", "mean_at_n", "keep", "explore", "distinct_correct")
"""Metrics that a summary gives as one number, their intervals apart."""


def per_prompt(
    completions: Sequence[Completion],
    *,
    solution: Callable[[str], str],
    base: Sequence[Completion] | None = None,
    ks: Sequence[int] | None = None,
) -> Scores:
    """Every metric of every prompt of one evaluation: what intervals and paired comparisons are made of.

    Args:
        completions: of all prompts, in any order, verified: draws 0 .. n-1, the same n for all, and a greedy one for
            all prompts or none.
        solution: completion text -> canonical form, for the style metrics.
        base: the base model's completions of the same prompts with the same n; adds keep and explore.
        ks: the k of pass@k, each 1 .. n; `report_ks(n)` when None.
    Returns:
        Metrics greedy, mean_at_n, pass@1 .. pass@n, distinct_correct, style_entropy, [keep, explore]; rows sorted by
        id. An unjudged draw leaves the n of its prompt; a prompt with fewer than k judged draws is NaN at pass@k.
    Raises:
        DataError: doubled, missing or unverified completions, none judged, or a base of other prompts or another n.
        ValueError: a k out of range.
    """
    n = _draws_per_prompt(completions)
    wanted = report_ks(n) if ks is None else tuple(ks)
    require_ks(wanted, n)
    counts = count(completions, n=n)
    ids = tuple(sorted(counts))
    n_P = np.array([counts[i].judged for i in ids])
    c_P = np.array([counts[i].successes for i in ids])
    most = int(n_P.max())
    if most == 0:
        raise DataError(f"no completion could be judged ({_statuses(completions)}); mend the verifier or its data")
    passed_PK = np.full((len(ids), len(wanted)), np.nan)
    known = [column for column, k in enumerate(wanted) if k <= most]  # beyond it no prompt has an estimate
    passed_PK[:, known] = pass_at_k(n_P, c_P, [wanted[column] for column in known])
    accuracy = greedy(completions)
    plain_P2 = np.stack([[accuracy[i] for i in ids], mean_at_n(n_P, c_P)], axis=1)
    sampled = {i: [c for draw, c in mine.items() if draw >= 0] for i, mine in by_draw(completions).items()}
    parts = [
        Scores(ids, ("greedy", "mean_at_n"), plain_P2),
        Scores(ids, tuple(f"pass@{k}" for k in wanted), passed_PK),
        style(sampled, solution),
    ]
    if base is not None:
        parts.append(retention(count(base, n=_draws_per_prompt(base)), counts))
    return beside(parts)


def summarise(
    completions: Sequence[Completion],
    *,
    base: Sequence[Completion] | None = None,
    solution: Callable[[str], str],
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """The summary of one evaluation, ready for JSON: the caller adds dataset, model and speed.

    Args:
        completions, base, solution: as for `per_prompt`.
        rng, resamples: as for `bootstrap`.
    Returns:
        n (draws per prompt), prompts, greedy, mean_at_n, pass_at_k {k: {value, low, high}}, keep, explore (shares),
        distinct_correct, statuses {status: sampled draws}; beside these
        intervals: {value, low, high} of greedy, mean_at_n, keep, explore and distinct_correct;
        retention: the counts behind keep and explore, None without a base;
        unjudged: sampled draws without a reward; excluded: {k: prompts with fewer than k judged draws, which that
        pass@k leaves out}, only where there are some. A number that cannot be known is None, never 0 or NaN.
    Raises:
        DataError: as `per_prompt`.
        ValueError: resamples out of range.
    """
    n = _draws_per_prompt(completions)
    scores = per_prompt(completions, solution=solution, base=base)
    found = bootstrap(scores, rng=rng, resamples=resamples)
    excluded = {str(k): int(np.isnan(scores.column(f"pass@{k}")).sum()) for k in report_ks(n)}
    intervals = {name: _json(found[name]) if name in found else None for name in PLAIN}
    return {
        "n": n,
        "prompts": len(scores.ids),
        "pass_at_k": {str(k): _json(found[f"pass@{k}"]) for k in report_ks(n)},
        **{name: None if interval is None else interval["value"] for name, interval in intervals.items()},
        "statuses": _statuses(completions),
        "intervals": intervals,
        "retention": None if base is None else _retention_counts(scores),
        "unjudged": sum(not is_judged(c) for c in completions if c.draw >= 0),
        "excluded": {k: prompts for k, prompts in excluded.items() if prompts},
    }


def _draws_per_prompt(completions: Sequence[Completion]) -> int:
    n = 1 + max((c.draw for c in completions), default=-1)
    if n < 1:
        raise DataError("no sampled completion to measure; draw at least one per prompt beside the greedy one")
    return n


def _statuses(completions: Sequence[Completion]) -> dict[str, int]:
    """How often each status occurs among the sampled draws, in the order of STATUSES."""
    seen = Counter(c.verdict.status for c in completions if c.draw >= 0 and c.verdict is not None)
    return {status: seen[status] for status in STATUSES if seen[status]}


def _retention_counts(scores: Scores) -> dict[str, int]:
    keep_P, explore_P = scores.column("keep"), scores.column("explore")
    return {
        "base_solved": int((~np.isnan(keep_P)).sum()),
        "kept": int(np.nansum(keep_P)),
        "base_unsolved": int((~np.isnan(explore_P)).sum()),
        "explored": int(np.nansum(explore_P)),
    }


def _json(interval: Interval) -> dict[str, float | None]:
    values = {"value": interval.value, "low": interval.low, "high": interval.high}
    return {name: None if math.isnan(x) else x for name, x in values.items()}
