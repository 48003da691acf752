"""The process behind `Process`: reads chunks of items from stdin, writes one line for each item once it is judged.

Protocol (JSON lines): the worker says `"ready"`; a request is {"items": [...], "settings": {...}, "shared": {...}},
with "forget" where what was shared before must go first; every item is answered by [status, detail] before the next
one is begun, so the parent always knows which item a dead worker was at.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from dphrl.verifiers.limits import arm_cpu_deadline, lock_down

Judge = Callable[[Any, Mapping[str, Any]], tuple[str, str]]
"""(item, settings) -> (status, detail)."""

JOBS: dict[str, str] = {
    "sql": "dphrl.verifiers.sql_run",
    "sql_gold": "dphrl.verifiers.sql_gold",
    "math": "dphrl.verifiers.math_run",
}
"""Job -> module whose `judge` does it (and whose `remember` takes what is shared); imported only by its workers."""

PARENT_CHECK_S = 0.5
MAX_DETAIL = 500
"""Characters of an unforeseen exception that are passed on."""


def answer(judge: Judge, item: Any, settings: Mapping[str, Any]) -> tuple[str, str]:
    """Judge one item; an exception of ours is a `verifier_error`, never a wrong answer.

    Raises:
        MemoryError: the job did not catch it.
    """
    try:
        return judge(item, settings)
    except MemoryError:
        raise
    except Exception as error:  # a fault of the verifier must be seen as one, and must not end the worker
        return "verifier_error", f"{type(error).__name__}: {error}"[:MAX_DETAIL]


def main(job: str, parent: int) -> None:
    """Serve one job until end of input.

    Args:
        job: a key of `JOBS`.
        parent: id of the process that reads the replies; when it is gone, so is this one.
    """
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    replies = os.dup(1)
    os.dup2(2, 1)  # whatever a library prints must not mix with the replies
    logging.disable(logging.CRITICAL)
    module = importlib.import_module(JOBS[job])
    lock_down()
    os.write(replies, b'"ready"\n')
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if "shared" in request:
            module.remember(request["shared"], forget=request.get("forget", False))
        for item in request["items"]:
            # the parent keeps the deadline; the kernel's is for a parent that died meanwhile
            arm_cpu_deadline(request["orphan_s"])
            try:
                reply = answer(module.judge, item, request["settings"])
            except MemoryError:
                _write(replies, ("memory", "out of memory"))
                os._exit(0)  # a process that ran out of memory is not trusted with the next item
            _write(replies, reply)
        arm_cpu_deadline(0)


def _write(file: int, reply: tuple[str, str]) -> None:
    view = memoryview(json.dumps(reply).encode() + b"\n")
    while view:
        view = view[os.write(file, view) :]


def _leave_with(parent: int) -> None:
    """End this process once its parent has ended: end of input does not say so while a fork of the parent holds the
    other end of the pipe, and nobody reads the input while an item is judged."""
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_S)
    os._exit(0)


if __name__ == "__main__":
    try:
        main(sys.argv[1], int(sys.argv[2]))
    except BrokenPipeError:  # the parent is gone, and so is the reason to go on
        os._exit(0)
