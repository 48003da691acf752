"""The worker process: who is blamed when it dies, what it leaves behind, what it imports."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dphrl.errors import VerifierError
from dphrl.verifiers.worker import Worker, worker_of

SOURCE = Path(__file__).parents[1] / "src"
LIGHT = {"deadline_s": 5.0}
STUB = r"""
import json, os, signal, sys
print('"ready"', flush=True)
for line in sys.stdin:
    for item in json.loads(line)["items"]:
        if item == "die": os._exit(3)
        if item == "die once" and not os.path.exists(sys.argv[1]):
            open(sys.argv[1], "w").close()
            os._exit(3)
        if item == "cpu": os.kill(os.getpid(), signal.SIGPROF)
        if item == "sleep": signal.pause()
        print(json.dumps(["correct", item]), flush=True)
"""


class StubWorker(Worker):
    """Speaks the protocol, and dies when told to."""

    def __init__(self, flag: Path) -> None:
        super().__init__("stub")
        self.flag = flag

    def _command(self) -> list[str]:
        return [sys.executable, "-c", STUB, str(self.flag)]


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[StubWorker]:
    worker = StubWorker(tmp_path / "flag")
    yield worker
    worker.close()


@pytest.mark.parametrize(
    ("item", "status", "place"),
    [("sleep", "timeout", 70)]
    + [(*case, at) for case in [("die", "memory"), ("cpu", "timeout"), ("die once", "correct")] for at in (0, 1, 99)],
)
def test_the_item_at_fault_is_blamed_and_no_other(stub: StubWorker, item: str, status: str, place: int) -> None:
    """A death without a reason of its own gives the item a second try in a fresh worker before it is blamed."""
    items = [str(i) for i in range(100)]
    items[place] = item
    replies = stub.run(items, {}, wall_s=1.0 if item == "sleep" else 60.0)
    assert [reply[0] for reply in replies] == [status if i == place else "correct" for i in range(100)]
    assert [reply[1] for i, reply in enumerate(replies) if i != place] == [str(i) for i in range(100) if i != place]


def test_a_worker_killed_from_outside_is_replaced(stub: StubWorker) -> None:
    assert stub.run(["a"], {}, wall_s=60.0) == [("correct", "a")]
    first = stub.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert stub.run(["b"], {}, wall_s=60.0) == [("correct", "b")]
    assert stub.pid not in (first, None)


def test_close_ends_it_and_the_next_call_starts_another(stub: StubWorker) -> None:
    stub.run(["a"], {}, wall_s=60.0)
    stub.close()
    assert stub.pid is None
    assert stub.run(["b"], {}, wall_s=60.0) == [("correct", "b")]


def test_a_worker_that_cannot_start_is_an_error_not_a_verdict(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    class Broken(StubWorker):
        def _command(self) -> list[str]:
            return [sys.executable, "-c", "import no_such_module"]

    with pytest.raises(VerifierError, match="did not start"):
        Broken(tmp_path).run(["a"], {}, wall_s=60.0)
    assert "no_such_module" in capfd.readouterr().err


def test_a_fault_of_the_verifier_is_a_verifier_error() -> None:
    assert worker_of("sql").run([["too", "short"]], LIGHT, wall_s=60.0)[0][0] == "verifier_error"


def test_ctrl_c_does_not_reach_the_worker() -> None:
    worker = worker_of("sql")
    worker.run([["x"]], LIGHT, wall_s=60.0)
    pid = worker.pid
    assert pid is not None
    os.kill(pid, signal.SIGINT)
    worker.run([["x"]], LIGHT, wall_s=60.0)
    assert worker.pid == pid


SCRIPT = """
import sys
from dphrl.types import Prompt
from dphrl.verifiers.sql import sql_verify
from dphrl.verifiers.worker import worker_of
prompt = Prompt("p", "q", {"gold": "SELECT 1", "db": sys.argv[1]})
assert sql_verify([prompt], ["SELECT 1"])[0].correct
print(worker_of("sql").pid, flush=True)
if sys.stdin.readline() == "work\\n":
    print("working", flush=True)
    bomb = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r"
    sql_verify([prompt], [bomb], deadline_s=300.0)
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waiting for a process that is no child needs Linux's pidfd")
@pytest.mark.parametrize("end", ["exit", "kill", "interrupt at work"])
def test_no_worker_outlives_its_parent(tmp_path: Path, end: str) -> None:
    db = tmp_path / "empty.sqlite"
    db.touch()
    parent = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(db)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        start_new_session=True,
        text=True,
    )
    assert parent.stdin is not None and parent.stdout is not None
    handle = os.pidfd_open(int(parent.stdout.readline()))
    with parent.stdin, parent.stdout:
        if end == "kill":
            parent.kill()
        elif end == "interrupt at work":
            print("work", file=parent.stdin, flush=True)
            assert parent.stdout.readline() == "working\n"
            os.killpg(parent.pid, signal.SIGINT)  # the terminal's Ctrl-C goes to the whole group
    assert parent.wait(30) == {"exit": 0, "kill": -signal.SIGKILL, "interrupt at work": -signal.SIGINT}[end]
    ended = select.select([handle], [], [], 30)[0]
    os.close(handle)
    assert ended


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
    code = "import sys, dphrl.verifiers, dphrl.verifiers.worker_main, dphrl.verifiers.sql_run; print(*sys.modules)"
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
        "math_verify",
    }


def test_a_forked_process_gets_a_worker_of_its_own(tmp_path: Path) -> None:
    """Sharing the pipes would mix up the replies; the fork's end must not stop its parent's worker."""
    db = tmp_path / "empty.sqlite"
    db.touch()
    code = f"""
import os
from dphrl.types import Prompt
from dphrl.verifiers.sql import sql_verify
from dphrl.verifiers.worker import worker_of
prompt = Prompt("p", "q", {{"gold": "SELECT 1", "db": {str(db)!r}}})
sql_verify([prompt], ["SELECT 1"])
first = worker_of("sql").pid
child = os.fork()
if child == 0:
    assert sql_verify([prompt], ["SELECT 1"])[0].correct and worker_of("sql").pid != first
    raise SystemExit
assert os.waitpid(child, 0)[1] == 0
assert sql_verify([prompt], ["SELECT 2"])[0].status == "wrong" and worker_of("sql").pid == first
"""
    run_python(code)
