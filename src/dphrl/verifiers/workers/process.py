"""One worker process as its parent sees it: pipes, the chunk it is at, and the deadline its parent keeps."""

from __future__ import annotations

import contextlib
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
from dphrl.verifiers.workers.slow_items import Spent
from dphrl.verifiers.workers.template import START_S, Template, TemplateDied, environment, kept

WALL_FACTOR = 20.0
"""Wall-clock seconds allowed for each CPU second of a deadline, since other programs may keep the machine busy."""
GLANCE_S = 1.0
"""Wall-clock seconds after which a silent worker is looked at, whatever its deadline."""
_READ_BYTES = 1 << 18
_PAGE = os.sysconf("SC_PAGE_SIZE")


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
        """Start a process for a job, which is named by the module that holds it.

        Raises:
            WorkerDied: it cannot be started.
        """
        self.command = self._command(job)
        ours, theirs = socket.socketpair()
        read, write = os.pipe()
        try:
            with ours, theirs:
                self._start(theirs.fileno(), write)
                self._socket, self._replies = socket.socket(fileno=kept(ours.fileno())), kept(read)
        finally:
            os.close(read)
            os.close(write)
        os.set_blocking(self._replies, False)
        self._partial: list[bytes] = []
        self.was_ready = False
        self._chunk: deque[int] = deque()
        self.held: dict[str, int] = {}
        """Shared values it has been sent: key -> characters."""
        self.spent = Spent()
        """CPU time so far."""
        self._gave_up = False
        self._first_resident: int | None = None
        self._cpu_s, self._cpu_mark = 0.0, 0.0
        self._silent_s = 0.0
        """CPU seconds it had used since it rang last, when that was looked at last."""
        self._wall_s, self._wall_end = START_S, time.monotonic() + START_S

    def _command(self, job: str) -> list[str]:
        raise NotImplementedError

    def _start(self, requests: int, replies: int) -> None:
        self._process = subprocess.Popen(self.command, stdin=requests, stdout=replies, bufsize=0, env=environment())

    def _kill(self) -> None:
        self._process.kill()

    def _wait(self) -> int | None:
        """Its exit status, once it has ended; None where nobody knows."""
        return self._process.wait()

    def _has_ended(self) -> bool:
        return self._process.poll() is not None

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

    def send(self, chunk: Sequence[int], request: bytes, cpu_s: float, whole_s: float) -> None:
        """Give an idle worker a chunk of items.

        Args:
            chunk: their numbers.
            request: the message.
            cpu_s: CPU seconds each of them may take.
            whole_s: CPU seconds by which the wall clock's limit is reckoned, >= `cpu_s`.
        Raises:
            WorkerDied: it is gone; none of the items is to blame.
        """
        self._chunk.extend(chunk)
        self._cpu_s, self._wall_s = cpu_s, WALL_FACTOR * whole_s
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
        # read before the bell: whoever is kept waiting between the two must not count what the worker did meanwhile
        used = self._cpu_used()
        rung = self._rung()
        self._silent_s = 0.0 if rung else used
        data = self._read()
        if rung == b"" and not data:
            raise self._death()
        replies = self._answers(data)
        if rung:  # replies alone do not restart the clock: the worker is hardly further than when it rang last
            self._count_time()
            self._restart_clock()
        return replies

    def _answers(self, data: bytes) -> list[tuple[int, Any]]:
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
        self._gave_up = self._gave_up or any(status == "timeout" for status, _ in replies)
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
        if self.was_ready and self._silent_s >= self._cpu_s:
            raise self._timeout(f"more than {self._cpu_s:.3g} s of CPU time")
        if self._has_ended():  # its end of the socket may live on in a fork of this process
            raise self._death()
        if time.monotonic() >= self._wall_end:  # no job waits for anything, so the machine is at fault
            raise WorkerDied("verifier_error", "no answer, and hardly any CPU time used, for too long")

    def stop(self) -> None:
        """Kill it, wait for its end, and close what leads to it."""
        self._kill()
        self._wait()
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
        code = self._wait()
        if code == -signal.SIGPROF:
            return self._timeout("more CPU time than the deadline")
        return WorkerDied(None, f"the worker ended with status {code}")

    def _timeout(self, detail: str) -> WorkerDied:
        self._gave_up = True
        self._count_time()
        return WorkerDied("timeout", detail)

    def grown_bytes(self) -> int:
        """Memory it holds beyond what it held when first asked; 0 where the system does not say (no Linux)."""
        try:
            resident = int(Path(f"/proc/{self.pid}/statm").read_bytes().split()[1]) * _PAGE
        except (OSError, IndexError):
            return 0
        if self._first_resident is None:
            self._first_resident = resident
        return resident - self._first_resident

    def _count_time(self) -> None:
        """Put the time since the clock was restarted to what was judged, or given up, meanwhile."""
        used = max(0.0, self._cpu_used())
        self.spent += Spent(timeouts_s=used) if self._gave_up else Spent(finished_s=used)
        self._gave_up = False

    def _restart_clock(self) -> None:
        self._cpu_mark, self._silent_s = self._cpu_clock(), 0.0
        self._wall_end = time.monotonic() + self._wall_s

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


class Forked(Process):
    """A worker that a template forked off; the usual kind."""

    def __init__(self, job: str, template: Template) -> None:
        self._template = template
        self._ended = False
        self._code: int | None = None
        super().__init__(job)

    def _command(self, job: str) -> list[str]:
        return self._template.command

    def _start(self, requests: int, replies: int) -> None:
        try:
            self._pid = self._template.fork(requests, replies)
        except TemplateDied as death:
            raise WorkerDied(None, str(death)) from None

    @property
    def pid(self) -> int:
        """Process id; nobody else's before it is reaped."""
        return self._pid

    def _kill(self) -> None:
        if not self._ended:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)

    def _wait(self) -> int | None:
        if not self._ended:
            self._ended, self._code = True, self._template.reap(self._pid)
        return self._code

    def _has_ended(self) -> bool:
        if not self._ended:
            self._code = self._template.reap(self._pid, wait=False)
            self._ended = self._code is not None
        return self._ended or self._template.gone
