"""Runs gold queries, in processes of their own that no completion ever reaches, and writes down what they return."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from dphrl.types import Status
from dphrl.verifiers.sql_equal import Row
from dphrl.verifiers.sql_exec import QueryFailed, run_query
from dphrl.verifiers.sql_text import orders_rows


def judge(item: tuple[str, str, str, str], settings: Mapping[str, Any]) -> tuple[Status, str]:
    """Run one gold query.

    Args:
        item: path of the database and its version; mode (spider or bird); gold query.
        settings: gold_deadline_s (CPU seconds), max_rows, max_bytes (of the result), keep_distinct (spider).
    Returns:
        `correct` and the result as text (`encode`), or `gold_error` and why.
    """
    db, version, mode, sql = item
    try:
        rows = run_query((db, version), sql, settings, mode=mode, deadline_s=settings["gold_deadline_s"])
    except QueryFailed as failure:
        return "gold_error", f"gold query on {db}: {failure.status}: {failure.detail}"
    return "correct", encode(rows, ordered=has_order(sql))


def has_order(sql: str) -> bool:
    """Whether the outermost query has ORDER BY, by sqlglot; where it cannot read the query, by SQLite's tokens alone.

    The official Spider script looks for 'order by' anywhere, within strings and subqueries too; there it demands an
    order that SQL does not promise.
    """
    if "order" not in sql.lower():
        return False
    import sqlglot  # late: most golds do without it

    try:
        return sqlglot.parse_one(sql, read="sqlite").args.get("order") is not None
    except (sqlglot.errors.SqlglotError, RecursionError):
        return orders_rows(sql)


def encode(rows: list[Row], *, ordered: bool) -> str:
    """A result as JSON text. Blobs are written in base 64; SQLite has no NaN, and infinities are read back as such."""
    blobs = [
        (i, j) for i, row in enumerate(rows) for j, cell in enumerate(row) if isinstance(cell, bytes)
    ]  # not by a mark in the cell: a text could look like one
    return json.dumps(
        {"rows": rows, "ordered": ordered, "blobs": blobs}, default=lambda data: base64.b64encode(data).decode()
    )


def decode(text: str) -> tuple[list[Row], bool]:
    """What `encode` wrote: rows, and whether the gold query orders them."""
    value = json.loads(text)
    for i, j in value["blobs"]:
        value["rows"][i][j] = base64.b64decode(value["rows"][i][j])
    return [tuple(row) for row in value["rows"]], value["ordered"]
