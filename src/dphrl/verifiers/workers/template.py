"""A process that has imported a job and forks workers off itself, as its parent sees it.

A worker that is killed, or has grown too large, is replaced in milliseconds: the import (sympy's takes half a second of
CPU time) is done once. The template itself never sees an item.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

START_S = 60.0
"""Wall-clock seconds the import, or a fork, may take; far above what it needs, for a machine that is very busy."""
_PACKAGE_ROOT = Path(__file__).parents[3]


class TemplateDied(Exception):
    """The template is gone, and nothing can be learnt from it."""


def environment() -> dict[str, str]:
    """That of a worker: it finds this package wherever it was imported from."""
    path = os.pathsep.join(filter(None, [str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}


class Template:
    """One request at a time goes through a socket, and one line comes back."""

    def __init__(self, job: str) -> None:
        """Start a template for a job, which is named by the module that holds it."""
        # -P: a file of the current directory must not shadow a module the worker imports
        self.command = [sys.executable, "-P", "-m", "dphrl.verifiers.workers.worker_main", job, str(os.getpid())]
        self.gone = False
        self._lock = threading.Lock()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self._process = subprocess.Popen(
                self.command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, env=environment()
            )
            self._socket = socket.socket(fileno=kept(ours.fileno()))
        self._socket.settimeout(START_S)

    def fork(self, requests: int, replies: int) -> int:
        """Fork a worker.

        Args:
            requests, replies: file descriptors that become its standard input (a socket) and output.
        Returns:
            Its process id, which stays its own until `reap`.
        Raises:
            TemplateDied: it could not be forked.
        """
        return int(self._ask(b"fork\n", requests, replies))

    def reap(self, pid: int, *, wait: bool = True) -> int | None:
        """Exit status of a worker, as `subprocess` gives it; None while it lives, or where nobody knows."""
        try:
            answer = self._ask(b"%s %d\n" % (b"wait" if wait else b"poll", pid))
        except TemplateDied:
            return None
        return int(answer) if answer else None

    def stop(self) -> None:
        """Kill it, and wait for its end; its workers end soon after."""
        self.gone = True
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._socket.close()

    def _ask(self, message: bytes, *files: int) -> bytes:
        with self._lock:
            if self.gone:
                raise TemplateDied("it has ended")
            try:
                socket.send_fds(self._socket, [message], files)
                answer = b""
                while not answer.endswith(b"\n"):
                    part = self._socket.recv(64)
                    if not part:
                        raise ConnectionError(f"it ended with status {self._process.wait()}")
                    answer += part
            except OSError as error:
                self.gone = True
                raise TemplateDied(str(error)) from None
            except BaseException:  # Ctrl-C: the answer would be taken for the next one's
                self.gone = True
                raise
        return answer.strip()


def kept(file: int) -> int:
    """A copy of a file descriptor, with a number above 2. Where the user's process has closed 0, 1 or 2, the original
    can have that number, and what the process prints would reach a worker."""
    return int(fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, 3))
