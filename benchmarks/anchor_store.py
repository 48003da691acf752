"""Opening a store of synthetic anchors and reading random steps of 32 from it, as the trainer does. Two JSON lines.

    python benchmarks/anchor_store.py [--anchors 1000000] [--tokens 200] [--topk 0]

Completions have --tokens on average (half to one and a half of it), prompts half as many. The store is read in a
process of its own. `rss_mb` is its peak resident memory, mapped pages counted, above that of a Python that has
imported nothing; `imports_mb` is the part that numpy, pyarrow and dphrl.anchors take before a store is open,
`anon_mb` the anonymous memory at the end (no mapped pages), above the same Python's. `order_s` is the shuffle that
each pass over the store costs once. `tokens_per_s` counts completion tokens read from the page cache, and
`tokens_per_cpu_s` the same by processor time, which other programs on the machine change less;
`cold_tokens_per_s` are those read after the files were dropped from the page cache. `verify_s` is
`open_store(check="full")`. The first line tells what sealing took and the peak memory of the process that wrote.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

STEP = 32
SECONDS = 5.0
PART = 512


def memory() -> dict[str, float]:
    """Resident memory of this process in MB: now, anonymous alone, and its peak."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(lines[name].split()[0]) * 1024 / 1e6 for name in ("VmRSS", "RssAnon", "VmHWM")}


def write(folder: Path, total: int, mean: int, topk: int) -> dict[str, float]:
    """A sealed store of random anchors, added 512 at a time, as scoring does."""
    import numpy as np

    from dphrl.anchors import StoreWriter
    from dphrl.types import Anchor

    rng = np.random.default_rng(0)

    def anchor(number: int) -> Anchor:
        prompt, completion = (int(rng.integers(n - n // 2, n + n // 2 + 1)) for n in (mean // 2, mean))
        ids = tuple(rng.integers(0, 150_000, prompt).tolist()), tuple(rng.integers(0, 150_000, completion).tolist())
        logps = tuple((-rng.exponential(0.5, completion)).astype(np.float32).tolist())
        top: tuple[Any, ...] = ()
        if topk:
            likeliest = rng.integers(0, 150_000, (completion, topk)).tolist()
            top = tuple(map(tuple, likeliest)), tuple(logps[i : i + 1] * topk for i in range(completion))
        return Anchor(f"prompt-{number}", *ids, logps, "task", 0, *top)

    writer = StoreWriter(folder, {"weights": "synthetic"}, {}, topk)
    for first in range(0, total, PART):
        writer.add([anchor(i) for i in range(first, min(total, first + PART))])
    began = time.perf_counter()
    writer.seal()
    return {"seal_s": round(time.perf_counter() - began, 2), "write_peak_mb": round(memory()["VmHWM"], 1)}


def read(folder: Path) -> dict[str, float]:
    """Everything measured: in a fresh process."""
    bare = memory()
    import numpy as np  # noqa: F401
    import pyarrow as pa  # noqa: F401

    from dphrl.anchors import open_store
    from dphrl.method.anchor_order import AnchorOrder

    imported = memory()
    began = time.perf_counter()
    store = open_store(folder, {"weights": "synthetic"})
    open_s = time.perf_counter() - began

    began = time.perf_counter()
    order = AnchorOrder(len(store), 0)
    order.step(0, STEP)
    order_s = time.perf_counter() - began

    def rates(first: int) -> tuple[int, int]:
        began, cpu, tokens, step = time.perf_counter(), time.process_time(), 0, first
        while time.perf_counter() - began < SECONDS:
            indices = order.step(step, STEP)
            batch = [store[int(i)] for i in indices]
            assert sum(len(a.completion_ids) for a in batch) == int(store.lengths[indices].sum())
            tokens += sum(len(a.completion_ids) for a in batch)
            step += 1
        return round(tokens / (time.perf_counter() - began)), round(tokens / (time.process_time() - cpu))

    warm, by_cpu = rates(0)
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    cold, _ = rates(len(store) // STEP // 2)
    end = memory()
    size = sum(p.stat().st_size for p in folder.iterdir())
    began = time.perf_counter()
    open_store(folder, None, check="full")
    return {
        "anchors": len(store),
        "open_s": round(open_s, 4),
        "rss_mb": round(end["VmHWM"] - bare["VmRSS"], 1),
        "tokens_per_s": warm,
        "tokens_per_cpu_s": by_cpu,
        "cold_tokens_per_s": cold,
        "anon_mb": round(end["RssAnon"] - bare["RssAnon"], 1),
        "order_s": round(order_s, 3),
        "imports_mb": round(imported["VmRSS"] - bare["VmRSS"], 1),
        "store_mb": round(size / 1e6),
        "shards": len(store.files),
        "verify_s": round(time.perf_counter() - began, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--anchors", type=int, default=1_000_000, help="how many, >= 1 (default: 1000000)")
    parser.add_argument("--tokens", type=int, default=200, help="mean length of a completion, >= 4 (default: 200)")
    parser.add_argument("--topk", type=int, default=0, help="likeliest tokens stored at each position (default: 0)")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        print(json.dumps(read(options.read)))
        return
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(write(Path(folder), options.anchors, options.tokens, options.topk)))
        os.sync()  # pages still to be written cannot be dropped from the page cache
        subprocess.run([sys.executable, __file__, "--read", folder], check=True)


if __name__ == "__main__":
    main()
