"""Where the SQL verifier is used from: data loaders, ranks, a process without standard streams; and kill -9."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from dphrl.verifiers.sql.verify_sql import QUERY_WORKER, verify_sql
from dphrl.verifiers.workers.pool import TRIES, pool_of

SOURCE = Path(__file__).parents[3] / "src"


@pytest.fixture
def db(tmp_path: Path) -> Path:
    path = tmp_path / "x.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE t(a); INSERT INTO t VALUES (1), (2), (3);")
    return path


def run_script(folder: Path, script: str, *arguments: object, command: tuple[str, ...] = ()) -> str:
    """Output of a Python script that lies in a folder; it must end well."""
    path = folder / "script.py"
    path.write_text(script)
    done = subprocess.run(
        [sys.executable, *command, str(path), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", "TMPDIR": str(folder)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_sql_workers_killed_in_mid_batch_lose_no_verdict(db: Path) -> None:
    """kill -9 of real workers while a batch runs; once less than what would blame an item."""
    values = [(i * 7) % 5 for i in range(3_000)]
    items = [
        {"gold": "SELECT count(*) FROM t", "db": str(db), "completion": f"SELECT {value} /* {i} */"}
        for i, value in enumerate(values)
    ]
    verify_sql(items[:16], workers=2)
    done = threading.Event()
    killed: set[int] = set()

    def kill() -> None:
        while len(killed) < TRIES - 1 and not done.is_set():
            for pid in pool_of(QUERY_WORKER).pids[:1]:
                if pid not in killed:
                    os.kill(pid, signal.SIGKILL)
                    killed.add(pid)

    with ThreadPoolExecutor(1) as threads:
        killer = threads.submit(kill)
        verdicts = verify_sql(items, workers=2)
        done.set()
        killer.result()
    assert killed and not killed & set(pool_of(QUERY_WORKER).pids)
    assert [verdict.status for verdict in verdicts] == ["correct" if value == 3 else "wrong" for value in values]


CLOSED = """
import os, sys
os.closerange(0, 3)
from dphrl.verifiers.workers.pool import pool_of
from dphrl.verifiers.sql.verify_sql import QUERY_WORKER, verify_sql
item = {"gold": "SELECT a FROM t", "db": sys.argv[1]}
items = [item | {"completion": f"SELECT a FROM t WHERE a < {n}"} for n in range(40)]
statuses = [verdict.status for verdict in verify_sql(items, workers=1)]
for file in range(3):  # still closed: what the process prints cannot reach a worker
    try:
        os.write(file, b"a stray line\\n")
    except OSError:
        statuses.append("closed")
statuses += [verdict.status for verdict in verify_sql(items, workers=1)]
statuses += [os.readlink(f"/proc/{pid}/fd/{file}") for pid in pool_of(QUERY_WORKER).pids for file in (1, 2)]
with open(sys.argv[2], "w") as file:
    print(*statuses, file=file)
"""


def test_a_process_without_standard_streams(tmp_path: Path, db: Path) -> None:
    run_script(tmp_path, CLOSED, db, tmp_path / "out.txt")
    expected = ["wrong"] * 4 + ["correct"] * 36
    nowhere = [os.devnull] * 2  # standard output and error of the worker
    assert (tmp_path / "out.txt").read_text().split() == [*expected, *["closed"] * 3, *expected, *nowhere]


LOADER = """
import sys
import torch
from dphrl.verifiers.workers.pool import pool_of
from dphrl.verifiers.sql.verify_sql import QUERY_WORKER, verify_sql

class Judged(torch.utils.data.Dataset):
    def __len__(self):
        return 12
    def __getitem__(self, index):
        item = {"gold": "SELECT count(*) FROM t", "db": sys.argv[1]}
        verdicts = verify_sql([item | {"completion": f"SELECT {index} + {n}"} for n in range(9)])
        rewards = [verdict.reward for verdict in verdicts]
        return torch.tensor([index, *rewards, *pool_of(QUERY_WORKER).pids[:1]], dtype=torch.float64)

if __name__ == "__main__":
    assert Judged()[0][1:10].tolist() == [float(n == 3) for n in range(9)]  # workers of this process run meanwhile
    for context in ("fork", "spawn"):
        loader = torch.utils.data.DataLoader(Judged(), batch_size=4, num_workers=2, multiprocessing_context=context)
        rows = torch.cat(list(loader)).tolist()
        for index, *rewards, pid in rows:
            assert rewards == [float(index + n == 3) for n in range(9)], (context, index, rewards)
        assert [row[0] for row in rows] == list(range(12))
        pids = {row[-1] for row in rows}
        assert len(pids) == 2 and not pids & set(pool_of(QUERY_WORKER).pids), pids
    print("judged")
"""


@pytest.mark.slow
def test_inside_the_workers_of_a_data_loader(tmp_path: Path, db: Path) -> None:
    """Each has worker processes of its own, whether it was forked beside running ones or spawned."""
    assert run_script(tmp_path, LOADER, db) == "judged\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["script.py", "x.sqlite"]


RANKS = """
import sys
import torch.distributed as dist
from dphrl.verifiers.workers.pool import default_workers, pool_of
from dphrl.verifiers.sql.verify_sql import QUERY_WORKER, verify_sql

dist.init_process_group("gloo")
rank = dist.get_rank()
item = {"gold": "SELECT a FROM t", "db": sys.argv[1]}
items = [item | {"completion": f"SELECT a FROM t LIMIT {n + rank}"} for n in range(200)]
own = [verdict.status for verdict in verify_sql(items, gold_cache=sys.argv[2])]
assert own == ["correct" if n + rank >= 3 else "wrong" for n in range(200)], (rank, own)
gathered = [None] * dist.get_world_size()
dist.all_gather_object(gathered, (default_workers(), pool_of(QUERY_WORKER).pids))
assert len({pid for _, pids in gathered for pid in pids}) == sum(len(pids) for _, pids in gathered)
if rank == 0:
    print([most for most, _ in gathered])
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_inside_the_ranks_of_torchrun(tmp_path: Path, db: Path) -> None:
    """Two ranks share the cores and the file of gold results."""
    command = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    out = run_script(tmp_path, RANKS, db, tmp_path / "golds.cache", command=command)
    share = max(1, min(8, len(os.sched_getaffinity(0)) // 2))
    assert out == f"[{share}, {share}]\n"


KILLED = """
import os, signal, sys, threading, time
from dphrl.verifiers.workers.pool import pool_of
from dphrl.verifiers.sql.verify_sql import QUERY_WORKER, verify_sql

def kill_once_it_sorts():
    [pid] = pool_of(QUERY_WORKER).pids
    while time.clock_gettime((~pid << 3) | 2) < 0.5:
        pass
    os.kill(os.getpid(), signal.SIGKILL)

numbers = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 20000000)"
sort = f"{numbers} SELECT n FROM r ORDER BY printf('%0100d', n)"
items = [{"gold": "SELECT a FROM t", "db": sys.argv[1], "completion": text} for text in ("SELECT a FROM t", sort)]
verify_sql(items[:1], gold_cache=sys.argv[2])
threading.Thread(target=kill_once_it_sorts).start()
verify_sql(items, deadline_s=300.0)
"""


def test_a_kill_in_mid_sort_leaves_no_file(tmp_path: Path, db: Path) -> None:
    (tmp_path / "script.py").write_text(KILLED)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py"), str(db), str(tmp_path / "golds.cache")],
        env={**os.environ, "PYTHONPATH": str(SOURCE), "TMPDIR": str(tmp_path), "SQLITE_TMPDIR": str(tmp_path)},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert sorted(path.name for path in tmp_path.iterdir()) == ["golds.cache", "script.py", "x.sqlite"]
