"""Which anchors belong to which optimiser step: a pure function of (seed, step, micro-batch, rank), so a run that
is resumed, accumulated otherwise or spread over other ranks sees the same anchors at the same step."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Int64, Integer

MOST_TOGETHER = 8
"""Anchors of one prompt that follow one another at most, unless told otherwise."""


class AnchorOrder:
    """One endless stream of shuffled passes over the anchors of a store.

    Args:
        total: anchors in the store, >= 1.
        seed: of the shuffles.
        prompts: number of each anchor's prompt; needed where `together` is above 1.
        together: anchors of one prompt that follow one another, where it has so many: what they share is read once.
    """

    def __init__(
        self, total: int, seed: int, prompts: Integer[np.ndarray, total] | None = None, together: int = 1
    ) -> None:
        self._total, self._seed, self._prompts, self._together = total, seed, prompts, together
        self._pass = lru_cache(maxsize=1)(self._order_of)  # a pass is many steps long

    def step(self, step: int, per_step: int) -> Int64[np.ndarray, per_step]:
        """Indices of the anchors of one optimiser step, in 0..total-1; each is used once before any is used again.

        Args:
            step: optimiser step, from 0.
            per_step: anchors of a step, >= 1; more than there are is fine, they come round more often.
        """
        positions = np.arange(step * per_step, (step + 1) * per_step)
        passes, places = np.divmod(positions, self._total)
        indices = np.empty(per_step, dtype=np.int64)
        for number in np.unique(passes):
            indices[passes == number] = self._pass(int(number))[places[passes == number]]
        return indices

    def _order_of(self, number: int) -> Integer[np.ndarray, total]:
        """The order of one pass; in 32 bits it is the same at half the memory (40 MB for 1e7 anchors)."""
        order = np.arange(self._total, dtype=np.int32 if self._total < 2**31 else np.int64)
        np.random.default_rng([self._seed, number]).shuffle(order)
        if self._together == 1 or self._prompts is None:
            return order
        return order[np.argsort(_first_places(self._prompts[order], self._together), kind="stable")]


def _first_places(prompts: Integer[np.ndarray, total], size: int) -> Int64[np.ndarray, total]:
    """For each place of an order the first place of its bundle: each prompt's places, `size` at a time."""
    places = np.argsort(prompts, kind="stable")
    grouped = prompts[places]
    begins = np.flatnonzero(np.r_[True, grouped[1:] != grouped[:-1]])
    rank = np.arange(len(grouped)) - np.repeat(begins, np.diff(np.r_[begins, len(grouped)]))
    bundle = np.flatnonzero(rank % size == 0)
    firsts = np.empty(len(grouped), dtype=np.int64)
    firsts[places] = np.repeat(places[bundle], np.diff(np.r_[bundle, len(grouped)]))
    return firsts


def together_by_length(prompt_tokens: float, completion_tokens: float) -> int:
    """Anchors of one prompt that should follow one another: as many as a prompt is longer than a completion.

    Short prompts cost little, so that anchors of a step come from as many prompts as they can; long ones are read once
    for up to `MOST_TOGETHER` anchors.

    Args: mean lengths of the store (tokens).
    """
    return max(1, min(MOST_TOGETHER, round(prompt_tokens / max(1.0, completion_tokens))))


def share_bundles(
    indices: Int64[np.ndarray, per_step],
    prompts: Integer[np.ndarray, per_step],
    *,
    micro: int,
    micros: int,
    rank: int,
    ranks: int,
) -> Int64[np.ndarray, some]:
    """As `share`, but consecutive anchors of one prompt stay in one micro-batch, which may leave others without any.

    Ranks, which wait for one another, have equally many.
    """
    own = np.array_split(np.arange(len(indices)), ranks)[rank]
    bundle = np.cumsum(np.r_[0, prompts[own][1:] != prompts[own][:-1]]) if len(own) else own
    chosen: Int64[np.ndarray, some] = indices[own[bundle % micros == micro]]
    return chosen


def share(
    indices: Int64[np.ndarray, per_step], *, micro: int, micros: int, rank: int, ranks: int
) -> Int64[np.ndarray, some]:
    """The part of a step's anchors that one micro-batch on one rank works on; the parts cover the step, disjointly.

    With fewer anchors than micro-batches x ranks the last of these have none.
    """
    return indices[micro * ranks + rank :: micros * ranks]
