"""Files written whole or not at all: a temporary name beside the target, then a rename."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from dphrl.errors import RunDirError

T = TypeVar("T")


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; renames it there when the block ends well, removes it otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield staging
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)


@contextmanager
def replaced_dir(path: Path) -> Iterator[Path]:
    """As `replaced`, for a folder; an older folder of that name is removed only once the new one is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    try:
        yield staging
        if path.exists():
            shutil.rmtree(path)
        staging.rename(path)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Whole or not at all, UTF-8."""
    with replaced(path) as staging:
        staging.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Whole or not at all; NaN is refused, since JSON has none."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@contextmanager
def damage_refused(path: Path, remedy: str) -> Iterator[None]:
    """Around the reading of a file that we wrote: what its content raises becomes one message with the remedy.

    Args:
        path: the file that is read in the block.
        remedy: what to do, e.g. "delete it and evaluate again".
    Raises:
        RunDirError: the file cannot be read, its content is no JSON, or lacks what the block looks for.
    """
    try:
        yield
    except OSError as error:
        raise RunDirError(f"{path} cannot be read ({error.strerror or error}); make it readable, or {remedy}") from None
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise RunDirError(f"{path} is damaged ({type(error).__name__}: {_first(error)}); {remedy}") from None


def checked(record: T) -> T:
    """A record that was made from what a file holds, once every value in it is known to be of its type.

    Args:
        record: a dataclass instance; records in it are checked too.
    Raises:
        ValueError: a value of another type; names the first.
    """
    kept: T = _adapter(type(record)).validate_python(asdict(record))  # type: ignore[call-overload, arg-type]
    return kept


@cache
def _adapter(cls: type) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(cls)


def _first(error: Exception) -> str:
    """The error in one line: of pydantic's, the first value that is wrong."""
    if not hasattr(error, "errors"):
        return str(error)
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
