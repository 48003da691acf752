"""Which anchors belong to which optimiser step: a pure function of (seed, step, micro-batch, rank), so a run that
is resumed, accumulated otherwise or spread over other ranks sees the same anchors at the same step."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Int64, Integer


def step_anchors(total: int, per_step: int, *, seed: int, step: int) -> Int64[np.ndarray, per_step]:
    """Indices of the anchors of one optimiser step: a slice of one endless stream of shuffled passes.

    Args:
        total: anchors in the store, >= 1; fewer than `per_step` is fine, they come round more often.
        per_step: anchors of a step, >= 1.
        step: optimiser step, from 0.
    Returns:
        `per_step` indices in 0..total-1; each anchor is used once before any is used again.
    """
    positions = np.arange(step * per_step, (step + 1) * per_step)
    passes, places = np.divmod(positions, total)
    indices = np.empty(per_step, dtype=np.int64)
    for number in np.unique(passes):
        indices[passes == number] = _pass_order(seed, int(number), total)[places[passes == number]]
    return indices


@lru_cache(maxsize=1)
def _pass_order(seed: int, number: int, total: int) -> Integer[np.ndarray, total]:
    """The order of one pass. The latest is kept: a pass is many steps long, and at 1e7 anchors a shuffle takes most
    of a second; in 32 bits it is the same order at half the memory (40 MB)."""
    kind = np.int32 if total < 2**31 else np.int64
    order = np.arange(total, dtype=kind)
    np.random.default_rng([seed, number]).shuffle(order)
    return order


def share(
    indices: Int64[np.ndarray, per_step], *, micro: int, micros: int, rank: int, ranks: int
) -> Int64[np.ndarray, some]:
    """The part of a step's anchors that one micro-batch on one rank works on; the parts cover the step, disjointly.

    With fewer anchors than micro-batches x ranks the last of these have none.
    """
    return indices[micro * ranks + rank :: micros * ranks]
