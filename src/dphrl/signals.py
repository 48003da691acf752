"""Signals that a command hears while it runs."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

Handler = Callable[[int, Any], None]


def known(*names: str) -> tuple[signal.Signals, ...]:
    """Those of these signals that this system has."""
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))


@contextmanager
def heard(numbers: Sequence[signal.Signals], handler: Handler) -> Iterator[None]:
    """Within it `handler` gets these signals, but for those that are ignored already: a parent process handles them.

    Python gives signals to the main thread alone; in any other nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: old for number in numbers if (old := signal.getsignal(number)) is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
