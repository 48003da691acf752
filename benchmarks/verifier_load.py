"""What items that take too long cost a batch, and how much a math worker's memory grows.

    python benchmarks/verifier_load.py                  1,000 completions, 5 % of which never end; 20,000 golds
    python benchmarks/verifier_load.py --before         whole deadlines for all, as without docs/decisions/0061: minutes

One JSON line: for math and SQL the seconds of a batch without slow items and with them, their ratio, the share of CPU
time that went into items that were given up, and the same for the next batch, which brings the same texts again; for
math the largest memory of a worker over 20,000 different golds, and what it had after the first batch.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from dphrl.types import Item
from dphrl.verifiers import load_verifier
from dphrl.verifiers.math.verify_math import MATH_WORKER
from dphrl.verifiers.workers import pool, slow_items

ITEMS = 1_000
EVERY = 20
"""Each such item of a batch is slow."""
GOLDS = 20_000
BATCH = 500


def math_item(number: int, slow: bool) -> Item:
    gold = rf"x^2+{number}x+\sqrt{{{number + 2}}}"
    if slow:  # a sum of so many names that comparing it takes minutes
        return {"gold": gold, "completion": rf"\boxed{{{'+'.join(f'x_{{{number + i}}}' for i in range(150))}}}"}
    return {"gold": gold, "completion": rf"\boxed{{\sqrt{{{number + 2}}} + x({number}+x)}}"}


def root_item(number: int) -> Item:
    return {"gold": rf"\sqrt{{{number}}}", "completion": rf"\boxed{{{number}^{{1/2}}}}"}


def sql_item(number: int, slow: bool, db: str) -> Item:
    gold = f"SELECT count(*), {number} FROM t JOIN t AS u ON u.a = t.a + 1"
    bomb = f"WITH RECURSIVE r(n) AS (SELECT {number} UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r"
    return {"gold": gold, "db": db, "completion": bomb if slow else f"{gold} WHERE t.a >= 0"}


def measured(verifier: str, item: Callable[[int, bool], Item]) -> dict[str, float]:
    """Batches without slow items, with them, and with the same slow ones again."""
    verify = load_verifier(verifier, {})
    verify([item(number, False) for number in range(2 * ITEMS, 2 * ITEMS + BATCH)])  # starts the workers
    result: dict[str, float] = {}
    for name, shift, slow in (("plain", 0, False), ("slow", ITEMS, True), ("again", ITEMS, True)):
        items = [item(number + shift, slow and number % EVERY == 0) for number in range(ITEMS)]
        before, began = pool.spent_so_far(), time.perf_counter()
        verdicts = verify(items)
        result[f"{name}_s"] = round(time.perf_counter() - began, 2)
        result[f"{name}_timeout_share"] = round((pool.spent_so_far() - before).timeout_share, 3)
        result[f"{name}_correct"] = sum(verdict.correct for verdict in verdicts)
    result["slow_over_plain"] = round(result["slow_s"] / result["plain_s"], 1)
    return result


def resident_mb(pids: Sequence[int]) -> float:
    pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids]
    return round(max(pages) * 4096 / 1e6, 1)


def growth() -> dict[str, float]:
    """Memory of the larger worker, over many golds that differ."""
    verify = load_verifier("math", {})
    sizes = []
    for start in range(0, GOLDS, BATCH):
        verify([root_item(10_000 + number) for number in range(start, start + BATCH)])
        sizes.append(resident_mb(pool.pool_of(MATH_WORKER).pids))
    return {"first_mb": sizes[0], "most_mb": max(sizes), "last_mb": sizes[-1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", action="store_true", help="whole deadlines for all items of a batch")
    options = parser.parse_args()
    if options.before:
        pool.SMALL = slow_items.SMALL = ITEMS
    with tempfile.TemporaryDirectory() as folder:
        db = str(Path(folder, "load.sqlite"))
        with closing(sqlite3.connect(db)) as connection:
            connection.executescript("CREATE TABLE t(a INTEGER PRIMARY KEY);")
            connection.executemany("INSERT INTO t VALUES (?)", [(number,) for number in range(3_000)])
            connection.commit()
        result = {
            "math": measured("math", math_item),
            "sql": measured("sql", lambda number, slow: sql_item(number, slow, db)),
            "memory": growth(),
        }
    print(json.dumps({"items": ITEMS, "slow": ITEMS // EVERY, "workers": pool.default_workers(), **result}))


if __name__ == "__main__":
    main()
