"""Where a SQLite database lies, and whether its file has changed. Nothing here opens it with SQLite."""

from __future__ import annotations

import os
from pathlib import Path

from dphrl.errors import VerifierError

DB_SUFFIXES = (".sqlite", ".sqlite3", ".db")
_CHANGE_COUNTER, _CHANGE_COUNTER_SIZE = 24, 4
"""Where a database's header has the bytes that every transaction changes."""


def database_path(db: object, db_dir: str | None) -> Path:
    """Where a database lies.

    Args:
        db: a path that ends in .sqlite, .sqlite3 or .db, or a name in `db_dir`.
        db_dir: folder that holds NAME/NAME.sqlite, and below which a relative path is taken; None = current directory.
    Returns:
        An absolute path, links followed, since SQLite keeps its log beside the real file; the file need not exist.
    Raises:
        VerifierError: a name without `db_dir`.
    """
    name = str(db)
    if name.endswith(DB_SUFFIXES):
        path = Path(db_dir or ".", name)
    elif db_dir is None:
        raise VerifierError(
            f"db={name!r} is no path of a database ({', '.join(DB_SUFFIXES)}); name the folder that holds "
            f"{name}/{name}.sqlite in task.verifier_args.db_dir"
        )
    else:
        path = Path(db_dir, name, f"{name}.sqlite")
    try:
        return Path(os.path.realpath(path))
    except ValueError:  # no file has a null character in its name; running the gold query will say so
        return path.absolute()


def database_version(db: str) -> str:
    """Text that changes with a database on disk: file, size, times of change, and SQLite's own count of changes."""
    return f"{_file_version(db)} {_file_version(f'{db}-wal')}"


def _file_version(path: str) -> str:
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a named pipe would wait for its other end
    except (OSError, ValueError):
        return "none"
    try:
        stat = os.fstat(file)
        counter = os.pread(file, _CHANGE_COUNTER_SIZE, _CHANGE_COUNTER).hex()
    except OSError:  # a folder
        return "none"
    finally:
        os.close(file)
    return f"{stat.st_dev}-{stat.st_ino}-{stat.st_size}-{stat.st_mtime_ns}-{stat.st_ctime_ns}-{counter}"
