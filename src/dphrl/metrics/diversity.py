"""Solution-style diversity: in how many ways does a model solve the same prompt."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from dphrl.method.verdict_counts import is_judged, is_right
from dphrl.metrics.intervals import Scores
from dphrl.types import Completion


def solution_forms(completions: Iterable[Completion], solution: Callable[[str], str]) -> Counter[str]:
    """How often each canonical form occurs among the right completions.

    Args:
        completions: verified draws of one prompt.
        solution: completion text -> canonical form; called once for each distinct right text.
    """
    texts = Counter(completion.text for completion in completions if is_right(completion))
    times_by_form: Counter[str] = Counter()
    for text, times in texts.items():
        times_by_form[solution(text)] += times
    return times_by_form


def entropy(counts: Mapping[str, int]) -> float:
    """Entropy of the shares of the counts, in nats: 0 for one form, ln m for m equally frequent ones, NaN for none.

    The plug-in estimate of the draws at hand: compare models at the same number of draws only.
    """
    total = sum(counts.values())
    # fsum rounds once, so the order of the completions does not show.
    return math.fsum(c / total * math.log(total / c) for c in counts.values()) if total else math.nan


def style_diversity(draws: Mapping[str, Iterable[Completion]], solution: Callable[[str], str]) -> Scores:
    """Distinct right solutions of every prompt, and their entropy.

    Args:
        draws: prompt id -> its sampled completions, verified (no greedy one: it is no draw of the policy).
        solution: completion text -> canonical form.
    Returns:
        Metrics, rows sorted by id: `distinct_correct`, the number of forms among right completions, 0 where none is
        right, NaN where none was judged; `style_entropy`, their entropy in nats, NaN where none is right.
    """
    rows = []
    for prompt_id in sorted(draws):
        completions = list(draws[prompt_id])
        times_by_form = solution_forms(completions, solution)
        distinct = float(len(times_by_form)) if any(map(is_judged, completions)) else math.nan
        rows.append((distinct, entropy(times_by_form)))
    values_PM = np.array(rows, dtype=np.float64).reshape(len(rows), 2)
    return Scores(tuple(sorted(draws)), ("distinct_correct", "style_entropy"), values_PM)
