"""A persistent process that judges what must not run in ours, and that may die of it: killed, blamed, restarted."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from dphrl.errors import VerifierError
from dphrl.types import Status

CHUNK = 64
"""Items in one message."""
TRIES = 2
"""Workers that must die without a reason of their own (memory, or killed from outside) before their item is blamed."""
START_S = 60.0
"""Wall-clock seconds a worker may take to start; far above what it needs, for a machine that is very busy."""
_PACKAGE_ROOT = Path(__file__).parents[2]

Reply = tuple[Status, str]


class WorkerDied(Exception):
    """The worker ended before it answered; `status` is set when the reason blames the item it was at."""

    def __init__(self, status: Status | None, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


class Worker:
    """One process for one job, started when first needed; safe to call from several threads.

    Deadlines count the worker's CPU time and are armed by the job itself (`limits.arm_cpu_deadline`); the wall-clock
    limit kept here catches what burns no CPU. On either, the item at fault is blamed and the rest goes to a new worker.
    """

    def __init__(self, job: str) -> None:
        self.job = job
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._lines: deque[bytes] = deque()
        self._tail = b""
        atexit.register(self.close)

    @property
    def pid(self) -> int | None:
        """Process id of the running worker, or None."""
        return self._process.pid if self._process else None

    def run(self, items: Sequence[Any], settings: Mapping[str, Any], *, wall_s: float) -> list[Reply]:
        """Judge items in order.

        Args:
            items: what the job's `judge` takes; plain JSON values.
            settings: the same for all items; plain JSON values.
            wall_s: wall-clock seconds one item may take before the worker is killed, > 0.
        Returns:
            One (status, detail) per item.
        Raises:
            VerifierError: the worker cannot start.
        """
        replies: list[Reply] = []
        deaths = 0  # at the item that is next
        with self._lock:
            try:
                while len(replies) < len(items):
                    new, death = self._judge(items[len(replies) : len(replies) + CHUNK], settings, wall_s)
                    replies += new
                    deaths = 0 if not death else 1 if new else deaths + 1
                    if deaths == TRIES:
                        replies.append(("memory", death))
                        deaths = 0
            except BaseException:  # Ctrl-C too: replies still under way would answer the next call
                self._stop()
                raise
        return replies

    def close(self) -> None:
        """Stop the worker; the next `run` starts another. Does nothing in a forked copy, which does not own it."""
        if self._owner == os.getpid():
            self._stop()

    def _judge(self, chunk: Sequence[Any], settings: Mapping[str, Any], wall_s: float) -> tuple[list[Reply], str]:
        """Replies to the first items of the chunk, all unless the worker dies, and how it died if that blames none."""
        replies: list[Reply] = []
        try:
            process = self._start() if self._process is None else self._process
            self._send(process, {"items": list(chunk), "settings": dict(settings)})
            while len(replies) < len(chunk):
                status, detail = self._receive(process, wall_s)
                replies.append((cast("Status", status), detail))
        except WorkerDied as death:
            if death.status is None:
                return replies, death.detail
            replies.append((death.status, death.detail))
        return replies, ""

    def _command(self) -> list[str]:
        # -P: a file of the current directory must not shadow a module the worker imports
        return [sys.executable, "-P", "-m", "dphrl.verifiers.worker_main", self.job]

    def _start(self) -> subprocess.Popen[bytes]:
        path = os.pathsep.join(filter(None, [str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH")]))
        self._process = process = subprocess.Popen(
            self._command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )
        try:
            self._receive(process, START_S)
        except WorkerDied as death:
            raise VerifierError(
                f"the worker of verifier {self.job!r} did not start ({death.detail}); its own message stands above; "
                f"`{' '.join(self._command())}` should say ready and wait for input"
            ) from death
        return process

    def _send(self, process: subprocess.Popen[bytes], request: Mapping[str, Any]) -> None:
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise self._bury(process) from None

    def _receive(self, process: subprocess.Popen[bytes], wall_s: float) -> Any:
        """The next line of the worker, or WorkerDied."""
        assert process.stdout is not None
        file = process.stdout.fileno()
        end = time.monotonic() + wall_s
        poll = select.poll()
        poll.register(file, select.POLLIN)
        while not self._lines:
            if not poll.poll(max(0.0, end - time.monotonic()) * 1000):
                self._stop()
                raise WorkerDied("timeout", f"more than {wall_s:g} s of wall-clock time")
            data = os.read(file, 1 << 16)
            if not data:
                raise self._bury(process)
            *lines, self._tail = (self._tail + data).split(b"\n")
            self._lines.extend(lines)
        return json.loads(self._lines.popleft())

    def _bury(self, process: subprocess.Popen[bytes]) -> WorkerDied:
        """Why a worker that closed its pipe is gone."""
        code = process.wait()
        self._stop()
        if code == -signal.SIGPROF:
            return WorkerDied("timeout", "more CPU time than the deadline")
        return WorkerDied(None, f"the worker ended with status {code}")

    def _stop(self) -> None:
        process, self._process = self._process, None
        self._lines.clear()
        self._tail = b""
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):  # what a dead worker never read
                pipe.close()


_WORKERS: dict[tuple[int, str], Worker] = {}


def worker_of(job: str) -> Worker:
    """The worker of this process for a job; a forked copy of this process gets its own."""
    key = (os.getpid(), job)
    return _WORKERS.get(key) or _WORKERS.setdefault(key, Worker(job))
