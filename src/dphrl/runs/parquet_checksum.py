"""A checksum of a whole Parquet file within it: its pages can have their own, its headers and its footer have none.

It is 8 hex digits in the footer's metadata, the CRC-32 of the file with zeros in their place.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

KEY = b"dphrl.crc32"
BLANK = b"00000000"
_BEFORE = KEY + bytes((0x18, len(BLANK)))
"""What stands before the digits: Thrift's head of a text is its type and its length."""

_TAIL = 1 << 20
"""Bytes at a file's end in which the digits are looked for; a footer is some kB (bytes)."""
_BLOCK = 1 << 22
"""Bytes that are read at once."""


def with_room(table: pa.Table) -> pa.Table:
    """The table with a place for the checksum among its metadata."""
    return table.replace_schema_metadata({KEY: BLANK})


def put_checksum(path: Path) -> None:
    """Fill the place that `with_room` left.

    Raises:
        ValueError: the file has none.
    """
    with path.open("r+b") as file:
        if (place := _place(file)) is None:
            raise ValueError(f"{path} has no place for a checksum")
        crc = _crc(file, place)
        file.seek(place)
        file.write(crc)


def check_checksum(path: Path) -> None:
    """Compare a file with its checksum; one without, of an earlier dphrl or of another tool, is taken as it is. A tool
    that writes what it has read may leave the place blank.

    Raises:
        OSError: it cannot be read. ValueError: it is not as it was written.
    """
    with path.open("rb") as file:
        if (place := _place(file)) is None:
            return
        file.seek(place)
        if (wanted := file.read(len(BLANK))) == BLANK:
            return
        found = _crc(file, place)
    if found != wanted:
        raise ValueError(f"it has the checksum {found.decode()}, {wanted.decode(errors='replace')} was written")


def _place(file: BinaryIO) -> int | None:
    """Where the digits stand."""
    begin = max(0, file.seek(0, 2) - _TAIL)
    file.seek(begin)
    found = file.read().rfind(_BEFORE)
    return None if found < 0 else begin + found + len(_BEFORE)


def _crc(file: BinaryIO, place: int) -> bytes:
    file.seek(0)
    crc, left = 0, place
    while left and (block := file.read(min(left, _BLOCK))):
        crc, left = zlib.crc32(block, crc), left - len(block)
    crc = zlib.crc32(BLANK, crc)
    file.seek(place + len(BLANK))
    while block := file.read(_BLOCK):
        crc = zlib.crc32(block, crc)
    return f"{crc:08x}".encode()
