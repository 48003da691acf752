"""What a query returned, and how it is written down: as JSON, which no reader of a cache has to trust."""

from __future__ import annotations

import base64
import json
from collections.abc import Hashable, Sequence

Row = tuple[Hashable, ...]
Rows = Sequence[Row]


def encode(rows: Rows, *, ordered: bool) -> str:
    """A result as JSON text. Blobs are written in base 64; SQLite has no NaN, and infinities are read back as such.

    Args:
        rows: cells are None, int, float, str or bytes.
        ordered: whether the query orders its rows.
    Returns:
        What `decode` reads back, every cell of the same type and value.
    """
    blobs = [
        (i, j) for i, row in enumerate(rows) for j, cell in enumerate(row) if isinstance(cell, bytes)
    ]  # not by a mark in the cell: a text could look like one
    return json.dumps(
        {"rows": rows, "ordered": ordered, "blobs": blobs}, default=lambda data: base64.b64encode(data).decode()
    )


def decode(text: str) -> tuple[list[Row], bool]:
    """What `encode` wrote: rows, and whether the query orders them."""
    value = json.loads(text)
    for i, j in value["blobs"]:
        value["rows"][i][j] = base64.b64decode(value["rows"][i][j])
    return [tuple(row) for row in value["rows"]], value["ordered"]
