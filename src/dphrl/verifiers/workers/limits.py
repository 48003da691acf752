"""Limits of a worker process that the kernel enforces, whatever code runs in it. Imported by workers only."""

from __future__ import annotations

import contextlib
import resource
import signal
from collections.abc import Iterator

MEMORY_BYTES = 1 << 30
_OPEN_FILES, _MOST_OPEN_FILES = resource.getrlimit(resource.RLIMIT_NOFILE)


def leave_signals_to_parent() -> None:
    """Ctrl-C and what clusters send to all processes of a job are the parent's, which stops its workers itself: a
    training that is asked to stop has verdicts to wait for until the step's end."""
    for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def lock_down() -> None:
    """Take from this process, for good: memory above 1 GiB, file writes and core dumps."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(ValueError, OSError):  # macOS refuses this one; SQLite's own heap limit is left there
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def arm_cpu_deadline(seconds: float) -> None:
    """Have the kernel kill this process once it has used `seconds` more of CPU time; 0 cancels that.

    SIGPROF keeps its default action (terminate), so no C code, however stuck, can miss it, and because it counts CPU
    time, a busy machine does not flip rewards.

    Args:
        seconds: CPU seconds from now, >= 0.
    """
    signal.setitimer(signal.ITIMER_PROF, seconds)


@contextlib.contextmanager
def opening_files() -> Iterator[None]:
    """Files can be opened and made within this block only, until the next such block; those that are open stay open."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, _MOST_OPEN_FILES))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, _MOST_OPEN_FILES))
