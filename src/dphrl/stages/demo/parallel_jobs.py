"""Runs side by side, a process and a thread each, with their progress on one screen."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

from dphrl.progress import Progress

_progress_queue: Any = None


@contextmanager
def worker_pool(jobs: int, progress: Progress) -> Iterator[Callable[..., Future[Any]]]:
    """Yields submit(function, *arguments); functions get a `progress` keyword. Leaving the block ends every worker."""
    context = multiprocessing.get_context("spawn")
    messages = context.Queue()
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_start_worker, initargs=(messages,))
    stop = threading.Event()
    listener = threading.Thread(target=_listen, args=(messages, progress, stop), daemon=True)
    listener.start()
    try:
        yield lambda function, *arguments: pool.submit(_call, function, arguments)
    except BaseException:
        for process in list(pool._processes.values()):  # running jobs would go on to their end otherwise
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        stop.set()
        listener.join()
        messages.close()


def gather(futures: Sequence[Future[Any]]) -> list[Any]:
    """Results in order; the first error is raised at once."""
    from concurrent.futures import FIRST_EXCEPTION, wait

    done, _ = wait(futures, return_when=FIRST_EXCEPTION)
    for future in done:
        future.result()
    return [future.result() for future in futures]


def _listen(messages: Any, progress: Progress, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            progress(*messages.get(timeout=0.2))
        except queue.Empty:
            continue


def _start_worker(messages: Any) -> None:
    """One thread of torch; Ctrl-C is the parent's to handle; no worker outlives its parent."""
    global _progress_queue
    _progress_queue = messages
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    import torch

    torch.set_num_threads(1)


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)


def _call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    def progress(task: str, done: int, total: int, note: str = "") -> None:
        _progress_queue.put((task, done, total, note))

    return function(*arguments, progress=progress)
