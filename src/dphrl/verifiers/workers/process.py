"""One worker process as its parent sees it: pipes, the chunk it is at, and the deadline its parent keeps."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
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
"""Wall-clock seconds allowed for each CPU second of a deadline, since other programs may keep the machine busy."""
GLANCE_S = 1.0
"""Wall-clock seconds after which a silent worker is looked at, whatever its deadline."""
_PACKAGE_ROOT = Path(__file__).parents[3]
_READ_BYTES = 1 << 18


class WorkerDied(Exception):
    """The worker ended, or was killed; `status` is set when the reason settles the item it was at."""

    def __init__(self, status: Status | None, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


class Process:
    """A process that does one job (`worker_main`). It is idle, or at the first item of `chunk`, or starting.

    Requests go through a socket, replies come through a pipe, and the worker rings through the socket now and then:
    waking for every reply would cost more than most queries. The deadline of an item counts the worker's CPU time, read
    from here, so that a busy machine does not flip rewards and nothing the worker runs can move it.
    """

    def __init__(self, job: str) -> None:
        """Start a process for a job, which is named by the module that holds it."""
        self.command = self._command(job)
        path = os.pathsep.join(filter(None, [str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH")]))
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self._process = subprocess.Popen(
                self.command,
                stdin=theirs.fileno(),
                stdout=subprocess.PIPE,
                bufsize=0,
                env={**os.environ, "PYTHONPATH": path},
            )
            assert self._process.stdout is not None
            with self._process.stdout as replies:
                self._socket, self._replies = socket.socket(fileno=_kept(ours.fileno())), _kept(replies.fileno())
        os.set_blocking(self._replies, False)
        self._partial: list[bytes] = []
        self.was_ready = False
        self._chunk: deque[int] = deque()
        self.held: dict[str, int] = {}
        """Shared values it has been sent: key -> characters."""
        self._cpu_s, self._cpu_mark, self._wall_end = 0.0, 0.0, time.monotonic() + START_S

    def _command(self, job: str) -> list[str]:
        # -P: a file of the current directory must not shadow a module the worker imports
        return [sys.executable, "-P", "-m", "dphrl.verifiers.workers.worker_main", job, str(os.getpid())]

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def fileno(self) -> int:
        """What can be read from when the worker rings, or has ended."""
        return self._socket.fileno()

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
            self._socket.sendall(request)
        except ConnectionError:
            raise self._death() from None

    def receive(self) -> list[tuple[int, Any]]:
        """What has arrived, without waiting: (number, reply) of each item answered.

        Raises:
            WorkerDied: it is gone, and whatever it had answered was given out before.
        """
        rung = self._rung()
        data = self._read()
        if rung == b"" and not data:
            raise self._death()
        if rung:  # replies alone do not restart the clock: the worker is hardly further than when it rang last
            self._restart_clock()
        if b"\n" not in data:
            self._partial.append(data)
            return []
        text, _, rest = data.rpartition(b"\n")
        lines = b"".join([*self._partial, text]).split(b"\n")
        self._partial = [rest]
        if not self.was_ready:  # its first line says so
            self.was_ready = True
            del lines[0]
        replies = json.loads(b"[" + b",".join(lines) + b"]")
        return [(self._chunk.popleft(), reply) for reply in replies]

    def patience(self) -> float:
        """Seconds until `check_deadline` can have something to say, if nothing arrives."""
        wall = self._wall_end - time.monotonic()
        cpu = self._cpu_s - self._cpu_used() if self.was_ready else wall
        return max(0.001, min(wall, cpu, GLANCE_S))

    def check_deadline(self) -> None:
        """To be asked after `receive` has brought what there was.

        Raises:
            WorkerDied: the item it is at has had its time (the caller stops the worker), or the worker is gone.
        """
        if self.was_ready and self._cpu_used() >= self._cpu_s:
            raise WorkerDied("timeout", f"more than {self._cpu_s:g} s of CPU time")
        if self._process.poll() is not None:  # its end of the socket may live on in a fork of this process
            raise self._death()
        if time.monotonic() >= self._wall_end:  # no job waits for anything, so the machine is at fault
            raise WorkerDied("verifier_error", "no answer, and hardly any CPU time used, for too long")

    def stop(self) -> None:
        """Kill it, wait for its end, and close what leads to it."""
        self._process.kill()
        self._process.wait()
        self._socket.close()
        os.close(self._replies)

    def _rung(self) -> bytes | None:
        """None = it has not rung; empty = it is gone."""
        try:
            return self._socket.recv(_READ_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except ConnectionError:
            return b""

    def _read(self) -> bytes:
        try:
            return os.read(self._replies, _READ_BYTES)
        except BlockingIOError:
            return b""

    def _death(self) -> WorkerDied:
        code = self._process.wait()
        if code == -signal.SIGPROF:
            return WorkerDied("timeout", "more CPU time than the deadline")
        return WorkerDied(None, f"the worker ended with status {code}")

    def _restart_clock(self) -> None:
        self._cpu_mark = self._cpu_clock()
        self._wall_end = time.monotonic() + WALL_FACTOR * self._cpu_s

    def _cpu_used(self) -> float:
        return self._cpu_clock() - self._cpu_mark

    def _cpu_clock(self) -> float:
        """CPU seconds the worker has used so far; 0 where the system has no such clock (the kernel's deadline in the
        worker and the wall limit are left)."""
        if not sys.platform.startswith("linux"):
            return 0.0
        try:
            return time.clock_gettime((~self.pid << 3) | 2)  # what clock_getcpuclockid(3) gives for a process
        except OSError:  # it has just ended; reading its pipe will say so
            return 0.0


def _kept(file: int) -> int:
    """A copy of a file descriptor, with a number above 2. Where the user's process has closed 0, 1 or 2, the original
    can have that number, and what the process prints would reach a worker."""
    return int(fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, 3))
