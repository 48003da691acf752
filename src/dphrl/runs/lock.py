"""What keeps a run's files whole: one process at a time, and errors of the disk that say what to do."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dphrl.errors import RunDirError

DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO})
"""What a write fails with when the disk is full, the quota is used up, or the folder cannot be written."""


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold a folder for this process; the lock ends with the block or with the process, however it ends.

    Raises:
        RunDirError: another process holds it.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunDirError(
                f"another process is at work in {folder}; wait for its end, or give another --out"
            ) from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(handle)


def sweep(folder: Path) -> None:
    """Remove the unfinished files that a killed process left; no other process may be at work in the folder."""
    for path in folder.rglob(".*.tmp"):
        path.unlink()


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn errors of the disk into a message that says what to do; other errors pass.

    Raises:
        RunDirError: a file under `folder` could not be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        where = error.filename or folder
        raise RunDirError(
            f"{where} could not be written: {os.strerror(error.errno)}; what was stored before is whole. "
            f"Make room or mend the rights of {folder}, then run the same command again: it goes on from there"
        ) from error
