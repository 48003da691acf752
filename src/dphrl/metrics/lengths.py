"""How long completions are, how many are cut off, how many give no answer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from dphrl.method.verdict_counts import is_judged
from dphrl.metrics.intervals import Scores
from dphrl.types import Completion


def lengths(draws: Mapping[str, Iterable[Completion]]) -> Scores:
    """Length and end of the sampled completions of every prompt.

    Args:
        draws: prompt id -> its sampled completions, verified (no greedy one).
    Returns:
        Metrics, rows sorted by id: `tokens`, mean length (tokens, the end token included), NaN where token ids are not
        known; `truncated`, share cut at the token limit; `no_answer`, share of the judged ones in which no answer was
        found, NaN where none was judged.
    """
    rows = []
    for prompt_id in sorted(draws):
        completions = list(draws[prompt_id])
        judged = [c for c in completions if is_judged(c)]
        silent = sum(c.verdict is not None and c.verdict.status == "no_answer" for c in judged)
        cut = sum(c.finish_reason == "length" for c in completions)
        rows.append((_mean_length(completions), _share(cut, len(completions)), _share(silent, len(judged))))
    values_PM = np.array(rows, dtype=np.float64).reshape(len(rows), 3)
    return Scores(tuple(sorted(draws)), ("tokens", "truncated", "no_answer"), values_PM)


def p90(completions: Iterable[Completion]) -> float | None:
    """The length that nine in ten sampled completions do not exceed (tokens); None where token ids are not known."""
    known = [len(c.token_ids) for c in completions if c.draw >= 0 and c.token_ids]
    return float(np.quantile(known, 0.9, method="inverted_cdf")) if known else None


def _mean_length(completions: Iterable[Completion]) -> float:
    known = [len(c.token_ids) for c in completions if c.token_ids]  # a drawn completion has one token at least
    return _share(sum(known), len(known))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
