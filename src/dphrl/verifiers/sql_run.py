"""Runs SQL for `sql_verify`, inside the worker: read only, bounded, and leaving no trace for the next query.

What stops what, each only a part: read-only URI - writes to the file; first word - EXPLAIN, REINDEX; authorizer -
ATTACH, PRAGMA, TEMP objects, VACUUM INTO; limits - long SQL, big values; progress handler - long queries; heap limit,
rlimits - memory, spill files; cap while fetching - endless results; CPU deadline - a single call that never ends.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from dphrl.types import Status
from dphrl.verifiers.limits import MEMORY_BYTES, arm_cpu_deadline
from dphrl.verifiers.sql_equal import Row, bird_equal, spider_equal
from dphrl.verifiers.sql_text import QUERIES, first_word, orders_rows, spider_rewrites, without_distinct

OPEN_CONNECTIONS = 32
CACHED_GOLD_BYTES = 64 << 20
MAX_SQL = 100_000
HARD_FACTOR = 2.0
"""The kernel's deadline as a multiple of the one that SQLite is asked to keep, which costs no new worker."""

_ALLOWED = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE})
_FORBIDDEN_FUNCTIONS = frozenset({"load_extension", "fts3_tokenizer"})
_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: 1_000_000,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: MAX_SQL,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 1_000,
}
_STATUS_OF_ERROR: dict[str, Status] = {
    "SQLITE_AUTH": "blocked",
    "SQLITE_READONLY": "blocked",
    "SQLITE_INTERRUPT": "timeout",
    "SQLITE_TOOBIG": "memory",
    "SQLITE_NOMEM": "memory",
}
_WRITES = ("alter", "analyze", "create", "delete", "drop", "insert", "reindex", "replace", "update", "vacuum")
_CONTROLS = ("attach", "begin", "commit", "detach", "end", "explain", "pragma", "release", "rollback", "savepoint")


class QueryFailed(Exception):
    """A query that gave no result to compare."""

    def __init__(self, status: Status, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


@dataclass(frozen=True, slots=True)
class Gold:
    """Result of a gold query, or why it has none."""

    rows: list[Row]
    size: int
    ordered: bool
    failure: str = ""


def judge(item: tuple[str, str, str, str | None], settings: Mapping[str, Any]) -> tuple[Status, str]:
    """Judge one query against its gold query.

    Args:
        item: path of the database; mode (spider or bird); gold query; query, or None to run the gold query alone.
        settings: deadline_s, gold_deadline_s (CPU seconds), max_rows, max_bytes (of a result), keep_distinct (spider).
    Returns:
        Status and detail; for the gold query alone `correct` or `gold_error`.
    """
    db, mode, gold_sql, sql = item
    gold = _gold(db, mode, gold_sql, settings)
    if gold.failure:
        return "gold_error", gold.failure
    if sql is None:
        return "correct", ""
    # a spider result longer than the gold's is wrong whatever follows; a bird one may repeat rows
    enough = len(gold.rows) + 1 if mode == "spider" else settings["max_rows"] + 1
    try:
        rows, _ = _run((db, "completion"), mode, sql, settings, settings["deadline_s"], enough)
    except QueryFailed as failure:
        return failure.status, failure.detail
    equal = spider_equal(gold.rows, rows, ordered=gold.ordered) if mode == "spider" else bird_equal(gold.rows, rows)
    return ("correct", "") if equal else ("wrong", "another result than the gold query's")


_golds: OrderedDict[tuple[str, str, str, bool], Gold] = OrderedDict()
_connections: OrderedDict[tuple[str, str], sqlite3.Connection] = OrderedDict()


def _gold(db: str, mode: str, sql: str, settings: Mapping[str, Any]) -> Gold:
    """Run a gold query once, on a connection that no completion ever uses, and remember the result."""
    key = (db, mode, sql, settings["keep_distinct"])
    if key not in _golds:
        ordered = mode == "spider" and orders_rows(sql)
        try:
            rows, size = _run((db, "gold"), mode, sql, settings, settings["gold_deadline_s"], settings["max_rows"] + 1)
            _golds[key] = Gold(rows, size, ordered)
        except QueryFailed as failure:
            _golds[key] = Gold([], 0, ordered, f"gold query: {failure.status}: {failure.detail}")
        while len(_golds) > 1 and sum(gold.size for gold in _golds.values()) > CACHED_GOLD_BYTES:
            _golds.popitem(last=False)
    _golds.move_to_end(key)
    return _golds[key]


def _run(
    key: tuple[str, str], mode: str, sql: str, settings: Mapping[str, Any], deadline_s: float, enough: int
) -> tuple[list[Row], int]:
    """Rows of a query and their size in bytes, or QueryFailed.

    Args:
        key: database and what the connection is for.
        deadline_s: CPU seconds.
        enough: rows after which fetching stops.
    """
    if mode == "spider":
        sql = spider_rewrites(sql) if settings["keep_distinct"] else without_distinct(spider_rewrites(sql))
    if len(sql) > MAX_SQL:
        raise QueryFailed("blocked", f"a query of {len(sql)} characters; at most {MAX_SQL}")
    word = first_word(sql)
    if word not in QUERIES:
        raise QueryFailed(
            "blocked" if word in _WRITES + _CONTROLS else "invalid", f"begins with {word[:40]!r}, not a query"
        )
    arm_cpu_deadline(HARD_FACTOR * deadline_s)
    try:
        connection = _connection(key)
        connection.text_factory = _lenient if mode == "spider" else str
        end = time.process_time() + deadline_s
        connection.set_progress_handler(lambda: time.process_time() > end, 10_000)
        with contextlib.closing(connection.execute(sql)) as cursor:
            return _fetch(cursor, settings, enough)
    except (sqlite3.Error, sqlite3.Warning, ValueError) as error:  # ValueError: a lone surrogate, a null character
        raise QueryFailed(_status(error), str(error)) from None
    except MemoryError:
        _connections.pop(key).close()
        raise QueryFailed("memory", "out of memory") from None


def _fetch(cursor: sqlite3.Cursor, settings: Mapping[str, Any], enough: int) -> tuple[list[Row], int]:
    if cursor.description is None:
        raise QueryFailed("invalid", "returns no columns")
    rows: list[Row] = []
    size = 0
    for row in cursor:
        rows.append(row)
        size += 64 + sum(len(cell) + 64 if isinstance(cell, str | bytes) else 32 for cell in row)
        if len(rows) >= enough:
            break
        if size > settings["max_bytes"]:
            raise QueryFailed("memory", f"a result above {settings['max_bytes']} bytes")
    if len(rows) > settings["max_rows"]:
        raise QueryFailed("memory", f"a result of more than {settings['max_rows']} rows")
    return rows, size


def _status(error: Exception) -> Status:
    if "not authorized" in str(error):  # forbidden functions come without the code of their kind
        return "blocked"
    return _STATUS_OF_ERROR.get(getattr(error, "sqlite_errorname", ""), "invalid")


def _connection(key: tuple[str, str]) -> sqlite3.Connection:
    """The open connection for a database and a purpose; the least recently used one is closed when there are many."""
    if key not in _connections:
        if len(_connections) >= OPEN_CONNECTIONS:
            _connections.popitem(last=False)[1].close()
        _connections[key] = _open(key[0])
    _connections.move_to_end(key)
    return _connections[key]


def _open(db: str) -> sqlite3.Connection:
    # a quoted path, or a `?` in it could end the mode; no transaction and no statement outlives its query
    connection = sqlite3.connect(f"file:{quote(db)}?mode=ro", uri=True, isolation_level=None, cached_statements=0)
    for pragma in ("temp_store=MEMORY", "trusted_schema=OFF", f"hard_heap_limit={MEMORY_BYTES // 2}"):
        connection.execute(f"PRAGMA {pragma}").close()
    for limit, value in _LIMITS.items():
        connection.setlimit(limit, value)
    connection.set_authorizer(_authorize)
    return connection


def _authorize(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    if action == sqlite3.SQLITE_FUNCTION:
        allowed = (second or "").lower() not in _FORBIDDEN_FUNCTIONS
    elif action == sqlite3.SQLITE_UPDATE:
        # what SQLite asks when json_each and its like declare their columns; the schema itself it never lets be updated
        allowed = first == "sqlite_master"
    else:
        allowed = action in _ALLOWED
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def _lenient(data: bytes) -> str:
    return data.decode(errors="ignore")
