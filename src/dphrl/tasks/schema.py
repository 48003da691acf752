"""A database described for a prompt: CREATE TABLE statements with example values, as in the paper's SQL prompts."""

from __future__ import annotations

import contextlib
import sqlite3
from functools import cache
from pathlib import Path
from urllib.parse import quote

from dphrl.errors import DataError

EXAMPLES = 2
"""Different values shown of a column."""
SCANNED_ROWS = 1_000
"""Rows of a table that examples are looked for in: the cost of a prompt must not grow with the database."""
VALUE_LENGTH = 40
"""Characters shown of a long value."""


@cache
def schema_text(db: Path) -> str:
    """Describe every table of a SQLite database, read only; the same file gives the same text.

    Args:
        db: path of the database.
    Returns:
        One CREATE TABLE per table in order of creation: columns with type and example values, primary and foreign keys.
    Raises:
        DataError: the file is missing or no SQLite database, or holds no table.
    """
    if not db.is_file():
        raise DataError(f"database {db} does not exist; check task.verifier_args.db_dir and the column of field db")
    try:
        with contextlib.closing(sqlite3.connect(f"file:{quote(str(db))}?mode=ro", uri=True)) as connection:
            connection.text_factory = lambda data: data.decode(errors="ignore")
            names = connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
            ).fetchall()
            tables = [_table(connection, name) for (name,) in names]
    except sqlite3.Error as error:
        raise DataError(f"database {db} cannot be read: {error}") from None
    if not tables:
        raise DataError(f"database {db} holds no table")
    return "\n\n".join(tables)


def _table(connection: sqlite3.Connection, name: str) -> str:
    columns = connection.execute(f"PRAGMA table_info({_quoted(name)})").fetchall()
    keys = connection.execute(f"PRAGMA foreign_key_list({_quoted(name)})").fetchall()
    lines = [
        (f"{_name(column)} {kind}".rstrip(), _examples(connection, name, column)) for _, column, kind, *_ in columns
    ]
    primary = [_name(column) for _, column, *_, position in sorted(columns, key=lambda row: row[-1]) if position]
    if primary:
        lines.append((f"PRIMARY KEY ({', '.join(primary)})", ""))
    for _, _, other, own, theirs, *_ in sorted(keys, key=lambda row: row[:2]):
        target = f"{_name(other)} ({_name(theirs)})" if theirs else _name(other)
        lines.append((f"FOREIGN KEY ({_name(own)}) REFERENCES {target}", ""))
    last = len(lines) - 1
    body = "\n".join(
        f"    {text}{'' if index == last else ','}{comment}" for index, (text, comment) in enumerate(lines)
    )
    return f"CREATE TABLE {_name(name)} (\n{body}\n);"


def _examples(connection: sqlite3.Connection, table: str, column: str) -> str:
    rows = connection.execute(
        f"SELECT DISTINCT value FROM (SELECT {_quoted(column)} AS value FROM {_quoted(table)} LIMIT {SCANNED_ROWS}) "
        f"WHERE value IS NOT NULL AND typeof(value) <> 'blob' LIMIT {EXAMPLES}"
    ).fetchall()
    return f" -- example: [{', '.join(_value(value) for (value,) in rows)}]" if rows else ""


def _value(value: object) -> str:
    if not isinstance(value, str):
        return repr(value)
    text = " ".join(value.split())
    return repr(text if len(text) <= VALUE_LENGTH else text[:VALUE_LENGTH] + "...")


def _name(name: str) -> str:
    return name if name.isidentifier() and name.isascii() else _quoted(name)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
