"""Files written whole or not at all, under a temporary name that is renamed; JSON carries a checksum."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from dphrl.errors import RunDirError

T = TypeVar("T")

CHECKSUM = "crc32"
"""Last key of each object that we write: CRC-32 of the others, 8 hex digits. One without it was written by an earlier
dphrl or is somebody's own, and is taken as it is."""

YOURS = f'if the change is yours, take "{CHECKSUM}" out'
"""How to keep an object that was changed on purpose."""


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
    """As `replaced`, for a folder; an older folder of that name stays whole until the new one is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staging, older = (path.with_name(f".{path.name}.{os.getpid()}{end}") for end in (".tmp", ".old.tmp"))
    for left in (staging, older):
        shutil.rmtree(left, ignore_errors=True)
    staging.mkdir()
    try:
        yield staging
        if path.exists():
            path.rename(older)  # removing it takes a while, in which a kill would leave half of it
        staging.rename(path)
    except BaseException:
        if older.exists() and not path.exists():
            older.rename(path)
        raise
    finally:
        for left in (staging, older):
            shutil.rmtree(left, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Whole or not at all, UTF-8."""
    with replaced(path) as staging:
        staging.write_text(text, encoding="utf-8")


def json_text(value: Any) -> str:
    """Indented, as files have it; NaN is refused, since JSON has none."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """An object with its checksum, whole or not at all; NaN is refused."""
    write_text(path, json_text(with_checksum(value)))


def read_json(path: Path) -> Any:
    """What a file holds, without its checksum.

    Raises:
        OSError: the file cannot be read. ValueError: no JSON, or not as it was written.
    """
    return without_checksum(json.loads(path.read_bytes()))


def with_checksum(value: Mapping[str, Any]) -> dict[str, Any]:
    """The object with its checksum as the last key."""
    return {**value, CHECKSUM: checksum_of(json.loads(json.dumps(value)))}


def without_checksum(value: Any) -> Any:
    """What was written: an object without its checksum; anything else as it is.

    Raises:
        ValueError: the checksum is another one.
    """
    if not isinstance(value, dict) or CHECKSUM not in value:
        return value
    content = {key: part for key, part in value.items() if key != CHECKSUM}
    if value[CHECKSUM] != (found := checksum_of(content)):
        raise ValueError(f"its content has the checksum {found}, {value[CHECKSUM]} was written; {YOURS}")
    return content


def checksum_of(content: Any) -> str:
    """CRC-32 of what JSON holds, whatever the order of its keys and its spaces; 8 hex digits."""
    return f"{zlib.crc32(json.dumps(content, sort_keys=True).encode()):08x}"


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
