"""Arrow files of anchors: their columns, a checksum for each anchor, and reading one anchor without the others."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int64

from dphrl.anchors.manifest import remedy
from dphrl.errors import AnchorError
from dphrl.types import Anchor

KEY = ("task", "prompt_id", "draw")
"""Columns that name an anchor."""

AnchorKey = tuple[str, str, int]

CHECKSUM = "crc32"
"""Column with the checksum of the anchor's other columns: it is compared whenever the anchor is read."""

BATCH_BYTES = 32_000
"""Size of a record batch: whoever reads one anchor reads its batch."""


def anchor_key(anchor: Anchor) -> AnchorKey:
    """(task, prompt_id, draw)."""
    return anchor.task, anchor.prompt_id, anchor.draw


def anchor_schema(topk: int) -> pa.Schema:
    """Columns of a file; with `topk` > 0 the likeliest tokens of each position, in lists of that fixed size."""
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


def anchor_table(anchors: Sequence[Anchor], topk: int) -> pa.Table:
    """Anchors as a table of `anchor_schema(topk)`.

    Raises:
        AnchorError: an anchor without `topk` tokens at each position, or a log-probability that is not finite.
    """
    for anchor in anchors:
        _check(anchor, topk)
    schema = anchor_schema(topk)
    columns = [[getattr(a, name) for a in anchors] for name in schema.names[:-1]]
    kinds = {name: np.int32 if name.endswith("_ids") else np.float32 for name in schema.names[len(KEY) : -1]}
    checksums = [
        checksum(*anchor_key(a), [np.array(getattr(a, name), kind) for name, kind in kinds.items()]) for a in anchors
    ]
    return pa.table([*columns, checksums], schema=schema)


def checksum(task: str, prompt_id: str, draw: int, numbers: Sequence[np.ndarray]) -> int:
    """CRC-32 of an anchor: its draw and the size of every column in bytes, then the bytes of every column.

    Args:
        numbers: the columns of tokens and log-probabilities in the order of the schema, int32 and float32.
    """
    parts = [task.encode(), prompt_id.encode(), *(column.tobytes() for column in numbers)]
    return zlib.crc32(b"".join((struct.pack(f"<{1 + len(parts)}q", draw, *map(len, parts)), *parts)))


def list_lengths(table: pa.Table, column: str) -> Int64[np.ndarray, rows]:
    """Items of a list column in each row."""
    lengths: np.ndarray = pc.list_value_length(table[column]).to_numpy()
    return lengths.astype(np.int64)


def row_bytes(table: pa.Table) -> Int64[np.ndarray, rows]:
    """About how large each row is: 64 bytes for names, offsets and checksum, and its tokens."""
    topk = table.schema.field("topk_ids").type.value_type.list_size if "topk_ids" in table.schema.names else 0
    prompts, completions = (list_lengths(table, name) for name in ("prompt_ids", "completion_ids"))
    sizes: np.ndarray = 64 + 4 * prompts + (8 + 8 * topk) * completions
    return sizes


def write_anchor_file(path: Path, table: pa.Table) -> None:
    """An Arrow IPC file of record batches of equally many rows, about BATCH_BYTES each; the last may hold fewer."""
    rows = max(1, BATCH_BYTES * len(table) // int(row_bytes(table).sum()))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks(), max_chunksize=rows)


class AnchorFile:
    """One file, of which only the record batches with the anchors asked for are read.

    Args:
        path: an Arrow IPC file as `write_anchor_file` makes it.
        topk: likeliest tokens at each position; the columns must be those of `anchor_schema(topk)`.
        rows: how many anchors it must hold.
        mapped: read through a memory mapping. That is for files of one record batch, as schema 2 of the store has
            them: the pages that were read count as memory of this process until the system wants them back.
    Raises:
        AnchorError: no whole Arrow file, or one of other columns or with another number of rows.
    """

    def __init__(self, path: Path, topk: int, rows: int, *, mapped: bool = False) -> None:
        self.path = path
        self._topk = topk
        try:
            self._reader = pa.ipc.open_file(pa.memory_map(str(path)) if mapped else pa.OSFile(str(path)))
            if self._reader.schema != anchor_schema(topk):
                raise ValueError(f"it has the columns {', '.join(self._reader.schema.names)}")
            batches = self._reader.num_record_batches
            self._rows_each = self._reader.get_batch(0).num_rows
            self._rows: int = self._rows_each * (batches - 1) + self._reader.get_batch(batches - 1).num_rows
            if self._rows != rows:
                raise ValueError(f"it holds {self._rows} anchors, its manifest says {rows}")
        except (OSError, ValueError, pa.ArrowException) as error:
            first = str(error).partition("\n")[0]
            raise AnchorError(f"{path} is no whole file of anchors ({first}); {remedy(path)}") from None

    def __len__(self) -> int:
        return self._rows

    def table(self) -> pa.Table:
        """All rows, mapped into memory: for those who read everything once."""
        return pa.ipc.open_file(pa.memory_map(str(self.path))).read_all()

    def read_keys(self) -> list[AnchorKey]:
        """(task, prompt_id, draw) of every row, unchecked: compare the file's SHA-256 first."""
        table = self.table()
        return list(zip(*(table[name].to_pylist() for name in KEY), strict=True))

    def anchor(self, row: int) -> Anchor:
        """The anchor of a row.

        Raises:
            ValueError: the row is not what was written. OSError, ArrowException: it cannot be read at all.
        """
        number, place = divmod(row, self._rows_each)
        batch = self._reader.get_batch(number).slice(place, 1)
        batch.validate(full=True)  # an offset that points out of the batch must not be followed
        if any(column.null_count for column in batch.columns):
            raise ValueError(f"row {row} has a value missing")
        task, prompt_id, draw, *lists, crc = (column[0] for column in batch.columns)
        key = task.as_py(), prompt_id.as_py(), draw.as_py()
        columns = [*(items.values for items in lists[:3]), *(items.values.flatten() for items in lists[3:])]
        numbers = [np.from_dlpack(column) for column in columns]  # `to_numpy` imports pandas: 30 MB and 0.3 s
        if checksum(*key, numbers) != crc.as_py():
            raise ValueError(f"the checksum of row {row} differs")
        prompt_ids, completion_ids, ref_logps, *top = (tuple(column.tolist()) for column in numbers)
        each = [tuple(zip(*[iter(column)] * self._topk, strict=True)) for column in top]
        return Anchor(key[1], prompt_ids, completion_ids, ref_logps, key[0], key[2], *each)


def _check(anchor: Anchor, topk: int) -> None:
    name = f"anchor {anchor_key(anchor)}"
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
