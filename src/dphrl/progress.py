"""Progress of long work: one bar a task with rate and time left on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

PLAIN_SECONDS = 15.0
"""Without a terminal, a task says at most this often how far it is."""


@runtime_checkable
class Progress(Protocol):
    """Told how far a named task is; `total` may change between calls, `note` is shown behind the bar.

    A `total` of 0 is no work but a message: its note stands on a line of its own.
    """

    def __call__(self, task: str, done: int, total: int, note: str = "") -> None: ...


def silent(task: str, done: int, total: int, note: str = "") -> None:
    """For callers that want no progress."""


@contextmanager
def shown() -> Iterator[Progress]:
    """Progress on standard error: rich bars on a terminal, plain lines in a log."""
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal:
        with _bars(console) as progress:
            yield progress
    else:
        yield PlainProgress(console.file)


@contextmanager
def _bars(console: object) -> Iterator[Progress]:
    from rich import progress as rp

    columns = (
        rp.TextColumn("{task.description}"),
        rp.BarColumn(),
        rp.MofNCompleteColumn(),
        rp.TextColumn("{task.fields[rate]}"),
        rp.TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        rp.TextColumn("[dim]{task.fields[note]}"),
    )
    with rp.Progress(*columns, console=console) as bars:  # type: ignore[arg-type]
        known: dict[str, rp.TaskID] = {}

        def update(task: str, done: int, total: int, note: str = "") -> None:
            if total == 0:
                bars.console.print(f"{task}: {note}", highlight=False, markup=False)
                return
            if task not in known:
                known[task] = bars.add_task(task, total=total, completed=done, rate="", note=note)
            bar = next(t for t in bars.tasks if t.id == known[task])
            rate = "" if bar.speed is None else f"{bar.speed:.3g}/s"
            bars.update(bar.id, completed=done, total=total, rate=rate, note=note)
            if done >= total:  # a finished task is a line above the bars, not a bar
                bars.console.print(f"{task}: {total} in {bar.elapsed or 0:.0f} s {note}".rstrip(), highlight=False)
                bars.remove_task(known.pop(task))

        yield update


class PlainProgress:
    """One line a task at its start, at its end, and every PLAIN_SECONDS between."""

    def __init__(self, stream: object) -> None:
        self._stream = stream
        self._began: dict[str, tuple[float, int]] = {}
        self._said: dict[str, float] = {}

    def __call__(self, task: str, done: int, total: int, note: str = "") -> None:
        if total == 0:
            print(f"{task}: {note}", file=self._stream, flush=True)  # type: ignore[call-overload]
            return
        now = time.monotonic()
        began, first = self._began.setdefault(task, (now, done))
        finished = done >= total
        if not finished and task in self._said and now - self._said[task] < PLAIN_SECONDS:
            return
        if finished and self._said.get(task) == float("inf"):
            return
        self._said[task] = float("inf") if finished else now
        rate = (done - first) / (now - began) if now > began and done > first else 0.0
        left = f", {(total - done) / rate:.0f} s left" if rate and not finished else ""
        speed = f" ({rate:.3g}/s{left})" if rate else ""
        print(f"{task}: {done}/{total}{speed}{' ' + note if note else ''}", file=self._stream, flush=True)  # type: ignore[call-overload]
