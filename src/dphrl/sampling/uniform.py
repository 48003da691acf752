"""One uniform number for each (seed, prompt id, draw, position), from a counter-based hash.

No state is carried from one token to the next, so a run that is resumed, batched otherwise or split over machines
draws the same numbers (the idea of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
"""

from __future__ import annotations

import hashlib

import numpy as np
from jaxtyping import Float64, UInt64

_GOLDEN = 0x9E3779B97F4A7C15


def row_key(seed: int, prompt_id: str, draw: int) -> int:
    """64 bits for one completion: BLAKE2b of its seed, prompt id and draw number."""
    text = f"{seed}\x00{draw}\x00{prompt_id}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def uniforms(keys_B: UInt64[np.ndarray, batch], position: int) -> Float64[np.ndarray, batch]:
    """The uniform numbers in [0, 1) of `position` (tokens already drawn, from 0) for each row key: SplitMix64.

    Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    with np.errstate(over="ignore"):
        z = keys_B + np.uint64((position + 1) * _GOLDEN & 0xFFFFFFFFFFFFFFFF)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53


def row_seed(seed: int, prompt_id: str, draw: int) -> int:
    """A seed for one completion where another engine draws: 63 bits, the widest that servers take."""
    return row_key(seed, prompt_id, draw) >> 1
