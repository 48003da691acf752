"""The worker processes: who is blamed when one dies, what they leave behind, where they may be used from."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dphrl.errors import VerifierError
from dphrl.verifiers.sql.verify_sql import GOLD_WORKER, QUERY_WORKER
from dphrl.verifiers.workers import pool as pool_module
from dphrl.verifiers.workers.pool import TRIES, Pool, default_workers, pool_of
from dphrl.verifiers.workers.process import Process

SOURCE = Path(__file__).parents[3] / "src"
SETTINGS = {
    "keep_distinct": True,
    "ordered": "auto",
    "ties": "any",
    "exact": False,
    "empty": "same_tables",
    "deadline_s": 5.0,
    "gold_deadline_s": 5.0,
    "max_rows": 10,
    "max_bytes": 1000,
}
needs_pidfd = pytest.mark.skipif(
    not hasattr(os, "pidfd_open"), reason="waiting for a process that is no child needs Linux's pidfd"
)
STUB = r"""
import json, os, signal, sys
held = {}
def say(reply, ring=True):
    print(json.dumps(reply), flush=True)
    if ring: os.write(0, b".")
say("ready")
for line in sys.stdin:
    request = json.loads(line)
    if request.get("forget"): held.clear()
    held.update(request.get("shared", {}))
    for item in request["items"]:
        if item == "die": os._exit(3)
        if item == "die once" and not os.path.exists(sys.argv[1]):
            open(sys.argv[1], "w").close()
            os._exit(3)
        if item == "kernel": os.kill(os.getpid(), signal.SIGPROF)
        if item == "burn":
            while True: pass
        if item == "sleep": signal.pause()
        if item.startswith("held"): item = json.dumps(sorted(held.items()))
        say(["correct", item], ring=item == request["items"][-1] or not item.startswith("quiet"))
    os.write(0, b".")
"""


class StubProcess(Process):
    """Speaks the protocol, and dies when told to."""

    def _command(self, job: str) -> list[str]:
        return [sys.executable, "-c", STUB, job]


class StubPool(Pool):
    """Its job is the path of a file that the stub leaves a mark in."""

    def _new(self) -> Process:
        return StubProcess(self.job)


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[StubPool]:
    pool = StubPool(str(tmp_path / "flag"))
    yield pool
    pool.close()


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize(
    ("item", "status", "place"),
    [("burn", "timeout", 70)]
    + [(*case, at) for case in [("die", "memory"), ("kernel", "timeout"), ("die once", "correct")] for at in (0, 99)],
)
def test_the_item_at_fault_is_blamed_and_no_other(
    stub: StubPool, item: str, status: str, place: int, workers: int
) -> None:
    """A death without a reason of its own gives the item another try in a fresh worker before it is blamed."""
    items = [str(i) for i in range(100)]
    items[place] = item
    replies = stub.run(items, {}, cpu_s=0.3, workers=workers)
    assert [reply[0] for reply in replies] == [status if i == place else "correct" for i in range(100)]
    assert [reply[1] for i, reply in enumerate(replies) if i != place] == [str(i) for i in range(100) if i != place]
    assert len(stub.pids) <= workers


@pytest.mark.parametrize("quiet", [1, 40])
def test_replies_the_parent_was_not_woken_for_count(stub: StubPool, quiet: int) -> None:
    """They lie in the pipe when the worker dies, or is killed for the item after them."""
    for harm, status in (("die", "memory"), ("burn", "timeout"), ("kernel", "timeout")):
        items = [*[f"quiet {i}" for i in range(quiet)], harm, "quiet after"]
        replies = stub.run(items, {}, cpu_s=0.2, workers=1)
        assert [reply[0] for reply in replies] == [*["correct"] * quiet, status, "correct"]
        assert [reply[1] for reply in replies if reply[0] == "correct"] == [item for item in items if item != harm]


def test_what_burns_no_cpu_ends_by_the_wall_clock_and_is_not_blamed(
    stub: StubPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A query waits for nothing, so a silent worker says something of the machine: no reward, not reward 0."""
    monkeypatch.setattr("dphrl.verifiers.workers.process.WALL_FACTOR", 1.0)
    replies = stub.run(["a", "sleep", "b"], {}, cpu_s=0.5)
    assert [status for status, _ in replies] == ["correct", "verifier_error", "correct"]


def test_workers_killed_in_mid_batch_lose_no_verdict(stub: StubPool) -> None:
    """kill -9 from outside, again and again while a batch runs: each item's reply still is its own."""
    stop = threading.Event()

    def kill() -> None:
        for _ in range(TRIES - 1):  # one less than what would blame an item
            while not stub.pids and not stop.is_set():
                pass
            for pid in stub.pids[:1]:
                os.kill(pid, signal.SIGKILL)

    items = [str(i) for i in range(3000)]
    with ThreadPoolExecutor(1) as threads:
        killer = threads.submit(kill)
        replies = stub.run(items, {}, cpu_s=60.0, workers=2)
        stop.set()
        killer.result()
    assert replies == [("correct", item) for item in items]


def test_a_worker_killed_between_batches_is_replaced(stub: StubPool) -> None:
    assert stub.run(["a"], {}, cpu_s=60.0) == [("correct", "a")]
    [first] = stub.pids
    os.kill(first, signal.SIGKILL)
    assert stub.run(["b"], {}, cpu_s=60.0) == [("correct", "b")]
    assert len(stub.pids) == 1 and stub.pids != [first]


def test_a_death_is_noticed_though_a_fork_holds_the_workers_end(
    stub: StubPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fork in the wrong moment copies the socket, whose end then says nothing."""
    copies = []
    pair = socket.socketpair

    def copied() -> tuple[socket.socket, socket.socket]:
        ours, theirs = pair()
        copies.append(theirs.dup())
        return ours, theirs

    monkeypatch.setattr(socket, "socketpair", copied)
    monkeypatch.setattr("dphrl.verifiers.workers.process.GLANCE_S", 0.01)
    replies = stub.run(["a", "die once", "b"], {}, cpu_s=60.0)
    assert replies == [("correct", "a"), ("correct", "die once"), ("correct", "b")]
    assert len(copies) == 2
    for copy in copies:
        copy.close()


def test_close_ends_them_and_the_next_call_starts_others(stub: StubPool) -> None:
    stub.run(["a"], {}, cpu_s=60.0)
    stub.close()
    assert stub.pids == []
    assert stub.run(["b"], {}, cpu_s=60.0) == [("correct", "b")]
    assert stub.run([], {}, cpu_s=60.0) == []


def test_shared_values_are_sent_once_and_forgotten_when_they_grow(
    stub: StubPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = {"x": ["123", "45"], "y": ["67890"]}
    monkeypatch.setattr(pool_module, "SHARED_BYTES", 8)

    def held(needs: list[str]) -> str:
        return stub.run(["held"] * len(needs), {}, cpu_s=60.0, needs=needs, shared=shared)[-1][1]

    assert held(["x"]) == '[["x", ["123", "45"]]]'
    assert held(["x", "y"]) == '[["x", ["123", "45"]], ["y", ["67890"]]]'
    assert held(["y"]) == '[["y", ["67890"]]]'


def test_a_chunk_ends_where_its_shared_values_would_be_too_many(
    stub: StubPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the golds of one message could fill a worker's memory; a value that is too large alone is sent alone."""
    monkeypatch.setattr(pool_module, "CHUNK_BYTES", 10)
    monkeypatch.setattr(pool_module, "SHARED_BYTES", 0)
    shared = {"a": ["12345"], "b": ["12345"], "c": ["12345"], "large": ["1" * 50]}
    needs = ["a", "a", "b", "c", "large", "a"]
    replies = stub.run(["held"] * len(needs), {}, cpu_s=60.0, workers=1, needs=needs, shared=shared)
    seen = [[key for key, _ in json.loads(text)] for _, text in replies]
    assert seen == [["a", "b"], ["a", "b"], ["a", "b"], ["c"], ["large"], ["a"]]


def test_a_worker_that_cannot_start_is_an_error_not_a_verdict(capfd: pytest.CaptureFixture[str]) -> None:
    class Broken(Process):
        def _command(self, job: str) -> list[str]:
            return [sys.executable, "-c", "import no_such_module"]

    class BrokenPool(Pool):
        def _new(self) -> Process:
            return Broken(self.job)

    pool = BrokenPool("stub")
    with pytest.raises(VerifierError, match="did not start"):
        pool.run(["a"], {}, cpu_s=60.0)
    assert pool.pids == []
    assert "no_such_module" in capfd.readouterr().err


def test_a_reply_larger_than_the_pipe_is_called_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker rings when the pipe is full; a parent that was not called would give it up."""
    monkeypatch.setattr("dphrl.verifiers.workers.process.GLANCE_S", 1e9)
    monkeypatch.setattr("dphrl.verifiers.workers.process.WALL_FACTOR", 1.0)
    db = tmp_path / "empty.sqlite"
    db.touch()
    sql = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r LIMIT 9999) SELECT printf('%0100d', n) FROM r"
    settings = SETTINGS | {"max_rows": 10**6, "max_bytes": 10**8}
    pool = Pool(GOLD_WORKER)
    [(status, text), other] = pool.run(
        [(str(db), "1", "bird", sql), (str(db), "1", "bird", "SELECT 1")], settings, cpu_s=5.0
    )
    assert status == "correct" and len(json.loads(text)["rows"]) == 9_999
    assert other[0] == "correct"
    pool.close()


def test_a_fault_of_the_verifier_is_a_verifier_error() -> None:
    assert pool_of(QUERY_WORKER).run([["too", "short"]], SETTINGS, cpu_s=60.0)[0][0] == "verifier_error"


def test_signals_to_a_whole_job_do_not_end_its_workers() -> None:
    pool = pool_of(QUERY_WORKER)
    pool.run([["x"]], SETTINGS, cpu_s=60.0)
    pids = pool.pids
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        for pid in pids:
            os.kill(pid, number)
    pool.run([["x"]], SETTINGS, cpu_s=60.0)
    assert pids and pool.pids == pids


@pytest.mark.parametrize(("ranks", "expected"), [("1", 4), ("2", 2), ("8", 1)])
def test_ranks_of_a_machine_share_its_cores(ranks: str, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
    assert default_workers() == expected


SCRIPT = """
import os, sys
from dphrl.verifiers.workers.pool import pool_of
from dphrl.verifiers.sql.verify_sql import GOLD_WORKER, QUERY_WORKER, verify_sql
item = {"gold": "SELECT 1", "db": sys.argv[1], "completion": "SELECT 1"}
assert verify_sql([item])[0].correct
if sys.argv[2] == "fork":
    if os.fork() == 0:  # it holds the other end of the workers' pipes
        os.write(1, f"{os.getpid()}\\n".encode())  # one piece: two processes write here
        sys.stdin.read()
        os._exit(0)
os.write(1, f"{pool_of(QUERY_WORKER).pids[0]} {pool_of(GOLD_WORKER).pids[0]}\\n".encode())
if sys.stdin.readline() == "work\\n":
    print("working", flush=True)
    bomb = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r"
    verify_sql([item | {"completion": bomb}], deadline_s=300.0)
"""


@needs_pidfd
@pytest.mark.parametrize("end", ["exit", "kill", "kill at work", "interrupt at work"])
def test_no_worker_outlives_its_parent(tmp_path: Path, end: str) -> None:
    db = tmp_path / "empty.sqlite"
    db.touch()
    parent = _start(db, "alone")
    assert parent.stdin is not None and parent.stdout is not None
    handles = [os.pidfd_open(int(pid)) for pid in parent.stdout.readline().split()]
    assert len(handles) == 2
    with parent.stdin, parent.stdout:
        if end.endswith("at work"):
            print("work", file=parent.stdin, flush=True)
            assert parent.stdout.readline() == "working\n"
        if end.startswith("kill"):
            parent.kill()
        elif end.startswith("interrupt"):
            os.killpg(parent.pid, signal.SIGINT)  # the terminal's Ctrl-C goes to the whole group
    expected = {"exit": 0, "kill": -signal.SIGKILL, "interrupt": -signal.SIGINT}[end.split()[0]]
    assert parent.wait(30) == expected
    assert _all_end(handles)
    assert list(tmp_path.iterdir()) == [db]


@needs_pidfd
def test_a_fork_that_lives_on_keeps_no_worker_alive(tmp_path: Path) -> None:
    """The fork of a data loader holds copies of the pipes, so their end says nothing of the parent's."""
    db = tmp_path / "empty.sqlite"
    db.touch()
    parent = _start(db, "fork")
    assert parent.stdin is not None and parent.stdout is not None
    with parent.stdin, parent.stdout:
        lines = sorted((parent.stdout.readline(), parent.stdout.readline()), key=lambda line: len(line.split()))
        [fork], workers = lines[0].split(), [os.pidfd_open(int(pid)) for pid in lines[1].split()]
        parent.kill()
        parent.wait(30)
        assert _all_end(workers)
        os.kill(int(fork), 0)  # it lives
    handle = os.pidfd_open(int(fork))
    assert _all_end([handle])


def _start(db: Path, how: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(db), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        start_new_session=True,
        text=True,
    )


def _all_end(handles: list[int]) -> bool:
    ended = [bool(select.select([handle], [], [], 30)[0]) for handle in handles]
    for handle in handles:
        os.close(handle)
    return all(ended)


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_verifiers_import_nothing_heavy() -> None:
    """Else every worker would take seconds to start."""
    modules = "dphrl.verifiers, dphrl.verifiers.workers.worker_main, dphrl.verifiers.sql.query_worker"
    code = f"import sys, {modules}; print(*sys.modules)"
    loaded = set(run_python(code).split())
    assert not loaded & {
        "torch",
        "transformers",
        "trl",
        "datasets",
        "numpy",
        "pyarrow",
        "pydantic",
        "sympy",
        "sqlglot",
        "math_verify",
    }


def test_a_forked_process_gets_workers_of_its_own(tmp_path: Path) -> None:
    """Sharing the pipes would mix up the replies; the fork's end must not stop its parent's workers."""
    db = tmp_path / "empty.sqlite"
    db.touch()
    code = f"""
import os
from dphrl.verifiers.workers.pool import pool_of
from dphrl.verifiers.sql.verify_sql import GOLD_WORKER, QUERY_WORKER, verify_sql
item = {{"gold": "SELECT 1", "db": {str(db)!r}, "completion": "SELECT 1"}}
verify_sql([item])
first = pool_of(QUERY_WORKER).pids
child = os.fork()
if child == 0:
    assert verify_sql([item])[0].correct and first and pool_of(QUERY_WORKER).pids != first
    raise SystemExit
assert os.waitpid(child, 0)[1] == 0
assert verify_sql([item | {{"completion": "SELECT 2"}}])[0].status == "wrong" and pool_of(QUERY_WORKER).pids == first
"""
    run_python(code)
