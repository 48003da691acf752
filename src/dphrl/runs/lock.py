"""What keeps a run's files whole: one process at a time, and errors of the disk that say what to do."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from dphrl.errors import RunDirError

DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO})
"""What a write fails with when the disk is full, the quota is used up, or the folder cannot be written."""

_TORCH_SIGNS = ("PytorchStreamWriter failed", ". unexpected pos ")
"""What torch says of a file that it could not write to its end."""
_NUMBER = re.compile(r"\(os error (\d+)\)|\[Errno (\d+)\]")


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
    """Remove the unfinished files and folders of a killed process; no other may be at work in the folder."""
    for path in list(folder.rglob(".*.tmp")):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)  # it lay in such a folder


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn errors of the disk into a message that says what to do; other errors pass.

    Args:
        folder: named where an error names no file.
    Raises:
        RunDirError: a file could not be written (or, by its rights, not read).
    """
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        number = _errno_of(error)
        if number not in DISK_ERRORS:
            raise
        where = getattr(error, "filename", None) or folder
        wrong = "read or written" if number in (errno.EACCES, errno.EPERM) else "written"
        raise RunDirError(
            f"{where} could not be {wrong}: {os.strerror(number)}; what was stored before is whole. "
            f"Make room or mend the rights of {folder}, then run the same command again: it goes on from there"
        ) from error


def _errno_of(error: Exception) -> int:
    """The system's number, 0 = none; safetensors and Arrow write it into their text, torch leaves it out."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    if found := _NUMBER.search(str(error)):
        return int(found[1] or found[2])
    return errno.ENOSPC if any(sign in str(error) for sign in _TORCH_SIGNS) else 0
