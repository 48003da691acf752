"""The summary of one evaluation: what `eval/MODEL/summary.json` says of one task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dphrl.method.partition import count, is_judged
from dphrl.metrics.bands import bands
from dphrl.metrics.intervals import RESAMPLES, Interval, Scores, bootstrap, widened
from dphrl.metrics.lengths import p90
from dphrl.metrics.pass_at_k import report_ks
from dphrl.metrics.per_prompt import draws_per_prompt, per_prompt, statuses
from dphrl.metrics.voting import Answer
from dphrl.types import Completion

PLAIN = ("greedy", "mean_at_n", "keep", "explore", "distinct_correct", "style_entropy")
"""Metrics that a summary gives as one number, their intervals apart."""
AT_K = {"pass_at_k": "pass@{k}", "maj_at_k": "maj@{k}", "keep_at_k": "keep@{k}", "explore_at_k": "explore@{k}"}
"""Key of a summary -> metric of `per_prompt` at each k."""
NO_RATES = frozenset({"distinct_correct", "style_entropy", "tokens"})
"""Metrics that do not lie in 0..1."""


def summarise(
    completions: Sequence[Completion],
    *,
    base: Sequence[Completion] | None = None,
    solution: Callable[[str], str],
    answer: Answer | None = None,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """The summary of one evaluation, ready for JSON: the caller adds dataset, model, speed and drift.

    Args:
        completions, base, solution, answer: as for `per_prompt`.
        rng, resamples: as for `bootstrap`.
    Returns:
        The keys of docs/evaluation.md but for those of the caller. An interval is {value, low, high}, over prompts;
        that of a rate has a width also where all prompts agree (`widened`). A number that cannot be known is None,
        never 0 or NaN.
    Raises:
        DataError: as `per_prompt`.
        ValueError: resamples out of range.
    """
    n = draws_per_prompt(completions)
    scores = per_prompt(completions, solution=solution, base=base, answer=answer)
    levels = intervals_of(scores, rng=rng, resamples=resamples)
    plain = {name: levels[name].as_json() if name in levels else None for name in PLAIN}
    excluded = {str(k): int(np.isnan(scores.column(f"pass@{k}")).sum()) for k in report_ks(n)}
    ninth = p90(completions)
    return {
        "n": n,
        "prompts": len(scores.ids),
        **{key: _at_ks(levels, form, n) for key, form in AT_K.items()},
        **{name: None if interval is None else interval["value"] for name, interval in plain.items()},
        "length": None if ninth is None else {"mean": levels["tokens"].as_json(), "p90": ninth},
        **{name: levels[name].as_json() for name in ("truncated", "no_answer")},
        "statuses": statuses(completions),
        "intervals": plain,
        "bands": None if base is None else bands(scores, count(base, n=n), n, rng=rng, resamples=resamples),
        "retention": None if base is None else _retention_counts(scores),
        "unjudged": sum(not is_judged(c) for c in completions if c.draw >= 0),
        "excluded": {k: prompts for k, prompts in excluded.items() if prompts},
    }


def intervals_of(scores: Scores, *, rng: np.random.Generator, resamples: int = RESAMPLES) -> dict[str, Interval]:
    """`bootstrap`, with `widened` intervals of the rates.

    Args:
        scores: metrics as `per_prompt` names them.
        rng, resamples: as for `bootstrap`.
    """
    found, sizes = bootstrap(scores, rng=rng, resamples=resamples), scores.sizes()
    return {
        name: widened(level, sizes[name]) if name not in NO_RATES and sizes[name] else level
        for name, level in found.items()
    }


def _at_ks(levels: dict[str, Interval], form: str, n: int) -> dict[str, Any] | None:
    found = {str(k): levels[form.format(k=k)].as_json() for k in report_ks(n) if form.format(k=k) in levels}
    return found or None


def _retention_counts(scores: Scores) -> dict[str, int]:
    keep_P, explore_P = scores.column("keep"), scores.column("explore")
    return {
        "base_solved": int((~np.isnan(keep_P)).sum()),
        "kept": int(np.nansum(keep_P)),
        "base_unsolved": int((~np.isnan(explore_P)).sum()),
        "explored": int(np.nansum(explore_P)),
    }
