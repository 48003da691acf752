"""Runs one query on one database inside a worker: read only, bounded, and leaving no trace for the next query.

Each defence stops a part of the attacks:
- the read-only URI stops writes to the file; the first word of the query stops EXPLAIN and REINDEX;
- the authorizer stops ATTACH, PRAGMA, TEMP objects and VACUUM INTO; SQLite's limits stop long SQL and big values;
- the progress handler stops long queries; the cap while fetching stops endless results;
- the limits of the heap and of the process bound memory and stop files from being opened or growing;
- the parent's deadline of CPU time stops a single call that never ends.
"""

from __future__ import annotations

import contextlib
import marshal
import math
import os
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from dphrl.types import Status
from dphrl.verifiers.sql.query_settings import QuerySettings
from dphrl.verifiers.sql.result_json import Row, Rows
from dphrl.verifiers.sql.sql_text import MAX_SQL, QUERIES, first_word, spider_rewrites, without_distinct
from dphrl.verifiers.workers.limits import MEMORY_BYTES, opening_files

OPEN_CONNECTIONS = 32
CACHE_BYTES = 8_000_000
"""Of one connection; all of them together must leave room below the limit of the heap."""
MAX_DETAIL = 500
"""Characters of an error, which may quote a hostile query, that are passed on."""
FIRST_FETCH = 16
"""Rows fetched before a result is first measured; each time after that, as many as there are, up to MOST_FETCHED."""
MOST_FETCHED = 4096
STEPS = 10_000
"""Steps of SQLite's machine between two looks at the clock: less than a millisecond."""

_ALLOWED = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE})  # and reading, which is noted
_FORBIDDEN_FUNCTIONS = frozenset({"load_extension", "fts3_tokenizer"})
_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: 1_000_000,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 4 * MAX_SQL,  # in bytes
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 1_000,
}
_STATUS_OF_ERROR: dict[int, Status] = {
    sqlite3.SQLITE_AUTH: "blocked",
    sqlite3.SQLITE_READONLY: "blocked",
    sqlite3.SQLITE_INTERRUPT: "timeout",
    sqlite3.SQLITE_TOOBIG: "memory",
    sqlite3.SQLITE_NOMEM: "memory",
    sqlite3.SQLITE_IOERR_NOMEM: "memory",
    sqlite3.SQLITE_FULL: "memory",
    # the rest is the database's fault, never a completion's
    sqlite3.SQLITE_BUSY: "gold_error",
    sqlite3.SQLITE_LOCKED: "gold_error",
    sqlite3.SQLITE_CORRUPT: "gold_error",
    sqlite3.SQLITE_NOTADB: "gold_error",
    sqlite3.SQLITE_CANTOPEN: "gold_error",
    sqlite3.SQLITE_IOERR: "gold_error",
    sqlite3.SQLITE_PROTOCOL: "gold_error",
}
_PRIMARY = 0xFF
"""Bits of an error's code that name its kind."""
_WANTS_A_FILE = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR})
"""Kinds of error where a query needs room for its intermediate results."""
_WRITES = ("alter", "analyze", "create", "delete", "drop", "insert", "reindex", "replace", "update", "vacuum")
_CONTROLS = ("attach", "begin", "commit", "detach", "end", "explain", "pragma", "release", "rollback", "savepoint")
_NOT_QUERIES = frozenset(_WRITES + _CONTROLS)


class _Deadline:
    """Ends a query that has used its CPU time. SQLite calls it every STEPS steps; the clock starts at the first call,
    when most queries are done already. The parent's deadline bounds what happens between two calls."""

    def start(self, seconds: float) -> None:
        self._seconds, self._end = seconds, math.inf

    def __call__(self) -> bool:
        now = time.process_time()
        self._end = min(self._end, now + self._seconds)
        return now > self._end


_deadline = _Deadline()


class QueryFailed(Exception):
    """A query that gave no result to compare."""

    def __init__(self, status: Status, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail[:MAX_DETAIL]


class Fetched(NamedTuple):
    """What a query returned."""

    rows: list[Row]
    description: Sequence[Any]
    """Of its columns, as `sqlite3` gives it."""

    @property
    def names(self) -> list[str]:
        """Of its columns."""
        return [name for name, *_ in self.description]


def run_query(
    database: tuple[str, str],
    sql: str,
    settings: QuerySettings,
    *,
    mode: str,
    deadline_s: float,
    most: int | None = None,
    fits: Callable[[Rows], bool] | None = None,
) -> Fetched:
    """Rows of a query.

    Args:
        database: path, and the version of the file that is meant (`database_file.database_version`).
        sql: as the policy or the annotator wrote it.
        mode: spider or bird: how the query is rewritten and its text decoded.
        deadline_s: CPU seconds.
        most: fetching may end once there are more rows.
        fits: says of new rows whether they may be part of a right result; fetching may end where they may not.
    Raises:
        QueryFailed: no result: not a query, an SQL error, forbidden, too long, too big; `gold_error` where the database
            is at fault.
    """
    written, sql = _rewritten(sql, settings, mode)
    if len(sql) > MAX_SQL:
        raise QueryFailed("blocked", f"a query of {len(sql)} characters; at most {MAX_SQL}")
    word = first_word(sql)
    if word not in QUERIES:
        raise QueryFailed("blocked" if word in _NOT_QUERIES else "invalid", f"begins with {word[:40]!r}, not a query")
    _deadline.start(deadline_s)
    _read.clear()
    lenient = roomy = False  # what few queries need, and costs the others time, is tried second
    try:
        while True:
            connection = _connection((*database, roomy))
            connection.text_factory = _lenient if lenient else str
            try:
                if written is not sql:  # taking words out must not mend what SQLite refuses
                    _prepare(connection, written)
                return _fetch(connection, sql, settings, most, fits)
            except sqlite3.OperationalError as error:
                if not lenient and mode == "spider" and "decode to UTF-8" in str(error):
                    lenient = True
                elif not roomy and _code(error) & _PRIMARY in _WANTS_A_FILE:
                    roomy = True
                else:
                    raise
            except MemoryError:  # what other connections keep must not decide
                if len(_connections) == 1:
                    raise
                _close_all()
    except (sqlite3.Error, sqlite3.Warning, ValueError) as error:  # ValueError: a lone surrogate, a null character
        status = _status(error)
        about = f"database {database[0]}: " if status == "gold_error" else ""
        raise QueryFailed(status, f"{about}{error}") from None
    except MemoryError:
        _close_all()
        raise QueryFailed("memory", "out of memory") from None


def tables_read() -> frozenset[str]:
    """Names, in lower case, of the tables and views that the query which was run last reads: real ones, not what it
    calls so itself."""
    return frozenset(name.lower() for name in _read if name)


def _rewritten(sql: str, settings: QuerySettings, mode: str) -> tuple[str, str]:
    """A query as SQLite must be able to read it, and as it is run; one object where they are the same."""
    if mode != "spider":
        return sql, sql
    sql = spider_rewrites(sql)
    return sql, sql if settings.keep_distinct else without_distinct(sql)


def _prepare(connection: sqlite3.Connection, sql: str) -> None:
    """Have SQLite read a query without running it.

    Raises:
        sqlite3.Error: it cannot.
    """
    connection.execute(f"EXPLAIN {sql}").close()


def _fetch(
    connection: sqlite3.Connection,
    sql: str,
    settings: QuerySettings,
    most: int | None,
    fits: Callable[[Rows], bool] | None,
) -> Fetched:
    with contextlib.closing(connection.execute(sql)) as cursor:
        if cursor.description is None:
            raise QueryFailed("invalid", "returns no columns")
        max_rows = settings.max_rows
        enough = max_rows if most is None else min(most, max_rows)
        rows: list[Row] = []
        step, size = FIRST_FETCH, 0
        while True:
            wanted = min(step, enough + 1 - len(rows))
            new = cursor.fetchmany(wanted)
            rows += new
            if fits is not None and not fits(new):
                return Fetched(rows, cursor.description)
            size += len(marshal.dumps(new))  # only to measure it: nothing else written in Python is as fast
            if size > settings.max_bytes:
                raise QueryFailed("memory", f"a result above {settings.max_bytes} bytes")
            if len(rows) > max_rows:
                raise QueryFailed("memory", f"a result of more than {max_rows} rows")
            if len(new) < wanted or len(rows) > enough:
                return Fetched(rows, cursor.description)
            step = min(len(rows), MOST_FETCHED)


def _status(error: Exception) -> Status:
    if "not authorized" in str(error):  # forbidden functions come without the code of their kind
        return "blocked"
    code = _code(error)
    return _STATUS_OF_ERROR.get(code) or _STATUS_OF_ERROR.get(code & _PRIMARY, "invalid")


def _code(error: Exception) -> int:
    return getattr(error, "sqlite_errorcode", 0)  # errors of the module itself have none


Key = tuple[str, str, bool]
"""Path of a database, its version, and whether intermediate results of any size are kept in memory."""

_connections: OrderedDict[Key, sqlite3.Connection] = OrderedDict()


def _connection(key: Key) -> sqlite3.Connection:
    """The open connection for a version of a database; the least recently used one is closed when there are many."""
    connection = _connections.get(key)
    if connection is None:
        if len(_connections) >= OPEN_CONNECTIONS:
            _connections.popitem(last=False)[1].close()
        with opening_files():
            connection = _connections[key] = _open(Path(key[0]), roomy=key[2])
    _connections.move_to_end(key)
    return connection


def _close_all() -> None:
    while _connections:
        _connections.popitem()[1].close()


def _open(path: Path, *, roomy: bool) -> sqlite3.Connection:
    """A connection that can only read.

    It takes the file for immutable, which saves a quarter of a small query's time and makes no file beside one in WAL
    mode: it is used for one version of the file only, and `verify_sql` looks whether that changed meanwhile.

    SQLite sorts and groups in one block of memory up to its cache's size, and would go on in a file, which it is not
    given. A roomy connection keeps any size in memory, in many small blocks, which is slower.

    Raises:
        QueryFailed: there is no database, or it cannot be read without touching it.
    """
    _check_file(path)
    # a quoted path, or a `?` in it could end the mode; no transaction and no statement outlives its query
    uri = f"file:{quote(os.fsencode(path))}?mode=ro&immutable=1"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, cached_statements=0)
    pragmas = {
        "temp_store": "MEMORY" if roomy else "FILE",
        "cache_size": -CACHE_BYTES // 1024,
        "hard_heap_limit": MEMORY_BYTES // 2,
        "trusted_schema": "OFF",
    }
    for name, value in pragmas.items():
        connection.execute(f"PRAGMA {name}={value}").close()
    for limit, bound in _LIMITS.items():
        connection.setlimit(limit, bound)
    connection.set_authorizer(_authorize)
    connection.set_progress_handler(_deadline, STEPS)
    return connection


def _check_file(path: Path) -> None:
    """Raises:
    QueryFailed: no file, one that cannot be read, or one with changes beside it that a reader would have to apply.
    """
    try:
        if not path.is_file():
            raise QueryFailed("gold_error", f"database {path} {'is no file' if path.exists() else 'does not exist'}")
        path.open("rb").close()
        beside = [_begin(path.with_name(path.name + end)) for end in ("-wal", "-journal")]
    except OSError as error:
        raise QueryFailed("gold_error", f"database {path} cannot be read: {error.strerror}") from None
    if any(beside):
        raise QueryFailed(
            "gold_error",
            f"database {path} has changes in a log beside it, which reading it would touch; "
            "close what writes to it, or run PRAGMA journal_mode=DELETE on it",
        )


def _begin(path: Path) -> bool:
    """Whether a log holds anything: there is a file, and it does not begin with zeros."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return any(file.read(8))


_read: set[str | None] = set()
"""What the query that is run, or was run last, reads; SQLite asks when it prepares it."""
_note = _read.add
_READ, _OK = sqlite3.SQLITE_READ, sqlite3.SQLITE_OK  # looked up here once: SQLite asks for each column


def _authorize(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    if action == _READ:
        _note(first)
        return _OK
    if action in _ALLOWED:
        return _OK
    if action == sqlite3.SQLITE_FUNCTION:
        allowed = (second or "").lower() not in _FORBIDDEN_FUNCTIONS
    else:
        # an update is what SQLite asks for when json_each and its like declare their columns; the schema itself it
        # never lets be updated
        allowed = action == sqlite3.SQLITE_UPDATE and first == "sqlite_master"
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def _lenient(data: bytes) -> str:
    return data.decode(errors="ignore")
