"""Anchors as Arrow record batches: columns, checksums, and files of which single rows are read."""

from __future__ import annotations

import os
import struct
import weakref
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from dphrl.errors import AnchorError
from dphrl.types import Anchor

KEY = ("task", "prompt_id", "draw")
"""Columns that name an anchor."""

Key = tuple[str, str, int]

Bytes = bytes | memoryview

T = TypeVar("T")

CHECKSUM = "crc32"
"""Column with the checksum of the row's other columns: it is checked whenever the anchor is read."""


def key_of(anchor: Anchor) -> Key:
    """(task, prompt_id, draw)."""
    return anchor.task, anchor.prompt_id, anchor.draw


def schema(topk: int) -> pa.Schema:
    """Columns of a shard; with `topk` > 0 the likeliest tokens of each position, in lists of that fixed size."""
    ids, logps = pa.list_(pa.int32()), pa.list_(pa.float32())
    columns = {
        "task": pa.string(),
        "prompt_id": pa.string(),
        "draw": pa.int32(),
        "prompt_ids": ids,
        "completion_ids": ids,
        "ref_logps": logps,
    }
    if topk:
        columns |= {
            "topk_ids": pa.list_(pa.list_(pa.int32(), topk)),
            "topk_logps": pa.list_(pa.list_(pa.float32(), topk)),
        }
    columns[CHECKSUM] = pa.uint32()
    return pa.schema([pa.field(name, kind, nullable=False) for name, kind in columns.items()])


def batch_of(anchors: Sequence[Anchor], topk: int) -> pa.RecordBatch:
    """Anchors as one record batch of `schema(topk)`.

    Raises:
        AnchorError: an anchor without `topk` tokens at each position, or a log-probability that is not finite.
    """
    for anchor in anchors:
        _check(anchor, topk)
    fields = schema(topk).remove(len(schema(topk)) - 1)
    return with_checksums(
        pa.RecordBatch.from_arrays(
            [pa.array([getattr(a, f.name) for a in anchors], f.type) for f in fields], schema=fields
        ),
        topk,
    )


def with_checksums(batch: pa.RecordBatch, topk: int) -> pa.RecordBatch:
    """The batch with its checksum column, made from the others."""
    rows = Rows(batch, topk)
    checksums = pa.array((rows.checksum(i) for i in range(len(rows))), pa.uint32(), size=len(rows))
    return pa.RecordBatch.from_arrays([*batch.columns, checksums], schema=schema(topk))


def _check(anchor: Anchor, topk: int) -> None:
    name = f"anchor {key_of(anchor)}"
    if not np.isfinite(anchor.ref_logps).all():
        raise AnchorError(
            f"{name} has a log-probability that is not finite; score it in model.dtype float32 or bfloat16, "
            "and check that its model gives finite logits"
        )
    wide = {len(row) for row in (*anchor.topk_ids, *anchor.topk_logps)}
    count = len(anchor.completion_ids) if topk else 0
    if {len(anchor.topk_ids), len(anchor.topk_logps)} != {count} or wide - {topk}:
        raise AnchorError(
            f"{name} has top-K log-probabilities of {len(anchor.topk_ids)} positions and sizes {sorted(wide)}; "
            f"this store holds {topk} at each of its {len(anchor.completion_ids)} positions; score it with topk={topk}"
        )


@dataclass(frozen=True, slots=True)
class _Column:
    """A string or list column: row i is items offsets[i]..offsets[i + 1] of `values`."""

    offsets: Any
    """An Arrow buffer, or the `_Place` of one in a file; `values` likewise."""
    values: Any
    width: int
    """Bytes of an item: several numbers where each position has a list of fixed size."""


class Rows:
    """The rows of one record batch. No offset in it is trusted, so that a damaged one ends in an error."""

    def __init__(self, batch: pa.RecordBatch, topk: int) -> None:
        self._size = int(batch.num_rows)
        self._topk = topk
        self._draws = batch.column("draw").buffers()[1]
        held = CHECKSUM in batch.schema.names
        self._checksums = batch.column(CHECKSUM).buffers()[1] if held else None
        lists = [name for name in schema(topk).names if name not in ("draw", CHECKSUM)]
        self._columns = {name: _column(batch.column(name)) for name in lists}

    def __len__(self) -> int:
        return self._size

    def prompt_tokens(self) -> Int64[np.ndarray, rows]:
        """Prompt tokens of each anchor."""
        return self._lengths("prompt_ids")

    def tokens(self) -> Int64[np.ndarray, rows]:
        """Completion tokens of each anchor."""
        return self._lengths("completion_ids")

    def checksum(self, row: int) -> int:
        """CRC-32 of a row: its draw, the size of every column, and every column's bytes.

        Raises:
            ValueError: an offset that points out of the batch.
        """
        return _checksum(self._draw(row), self._parts(row))

    def anchor(self, row: int) -> Anchor:
        """The anchor of a row.

        Raises:
            ValueError: the row is not what was written.
        """
        parts = self._parts(row)
        draw = self._draw(row)
        if _checksum(draw, parts) != self._number(self._checksums, "I", row):
            raise ValueError(f"the checksum of row {row} differs")
        task, prompt_id, prompt_ids, completion_ids, ref_logps, *top = parts
        return Anchor(
            bytes(prompt_id).decode(),
            _ints(prompt_ids),
            _ints(completion_ids),
            _floats(ref_logps),
            bytes(task).decode(),
            draw,
            _grouped(_ints(top[0]), self._topk) if top else (),
            _grouped(_floats(top[1]), self._topk) if top else (),
        )

    def _read(self, buffer: Any, start: int, size: int) -> Bytes:
        return memoryview(buffer)[start : start + size]

    def _draw(self, row: int) -> int:
        return self._number(self._draws, "i", row)

    def _number(self, buffer: Any, kind: str, row: int) -> int:
        return int(struct.unpack(f"<{kind}", self._read(buffer, 4 * row, 4))[0])

    def _parts(self, row: int) -> list[Bytes]:
        """The bytes of every column of a row; the columns of a completion have one length, so one look-up each."""
        first = last = 0
        parts = []
        for name, column in self._columns.items():
            if name not in ("ref_logps", "topk_ids", "topk_logps"):
                first, last = self._span(column, row)
            parts.append(self._read(column.values, first * column.width, (last - first) * column.width))
        return parts

    def _span(self, column: _Column, row: int) -> tuple[int, int]:
        first, last = struct.unpack("<2i", self._read(column.offsets, 4 * row, 8))
        if not 0 <= first <= last <= column.values.size // column.width:
            raise ValueError(f"an offset of row {row} points out of its shard")
        return first, last

    def _lengths(self, name: str) -> Int64[np.ndarray, rows]:
        return np.diff(np.frombuffer(self._columns[name].offsets, np.int32)[: len(self) + 1]).astype(np.int64)


def _column(column: pa.Array) -> _Column:
    assert column.offset == 0, "a slice of a batch has offsets of its own; take its rows instead"
    buffers = column.buffers()
    width, kind = 1, column.type
    if not pa.types.is_string(kind):
        inner = kind.value_type
        width = 4 * (inner.list_size if pa.types.is_fixed_size_list(inner) else 1)
    return _Column(buffers[1], buffers[-1] or pa.py_buffer(b""), width)


def _ints(data: Bytes) -> tuple[int, ...]:
    return tuple(memoryview(data).cast("i"))


def _floats(data: Bytes) -> tuple[float, ...]:
    return tuple(memoryview(data).cast("f"))


def _grouped(numbers: tuple[T, ...], size: int) -> tuple[tuple[T, ...], ...]:
    return tuple(zip(*[iter(numbers)] * size, strict=True))


def _checksum(draw: int, parts: Sequence[Bytes]) -> int:
    crc = zlib.crc32(struct.pack(f"<{1 + len(parts)}q", draw, *map(len, parts)))
    for part in parts:
        crc = zlib.crc32(part, crc)
    return crc


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a buffer lies in its file, in bytes."""

    start: int
    size: int


def _place(buffer: pa.Buffer, file: pa.Buffer) -> _Place:
    start = buffer.address - file.address if buffer.size else 0
    if not 0 <= start <= file.size - buffer.size:
        raise ValueError("its columns are compressed")
    return _Place(start, buffer.size)


class Shard(Rows):
    """A file with one record batch, of which only the rows asked for are read.

    They are read with `pread` at the places that Arrow's metadata give: reading them through a mapping would make the
    kernel map up to 2 MB around each (docs/decisions/0011-anchor-store.md), and a file that was truncated meanwhile
    would kill the process.

    Raises:
        AnchorError: no whole Arrow file, or other columns than `schema(topk)`.
    """

    def __init__(self, path: Path, topk: int) -> None:
        self.path = path
        try:
            with pa.memory_map(str(path)) as file:
                whole = file.read_buffer()
                super().__init__(_batch(whole, topk), topk)
            # Places in the file instead of buffers: these would keep pages mapped, up to 2 MB around each footer.
            self._draws = _place(self._draws, whole)
            self._checksums = _place(self._checksums, whole)
            self._columns = {
                name: _Column(_place(c.offsets, whole), _place(c.values, whole), c.width)
                for name, c in self._columns.items()
            }
            self._file = os.open(path, os.O_RDONLY)
        except (OSError, ValueError, pa.ArrowException) as error:
            first = str(error).partition("\n")[0]
            raise AnchorError(
                f"{path} is no whole shard of anchors ({first}); copy it again from its source, "
                f"or delete {path.parent} and run `dphrl presample` again"
            ) from None
        weakref.finalize(self, os.close, self._file)

    def batch(self) -> pa.RecordBatch:
        """All rows, mapped into memory: for those who read everything once."""
        with pa.memory_map(str(self.path)) as file:
            return _batch(file.read_buffer(), self._topk)

    def _lengths(self, name: str) -> Int64[np.ndarray, rows]:
        return Rows(self.batch(), self._topk)._lengths(name)

    def read_keys(self) -> list[Key]:
        """(task, prompt_id, draw) of every row, unchecked: compare the file's SHA-256 first."""
        batch = self.batch()
        return list(zip(*(batch.column(name).to_pylist() for name in KEY), strict=True))

    def _read(self, buffer: Any, start: int, size: int) -> Bytes:
        if not size:  # an empty buffer has no place in the file
            return b""
        data = os.pread(self._file, size, buffer.start + start)
        if len(data) != size:
            raise ValueError(f"{self.path} ends too early")
        return data


def _batch(file: pa.Buffer, topk: int) -> pa.RecordBatch:
    reader = pa.ipc.open_file(pa.BufferReader(file))
    if reader.schema != schema(topk) or reader.num_record_batches != 1:
        raise ValueError(f"it has {reader.num_record_batches} batches of {', '.join(reader.schema.names)}")
    return reader.get_batch(0)


def write_shard(path: Path, batch: pa.RecordBatch) -> None:
    """One record batch as an Arrow IPC file."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
