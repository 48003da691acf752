"""How fast training goes and where its time went, from counters; nothing on a GPU is waited for before the next log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

PARTS = ("generation", "verification", "anchor")
"""What is timed; the rest of a step is the rollouts' own forward and backward, the optimiser, saving."""


class Stopwatch:
    """Seconds by part and tokens by kind since the last reading, on this process."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._since: float | None = None
        self._reset()

    def _reset(self) -> None:
        self._seconds = dict.fromkeys(PARTS, 0.0)
        self._queued: list[tuple[str, Any, Any]] = []
        self.drawn = 0
        """Completion tokens."""
        self.anchors = 0
        """Tokens of anchors, prompts included."""
        self.trained: Tensor = torch.zeros((), device=self._device)
        """Tokens of rollouts that went forward and backward, prompts included; read at the next log alone."""

    @property
    def running(self) -> bool:
        """Whether training has begun; what is measured before it does not count."""
        return self._since is not None

    def start(self) -> None:
        """Begin with the first step and forget what was measured before; later calls change nothing."""
        if self._since is None:
            self._reset()
            self._since = time.perf_counter()

    @contextmanager
    def on_host(self, part: str) -> Iterator[None]:
        """Time what ends with its results in the host's memory."""
        began = time.perf_counter()
        yield
        self._seconds[part] += time.perf_counter() - began

    @contextmanager
    def on_device(self, part: str) -> Iterator[None]:
        """Time what is only queued on a GPU: two marks in its queue, read at the next log."""
        if self._device.type != "cuda":
            with self.on_host(part):
                yield
            return
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        first.record()
        yield
        last.record()
        self._queued.append((part, first, last))

    def read(self) -> Tensor:
        """[elapsed s, s of each of PARTS, drawn, trained and anchors' tokens], and start again from 0."""
        now = time.perf_counter()
        for part, first, last in self._queued:
            last.synchronize()
            self._seconds[part] += first.elapsed_time(last) / 1e3
        elapsed = now - (now if self._since is None else self._since)
        numbers = [elapsed, *self._seconds.values(), float(self.drawn), self.trained.item(), float(self.anchors)]
        self._reset()
        self._since = now
        return torch.tensor(numbers, device=self._device, dtype=torch.float32)


def throughput(numbers_RN: Tensor) -> dict[str, float]:
    """Metrics of one reading of every rank: tokens of all of them, over their mean time.

    Args:
        numbers_RN: a row of `Stopwatch.read` for each rank.
    Returns:
        Tokens a second and shares of the time, by their names in docs/metrics.md; empty when no time has gone by.
    """
    elapsed, *parts = numbers_RN[:, : 1 + len(PARTS)].mean(0).tolist()
    drawn, trained, anchors = numbers_RN[:, 1 + len(PARTS) :].sum(0).tolist()
    if elapsed <= 0:
        return {}
    seconds = dict(zip(PARTS, parts, strict=True))
    training = elapsed - seconds["generation"] - seconds["verification"]
    speeds = {"rollout": (drawn, seconds["generation"]), "train": (trained + anchors, training)}
    speeds["anchor"] = (anchors, training)
    return {
        **{f"throughput/{name}_tokens_per_s": n / s for name, (n, s) in speeds.items() if n > 0 and s > 0},
        **{f"throughput/{part}_share": s / elapsed for part, s in seconds.items() if part != "anchor" or anchors},
    }
