"""The process behind `Worker`: reads chunks of items from stdin, writes one line for each item as soon as it is judged.

Protocol (JSON lines): the worker says `"ready"`; a request is {"items": [...], "settings": {...}}; every item is
answered by [status, detail] before the next one is begun, so the parent always knows which item a dead worker was at.
End of input ends the process, so it never outlives its parent by more than one item.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from dphrl.verifiers.limits import arm_cpu_deadline, lock_down

Judge = Callable[[Any, Mapping[str, Any]], tuple[str, str]]
"""(item, settings) -> (status, detail)."""

JOBS: dict[str, str] = {"sql": "dphrl.verifiers.sql_run", "math": "dphrl.verifiers.math_run"}
"""Job -> module whose `judge` does it; imported only by the worker of that job."""


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
        return "verifier_error", f"{type(error).__name__}: {error}"
    finally:
        arm_cpu_deadline(0)


def main(job: str) -> None:
    """Serve one job until end of input.

    Args:
        job: a key of `JOBS`.
    """
    replies = os.dup(1)
    os.dup2(2, 1)  # whatever a library prints must not mix with the replies
    logging.disable(logging.CRITICAL)
    judge: Judge = importlib.import_module(JOBS[job]).judge
    lock_down()
    os.write(replies, b'"ready"\n')
    for line in sys.stdin.buffer:
        request = json.loads(line)
        for item in request["items"]:
            try:
                status, detail = answer(judge, item, request["settings"])
            except MemoryError:
                os.write(replies, b'["memory", "out of memory"]\n')
                os._exit(0)  # a process that ran out of memory is not trusted with the next item
            os.write(replies, json.dumps([status, detail[:500]]).encode() + b"\n")


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except BrokenPipeError:  # the parent is gone, and so is the reason to go on
        os._exit(0)
