"""The processes behind `Process`: a template that imports a job and forks, and workers, which judge.

The template says `"ready"` and is asked, a line at a time, to `fork` (two file descriptors come along; the answer is
the worker's id), and to `wait` for or `poll` a worker (the answer is its exit status, empty while it lives).

Protocol of a worker (JSON lines): it says `"ready"`; a request is {"items": [...], "settings": {...}, "orphan_s":
seconds, "shared": {...}, "forget": whether what was shared before must go first}. Every item is answered by [status,
detail] before the next one is begun, so the parent always knows which item a dead worker was at. Replies wait in a pipe
until the worker rings: a byte through the socket, at the end of a chunk, every RING_S, and when the pipe is full.
"""

from __future__ import annotations

import functools
import importlib
import json
import logging
import os
import select
import socket
import sys
import threading
import time
import traceback
from typing import Any

from dphrl.verifiers.workers.job import Job, Reply
from dphrl.verifiers.workers.limits import arm_cpu_deadline, leave_signals_to_parent, lock_down

RING_S = 0.002
"""Seconds between two rings: short beside any deadline, long beside what waking the parent costs."""
PARENT_CHECK_S = 0.5
MAX_DETAIL = 500
"""Characters of an unforeseen exception that are passed on."""
_SOCKET = 0
_REQUEST_BUFFER = 1 << 16


def answer(job: Job, item: Any, settings: Any) -> Reply:
    """Judge one item; an exception of ours is a `verifier_error`, never a wrong answer.

    Raises:
        MemoryError: the job did not catch it.
    """
    try:
        return job.judge(item, settings)
    except MemoryError:
        raise
    except Exception as error:  # a fault of the verifier must be seen as one, and must not end the worker
        return "verifier_error", f"{type(error).__name__}: {error}"[:MAX_DETAIL]


def be_template(module: str, parent: int) -> None:
    """Import a job, and fork workers for it until the parent is gone.

    Args:
        module: name of the module that holds the job.
        parent: id of the process that asks; when it is gone, so is this one, and with it the workers.
    """
    leave_signals_to_parent()  # at once: the import takes a while
    logging.disable(logging.CRITICAL)
    job: Job = importlib.import_module(module).JOB
    lock_down()
    if job.warm_up is not None:
        job.warm_up()
    os.write(1, b'"ready"\n')  # for whoever starts it by hand
    control = socket.socket(fileno=os.dup(_SOCKET))
    while os.getppid() == parent:
        if not select.select([control], [], [], PARENT_CHECK_S)[0]:
            continue
        message, files, *_ = socket.recv_fds(control, 64, 2)
        if not message:
            return
        if message == b"fork\n":
            answer = _fork(job, control, files)
        else:
            what, pid = message.split()
            ended, code = os.waitpid(int(pid), os.WNOHANG if what == b"poll" else 0)
            answer = str(os.waitstatus_to_exitcode(code)) if ended else ""
        control.sendall(f"{answer}\n".encode())


def _fork(job: Job, control: socket.socket, files: list[int]) -> str:
    """Fork a worker, which serves and never returns."""
    template = os.getpid()
    child = os.fork()  # no thread runs here
    if child:
        for file in files:
            os.close(file)
        return str(child)
    code = 1
    try:
        control.close()
        for file, place in zip(files, (_SOCKET, 1), strict=True):
            os.dup2(file, place)
            os.close(file)
        serve(job, template)
        code = 0
    except ConnectionError:  # the parent is gone, and so is the reason to go on
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def serve(job: Job, parent: int) -> None:
    """Do one job until end of input.

    Args:
        job: what to do.
        parent: id of the parent process; when it is gone, so is this one.
    """
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    replies = _Replies()
    replies.write(b'"ready"\n')
    replies.ring()
    with open(_SOCKET, "rb", buffering=_REQUEST_BUFFER, closefd=False) as requests:
        for line in requests:
            if line.endswith(b"\n"):  # else the parent was killed while it wrote
                _answer_all(job, line, replies)


def _answer_all(job: Job, line: bytes, replies: _Replies) -> None:
    request = json.loads(line)
    if job.remember is not None:
        job.remember(request["shared"], forget=request["forget"])
        if request["shared"]:
            replies.ring()  # what it took to read it is no item's time
    settings, orphan_s = job.settings(**request["settings"]), request["orphan_s"]
    # the parent keeps the deadline; the kernel's is for a parent that died meanwhile
    arm_cpu_deadline(orphan_s)
    for item in request["items"]:
        try:
            status, detail = answer(job, item, settings)
        except MemoryError:
            replies.write(_line("memory", "out of memory"))
            os._exit(0)  # a process that ran out of memory is not trusted with the next item
        replies.write(_line_again(status, detail) if len(detail) <= MAX_DETAIL else _line(status, detail))
        if time.monotonic() > replies.due:
            replies.ring()
            arm_cpu_deadline(orphan_s)
    arm_cpu_deadline(0)
    replies.ring()


def _line(status: str, detail: str) -> bytes:
    return json.dumps((status, detail)).encode() + b"\n"


_line_again = functools.lru_cache(maxsize=256)(_line)  # most replies are alike


class _Replies:
    """The pipe to the parent, and the bell that says there is something in it."""

    def __init__(self) -> None:
        self._pipe = os.dup(1)
        os.dup2(2, 1)  # whatever a library prints must not mix with the replies
        os.set_blocking(self._pipe, False)
        self.due = 0.0
        """When to ring next, by `time.monotonic`."""

    def write(self, line: bytes) -> None:
        view = memoryview(line)
        while view:
            try:
                view = view[os.write(self._pipe, view) :]
            except BlockingIOError:
                self.ring()
                select.select([], [self._pipe], [])

    def ring(self) -> None:
        os.write(_SOCKET, b".")
        self.due = time.monotonic() + RING_S


def _leave_with(parent: int) -> None:
    """End this process once its parent has ended: end of input does not say so while a fork of the parent holds the
    other end of the socket, and nobody reads the input while an item is judged."""
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_S)
    os._exit(0)


def _open_error_output() -> None:
    """Where it is closed in the parent, a file that is received would get its number, and what libraries print."""
    try:
        os.fstat(2)
    except OSError:  # the lowest free number is 2
        os.open(os.devnull, os.O_WRONLY)


if __name__ == "__main__":
    try:
        _open_error_output()
        be_template(sys.argv[1], int(sys.argv[2]))
    except ConnectionError:  # the parent is gone, and so is the reason to go on
        os._exit(0)
