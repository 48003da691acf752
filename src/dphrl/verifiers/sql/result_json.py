"""What a gold query returned, and how it is written down: as JSON, which no reader of a cache has to trust."""

from __future__ import annotations

import base64
import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

Row = tuple[Hashable, ...]
Rows = Sequence[Row]


@dataclass(frozen=True, slots=True)
class Result:
    """What a gold query returned, and what comparing it needs."""

    rows: list[Row]
    """Cells are None, int, float, str or bytes."""
    ordered: bool = False
    """Whether the query orders its rows."""
    ties: tuple[tuple[int, int], ...] = ()
    """Begin and end of the runs of two rows or more that its ORDER BY leaves equal."""
    tables: frozenset[str] = frozenset()
    """The tables and views it reads, in lower case."""


def encode(result: Result) -> str:
    """A result as JSON text. Blobs are written in base 64; SQLite has no NaN, and infinities are read back as such.

    Returns:
        What `decode` reads back, every cell of the same type and value.
    """
    blobs = [
        (i, j) for i, row in enumerate(result.rows) for j, cell in enumerate(row) if isinstance(cell, bytes)
    ]  # not by a mark in the cell: a text could look like one
    value = {
        "rows": result.rows,
        "ordered": result.ordered,
        "ties": result.ties,
        "tables": sorted(result.tables),
        "blobs": blobs,
    }
    return json.dumps(value, default=lambda data: base64.b64encode(data).decode())


def decode(text: str) -> Result:
    """The result that `encode` wrote."""
    value = json.loads(text)
    for i, j in value["blobs"]:
        value["rows"][i][j] = base64.b64decode(value["rows"][i][j])
    return Result(
        [tuple(row) for row in value["rows"]],
        value["ordered"],
        tuple((first, end) for first, end in value["ties"]),
        frozenset(value["tables"]),
    )
