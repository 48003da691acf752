"""Runs one query on one database inside a worker: read only, bounded, and leaving no trace for the next query.

What stops what, each only a part: read-only URI - writes to the file; first word - EXPLAIN, REINDEX; authorizer -
ATTACH, PRAGMA, TEMP objects, VACUUM INTO; limits - long SQL, big values; progress handler - long queries; heap limit,
rlimits - memory, spill files; cap while fetching - endless results; the parent's CPU deadline - a call that never ends.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dphrl.types import Status
from dphrl.verifiers.limits import MEMORY_BYTES
from dphrl.verifiers.sql_equal import Row
from dphrl.verifiers.sql_text import QUERIES, first_word, spider_rewrites, without_distinct

OPEN_CONNECTIONS = 32
MAX_SQL = 100_000
MAX_DETAIL = 500
"""Characters of an error, which may quote a hostile query, that are passed on."""

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
_NOT_QUERIES = frozenset(_WRITES + _CONTROLS)
_WAL_FORMAT = b"\x02\x02"
"""Bytes 18 and 19 of a database whose changes go to a log beside it."""


class QueryFailed(Exception):
    """A query that gave no result to compare."""

    def __init__(self, status: Status, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail[:MAX_DETAIL]


def run_query(
    database: tuple[str, str],
    sql: str,
    settings: Mapping[str, Any],
    *,
    mode: str,
    deadline_s: float,
    enough: Callable[[list[Row]], bool] | None = None,
) -> list[Row]:
    """Rows of a query.

    Args:
        database: path, and the version of the file that is meant (`sql.database_version`).
        sql: as the policy or the annotator wrote it.
        settings: keep_distinct (spider), max_rows, max_bytes (of the result).
        mode: spider or bird: how the query is rewritten and its text decoded.
        deadline_s: CPU seconds.
        enough: told the rows so far after each one; True ends the fetching.
    Raises:
        QueryFailed: no result: not a query, an SQL error, forbidden, too long, too big.
    """
    if mode == "spider":
        sql = spider_rewrites(sql) if settings["keep_distinct"] else without_distinct(spider_rewrites(sql))
    if len(sql) > MAX_SQL:
        raise QueryFailed("blocked", f"a query of {len(sql)} characters; at most {MAX_SQL}")
    word = first_word(sql)
    if word not in QUERIES:
        raise QueryFailed("blocked" if word in _NOT_QUERIES else "invalid", f"begins with {word[:40]!r}, not a query")
    try:
        connection = _connection(database)
        connection.text_factory = _lenient if mode == "spider" else str
        end = time.process_time() + deadline_s
        connection.set_progress_handler(lambda: time.process_time() > end, 10_000)
        with contextlib.closing(connection.execute(sql)) as cursor:
            return _fetch(cursor, settings, enough)
    except (sqlite3.Error, sqlite3.Warning, ValueError) as error:  # ValueError: a lone surrogate, a null character
        raise QueryFailed(_status(error), str(error)) from None
    except MemoryError:
        _connections.pop(database).close()
        raise QueryFailed("memory", "out of memory") from None


def _fetch(
    cursor: sqlite3.Cursor, settings: Mapping[str, Any], enough: Callable[[list[Row]], bool] | None
) -> list[Row]:
    if cursor.description is None:
        raise QueryFailed("invalid", "returns no columns")
    rows: list[Row] = []
    size = 0
    max_rows, max_bytes = settings["max_rows"], settings["max_bytes"]
    for row in cursor:
        rows.append(row)
        if enough is not None and enough(rows):
            return rows
        size += 64 + sum([len(cell) + 64 if isinstance(cell, str | bytes) else 32 for cell in row])
        if size > max_bytes:
            raise QueryFailed("memory", f"a result above {max_bytes} bytes")
        if len(rows) > max_rows:
            raise QueryFailed("memory", f"a result of more than {max_rows} rows")
    return rows


def _status(error: Exception) -> Status:
    if "not authorized" in str(error):  # forbidden functions come without the code of their kind
        return "blocked"
    return _STATUS_OF_ERROR.get(getattr(error, "sqlite_errorname", ""), "invalid")


_connections: OrderedDict[tuple[str, str], sqlite3.Connection] = OrderedDict()


def _connection(database: tuple[str, str]) -> sqlite3.Connection:
    """The open connection for a version of a database; the least recently used one is closed when there are many."""
    connection = _connections.get(database)
    if connection is None:
        if len(_connections) >= OPEN_CONNECTIONS:
            _connections.popitem(last=False)[1].close()
        connection = _connections[database] = _open(Path(database[0]))
    _connections.move_to_end(database)
    return connection


def _open(path: Path) -> sqlite3.Connection:
    """A connection that can only read, or QueryFailed."""
    if not path.is_file():
        raise QueryFailed("invalid", f"database {path} does not exist")
    # a quoted path, or a `?` in it could end the mode; no transaction and no statement outlives its query
    uri = f"file:{quote(str(path))}?mode=ro{_immutable(path)}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, cached_statements=0)
    for pragma in ("temp_store=MEMORY", "trusted_schema=OFF", f"hard_heap_limit={MEMORY_BYTES // 2}"):
        connection.execute(f"PRAGMA {pragma}").close()
    for limit, value in _LIMITS.items():
        connection.setlimit(limit, value)
    connection.set_authorizer(_authorize)
    return connection


def _immutable(path: Path) -> str:
    """What lets SQLite read a database in WAL mode without making the files beside it that the mode asks for."""
    with path.open("rb") as file:
        if file.read(20)[18:] != _WAL_FORMAT:
            return ""
    log = path.with_name(path.name + "-wal")
    if log.is_file() and log.stat().st_size:
        raise QueryFailed(
            "invalid",
            f"database {path} has changes in a log beside it, which reading it would touch; "
            "close what writes to it, or run PRAGMA journal_mode=DELETE on it",
        )
    return "&immutable=1"


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
