"""Every metric of every prompt of one evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from dphrl.errors import DataError
from dphrl.method.verdict_counts import by_draw, count
from dphrl.metrics.diversity import style_diversity
from dphrl.metrics.intervals import Scores, join_scores
from dphrl.metrics.lengths import lengths
from dphrl.metrics.pass_at_k import greedy, mean_at_n, pass_at_k, report_ks, require_ks
from dphrl.metrics.retention import retention, retention_at
from dphrl.metrics.voting import Answer, majority
from dphrl.types import STATUSES, Completion

VOTES_SEED = 0
"""Of the subsets that maj@k looks at: the same for every model, so that comparisons are not of subsets."""


def per_prompt(
    completions: Sequence[Completion],
    *,
    solution: Callable[[str], str],
    base: Sequence[Completion] | None = None,
    ks: Sequence[int] | None = None,
    answer: Answer | None = None,
) -> Scores:
    """Every metric of every prompt of one evaluation: what intervals and paired comparisons are made of.

    Args:
        completions: of all prompts, in any order, verified: draws 0 .. n-1, the same n for all, and a greedy one for
            all prompts or none.
        solution: completion text -> canonical form, for the style metrics.
        base: the base model's completions of the same prompts with the same n; adds keep and explore.
        ks: the k of pass@k, maj@k, keep@k and explore@k, each 1 .. n; `report_ks(n)` when None.
        answer: completion text -> what majority voting compares; adds maj@k.
    Returns:
        Metrics greedy, mean_at_n, pass@1 .. pass@n, distinct_correct, style_entropy, tokens, truncated, no_answer,
        [maj@1 .. maj@n], [keep, explore, keep@1 .. explore@n]; rows sorted by id. An unjudged draw leaves the n of its
        prompt; a prompt with fewer than k judged draws is NaN at pass@k.
    Raises:
        DataError: doubled, missing or unverified completions, none judged, or a base of other prompts or another n.
        ValueError: a k out of range.
    """
    n = draws_per_prompt(completions)
    wanted = report_ks(n) if ks is None else tuple(ks)
    require_ks(wanted, n)
    counts = count(completions, n=n)
    ids = tuple(sorted(counts))
    n_P = np.array([counts[i].judged for i in ids])
    c_P = np.array([counts[i].successes for i in ids])
    most = int(n_P.max())
    if most == 0:
        raise DataError(f"no completion could be judged ({status_counts(completions)}); mend the verifier or its data")
    passed_PK = np.full((len(ids), len(wanted)), np.nan)
    known = [column for column, k in enumerate(wanted) if k <= most]  # beyond it no prompt has an estimate
    passed_PK[:, known] = pass_at_k(n_P, c_P, [wanted[column] for column in known])
    accuracy = greedy(completions)
    plain_P2 = np.stack([[accuracy[i] for i in ids], mean_at_n(n_P, c_P)], axis=1)
    sampled = {i: [c for draw, c in draws.items() if draw >= 0] for i, draws in by_draw(completions).items()}
    parts = [
        Scores(ids, ("greedy", "mean_at_n"), plain_P2),
        Scores(ids, tuple(f"pass@{k}" for k in wanted), passed_PK),
        style_diversity(sampled, solution),
        lengths(sampled),
    ]
    if answer is not None:
        parts.append(majority(sampled, answer, wanted, rng=np.random.default_rng(VOTES_SEED)))
    if base is not None:
        before = count(base, n=draws_per_prompt(base))
        parts += [retention(before, counts), retention_at(before, counts, wanted)]
    return join_scores(parts)


def draws_per_prompt(completions: Iterable[Completion]) -> int:
    """n, the sampled completions of each prompt, by the highest draw number.

    Raises:
        DataError: there is none.
    """
    n = 1 + max((c.draw for c in completions), default=-1)
    if n < 1:
        raise DataError("no sampled completion to measure; draw at least one per prompt beside the greedy one")
    return n


def status_counts(completions: Iterable[Completion]) -> dict[str, int]:
    """How often each status occurs among the sampled draws, in the order of STATUSES."""
    seen = Counter(c.verdict.status for c in completions if c.draw >= 0 and c.verdict is not None)
    return {status: seen[status] for status in STATUSES if seen[status]}
