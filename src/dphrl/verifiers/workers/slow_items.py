"""What items that take long may cost the others of their batch. Pure: no processes, no clock.

docs/decisions/0061-verifier-load.md says why it is so.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SMALL = 16
"""Items of the largest batch in which every item has the whole deadline, whatever the others take."""
LEAST = 1 / 40
"""Share of the deadline that every item of a larger batch has at once; one that needs more is put off to the batch's
end."""
ALLOWED = 2.0
"""Whole deadlines that the items put off may take between them, however quick the rest of the batch was."""
FURTHER = 2.0
"""How much longer a deadline must be than one that an item did not keep before, for the item to be tried again."""
REMEMBERED = 20_000
"""Items that took too long which a pool remembers, 16 bytes each and their seconds."""


@dataclass(frozen=True, slots=True)
class Spent:
    """CPU seconds of workers."""

    finished_s: float = 0.0
    """On items that were judged."""
    timeouts_s: float = 0.0
    """On items that were given up."""

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.finished_s + other.finished_s, self.timeouts_s + other.timeouts_s)

    def __sub__(self, other: Spent) -> Spent:
        return Spent(self.finished_s - other.finished_s, self.timeouts_s - other.timeouts_s)

    @property
    def timeout_share(self) -> float:
        """Share of the time that went into items that were given up, 0..1."""
        whole = self.finished_s + self.timeouts_s
        return self.timeouts_s / whole if whole > 0 else 0.0


def deadline_of_slow(count: int, cpu_s: float, finished_s: float) -> float:
    """CPU seconds each of the items put off may take.

    Args:
        count: items that were put off, >= 1.
        cpu_s: the whole deadline, > 0.
        finished_s: what the rest of the batch took, >= 0.
    Returns:
        Their equal share of what the rest took or of `ALLOWED` deadlines, whichever is more; at most the deadline.
    """
    return min(cpu_s, max(ALLOWED * cpu_s, finished_s) / count)


def worth_trying(deadline_s: float, cpu_s: float, exceeded_s: float) -> bool:
    """Whether an item that did not keep one deadline is given another one, of `cpu_s` at most."""
    if deadline_s >= cpu_s:
        return exceeded_s < cpu_s
    return deadline_s >= FURTHER * exceeded_s


class TooSlow:
    """The latest items that took too long, and how many CPU seconds each was given at most."""

    def __init__(self, most: int = REMEMBERED) -> None:
        self._most = most
        self._seconds: OrderedDict[bytes, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._seconds)

    def exceeded(self, key: bytes) -> float:
        """CPU seconds that were not enough for an item, 0 for one that is not known."""
        if key in self._seconds:
            self._seconds.move_to_end(key)
        return self._seconds.get(key, 0.0)

    def put(self, key: bytes, seconds: float) -> None:
        """Remember that these were not enough."""
        self._seconds[key] = max(seconds, self._seconds.pop(key, 0.0))
        while len(self._seconds) > self._most:
            self._seconds.popitem(last=False)


def key_of(item: Any, settings: Mapping[str, Any]) -> bytes:
    """What an item is known by: its text and the settings it is judged by."""
    return hashlib.blake2b(json.dumps([item, settings]).encode(), digest_size=16).digest()
