"""Majority voting: how often is the most frequent answer among k draws the right one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Float, Int

from dphrl.method.verdict_counts import is_judged, is_right
from dphrl.metrics.intervals import Scores
from dphrl.metrics.pass_at_k import require_ks
from dphrl.types import Completion

Answer = Callable[[str], str | None]
"""Completion text -> what is compared with other completions' answers; None where it gives none."""

SUBSETS = 256
"""Subsets of k draws looked at for each prompt; all of them where there are no more."""


def majority(
    draws: Mapping[str, Iterable[Completion]], answer: Answer, ks: Sequence[int], *, rng: np.random.Generator
) -> Scores:
    """maj@k: the chance that the most frequent answer among k of a prompt's n judged draws is right.

    Each draw votes for its answer; one without an answer does not vote, and where nobody votes nothing is right. A tie
    is broken by chance: of m answers in the lead, each counts 1/m. Without abstentions maj@1 and maj@2 are mean@n.

    Args:
        draws: prompt id -> its sampled completions, verified, in any order.
        answer: equal texts are equal answers.
        ks: as for `pass_at_k`.
        rng: chooses the subsets where a prompt has more than SUBSETS of them; the same ones serve all prompts.
    Returns:
        Metrics maj@k in [0, 1], rows sorted by id: exact where all subsets are looked at (k = 1 and k = n are, up to
        256 draws), else the mean over SUBSETS of them, which is unbiased. NaN where fewer than k draws were judged.
    Raises:
        ValueError: a k below 1.
    Source: self-consistency, arXiv:2203.11171.
    """
    require_ks(ks, max(ks, default=1))
    votes = {i: _votes(completions, answer) for i, completions in draws.items()}
    sizes = sorted({len(codes_N) for codes_N, _ in votes.values()})
    subsets = {(n, k): _subsets(n, k, rng) for n in sizes for k in sorted(ks) if k <= n}
    rows = [
        [_wins(*votes[i], subsets[key]) if (key := (len(votes[i][0]), k)) in subsets else math.nan for k in ks]
        for i in sorted(votes)
    ]
    names = tuple(f"maj@{k}" for k in ks)
    return Scores(tuple(sorted(votes)), names, np.array(rows, dtype=np.float64).reshape(len(rows), len(names)))


def _votes(
    completions: Iterable[Completion], answer: Answer
) -> tuple[Int[np.ndarray, " draws"], Float[np.ndarray, " answers"]]:
    """The answer of each judged draw as a number (as many as there are answers: none), and how often each is right."""
    judged = sorted((c for c in completions if is_judged(c)), key=lambda c: c.draw)
    answers = [answer(c.text) for c in judged]
    numbers = {text: number for number, text in enumerate(dict.fromkeys(a for a in answers if a is not None))}
    codes_N = np.array([len(numbers) if a is None else numbers[a] for a in answers], dtype=np.int64)
    right_N = np.array([is_right(c) for c in judged], dtype=np.float64)
    times_A = np.bincount(codes_N, minlength=len(numbers))[: len(numbers)]
    right_A = np.bincount(codes_N, weights=right_N, minlength=len(numbers))[: len(numbers)] / np.maximum(times_A, 1)
    return codes_N, right_A


def _subsets(n: int, k: int, rng: np.random.Generator) -> Int[np.ndarray, "subsets k"]:
    if math.comb(n, k) <= SUBSETS:
        return np.array(list(combinations(range(n), k)), dtype=np.int64)
    return rng.permuted(np.tile(np.arange(n), (SUBSETS, 1)), axis=1)[:, :k]


def _wins(
    codes_N: Int[np.ndarray, " draws"], right_A: Float[np.ndarray, " answers"], subsets_SK: Int[np.ndarray, "subsets k"]
) -> float:
    """Mean over the subsets of how right the answers in the lead are."""
    answers = len(right_A)
    if answers == 0:
        return 0.0
    if answers == 1 and (codes_N == 0).all():
        return float(right_A[0])
    rows = len(subsets_SK)
    places = codes_N[subsets_SK] + (answers + 1) * np.arange(rows)[:, None]
    counts_SA = np.bincount(places.ravel(), minlength=rows * (answers + 1)).reshape(rows, answers + 1)[:, :answers]
    most_S1 = counts_SA.max(axis=1, keepdims=True)
    lead_SA = (counts_SA == most_S1) & (most_S1 > 0)
    return float(((lead_SA @ right_A) / np.maximum(lead_SA.sum(axis=1), 1)).mean())
