"""Seconds for a gigabyte (1e9 bytes) of a checkpoint: checksums of its files, and of weights in memory.

python benchmarks/checkpoint_checksums.py
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from dphrl.engines.common.weights_check import weight_digests
from dphrl.runs.checkpoints import checksums

PIECE = 1 << 28
"""Bytes of a file or weight; there are 4."""


def seconds_for_a_gigabyte(work: Callable[[], object]) -> float:
    """The best of 5."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times) / (4 * PIECE / 1e9)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for i in range(4):
            (folder / f"{i}").write_bytes(os.urandom(PIECE))
        print(f"files, just written: {seconds_for_a_gigabyte(lambda: checksums(folder)):.2f} s/GB")
    model = torch.nn.Sequential(*(torch.nn.Linear(1 << 13, 1 << 13, bias=False) for _ in range(4)))
    print(f"weights in memory: {seconds_for_a_gigabyte(lambda: weight_digests(model)):.2f} s/GB")


if __name__ == "__main__":
    main()
