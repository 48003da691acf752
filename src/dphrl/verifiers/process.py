"""One worker process as its parent sees it: pipes, the chunk it is at, and the deadline its parent keeps."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dphrl.types import Status

START_S = 60.0
"""Wall-clock seconds a worker may take to start; far above what it needs, for a machine that is very busy."""
WALL_FACTOR = 20.0
"""Wall-clock seconds allowed for each CPU second of a deadline: what a crowded machine may cost, and no more."""
_PACKAGE_ROOT = Path(__file__).parents[2]
_READ_BYTES = 1 << 18


class WorkerDied(Exception):
    """The worker ended, or was killed; `status` is set when the reason blames the item it was at."""

    def __init__(self, status: Status | None, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


class Process:
    """A process that serves one job (`worker_main`). It is idle, or at the first item of `chunk`, or starting.

    The deadline of an item counts the worker's CPU time, read from here, so that a busy machine does not flip rewards
    and nothing the worker runs can move it; a wall-clock limit catches what burns no CPU.
    """

    def __init__(self, job: str) -> None:
        self.command = self._command(job)
        path = os.pathsep.join(filter(None, [str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, "PYTHONPATH": path},
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._input, self.output = self._process.stdin.fileno(), self._process.stdout.fileno()
        self._partial: list[bytes] = []
        self.was_ready = False
        self._chunk: deque[int] = deque()
        self.held: dict[str, int] = {}
        """Shared values it has been sent: key -> characters."""
        self._cpu_s, self._cpu_mark, self._wall_end = 0.0, 0.0, time.monotonic() + START_S

    def _command(self, job: str) -> list[str]:
        # -P: a file of the current directory must not shadow a module the worker imports
        return [sys.executable, "-P", "-m", "dphrl.verifiers.worker_main", job, str(os.getpid())]

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def idle(self) -> bool:
        """Whether it waits for a chunk."""
        return self.was_ready and not self._chunk

    @property
    def chunk(self) -> list[int]:
        """Numbers of the items it has not answered, first the one it is at."""
        return list(self._chunk)

    @property
    def held_bytes(self) -> int:
        """Characters of the shared values it holds."""
        return sum(self.held.values())

    def send(self, chunk: Sequence[int], request: bytes, cpu_s: float) -> None:
        """Give an idle worker a chunk of items.

        Raises:
            WorkerDied: it is gone; none of the items is to blame.
        """
        self._chunk.extend(chunk)
        self._cpu_s = cpu_s
        self._restart_clock()
        try:
            view = memoryview(request)
            while view:
                view = view[os.write(self._input, view) :]
        except BrokenPipeError:
            raise WorkerDied(None, f"the worker ended with status {self._process.wait()}") from None

    def receive(self) -> list[tuple[int, Any]]:
        """What has arrived, without waiting: (number, reply) of each item answered.

        Raises:
            WorkerDied: it is gone.
        """
        data = os.read(self.output, _READ_BYTES)
        if not data:
            code = self._process.wait()
            timed_out = code == -signal.SIGPROF
            detail = "more CPU time than the deadline" if timed_out else f"the worker ended with status {code}"
            raise WorkerDied("timeout" if timed_out else None, detail)
        if b"\n" not in data:
            self._partial.append(data)
            return []
        *lines, rest = b"".join([*self._partial, data]).split(b"\n")
        self._partial = [rest]
        self._restart_clock()
        if not self.was_ready:  # its first line says so
            self.was_ready = True
            del lines[0]
        return [(self._chunk.popleft(), json.loads(line)) for line in lines]

    def patience(self) -> float:
        """Seconds until `check_deadline` can have something to say, if nothing arrives."""
        wall = self._wall_end - time.monotonic()
        cpu = self._cpu_s - self._cpu_used() if self.was_ready else wall
        return max(0.001, min(wall, cpu))

    def check_deadline(self) -> None:
        """Raises:
        WorkerDied: the item it is at has had its time; the caller stops the worker.
        """
        if self.was_ready and self._cpu_used() >= self._cpu_s:
            raise WorkerDied("timeout", f"more than {self._cpu_s:g} s of CPU time")
        if time.monotonic() >= self._wall_end:
            raise WorkerDied("timeout", "too long without an answer")

    def stop(self) -> None:
        """Kill it; nothing of it is left afterwards."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def _restart_clock(self) -> None:
        self._cpu_mark = self._cpu_clock()
        self._wall_end = time.monotonic() + WALL_FACTOR * self._cpu_s

    def _cpu_used(self) -> float:
        return self._cpu_clock() - self._cpu_mark

    def _cpu_clock(self) -> float:
        """CPU seconds the worker has used so far; 0 where the system has no such clock (the wall limit is left)."""
        if not sys.platform.startswith("linux"):
            return 0.0
        try:
            return time.clock_gettime((~self.pid << 3) | 2)  # what clock_getcpuclockid(3) gives for a process
        except OSError:  # it has just ended; reading its pipe will say so
            return 0.0
