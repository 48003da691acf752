"""A database described for a prompt: CREATE TABLE statements with example values, as in the paper's SQL prompts."""

from __future__ import annotations

import contextlib
import csv
import io
import sqlite3
from collections.abc import Mapping
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
DESCRIPTION_LENGTH = 160
"""Characters shown of a long description of a column."""
DESCRIPTION_FOLDER = "database_description"
"""Beside a database: TABLE.csv with what its columns mean (BIRD)."""

Descriptions = Mapping[tuple[str, str], str]
"""(table, column), both in lower case -> what the column means."""


@cache
def schema_text(db: Path, *, examples: int = EXAMPLES, descriptions: bool = False) -> str:
    """Describe every table of a SQLite database, read only; the same file gives the same text.

    Args:
        db: path of the database.
        examples: different values shown of a column, >= 0.
        descriptions: also say what columns mean, where a folder `database_description` beside the database does.
    Returns:
        One CREATE TABLE per table in order of creation: columns with type, description and example values, primary
        and foreign keys.
    Raises:
        DataError: the file is missing or no SQLite database, or holds no table; a description cannot be read.
    """
    if not db.is_file():
        raise DataError(f"database {db} does not exist; check task.verifier_args.db_dir and the column of field db")
    meanings = _descriptions(db.parent / DESCRIPTION_FOLDER) if descriptions else {}
    try:
        with contextlib.closing(sqlite3.connect(f"file:{quote(str(db))}?mode=ro", uri=True)) as connection:
            connection.text_factory = lambda data: data.decode(errors="ignore")
            names = connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
            ).fetchall()
            tables = [_table(connection, name, examples, meanings) for (name,) in names]
    except sqlite3.Error as error:
        raise DataError(f"database {db} cannot be read: {error}") from None
    if not tables:
        raise DataError(f"database {db} holds no table")
    return "\n\n".join(tables)


def _table(connection: sqlite3.Connection, name: str, examples: int, meanings: Descriptions) -> str:
    columns = connection.execute(f"PRAGMA table_info({_quoted(name)})").fetchall()
    keys = connection.execute(f"PRAGMA foreign_key_list({_quoted(name)})").fetchall()
    lines = []
    for _, column, kind, *_ in columns:
        facts = [meanings.get((name.lower(), column.lower()), ""), _examples(connection, name, column, examples)]
        comment = "; ".join(filter(None, facts))
        lines.append((f"{_name(column)} {kind}".rstrip(), f" -- {comment}" if comment else ""))
    primary = [_name(column) for _, column, *_, position in sorted(columns, key=lambda row: row[-1]) if position]
    if primary:
        lines.append((f"PRIMARY KEY ({', '.join(primary)})", ""))
    for _, _, other, own_column, other_column, *_ in sorted(keys, key=lambda row: row[:2]):
        target = f"{_name(other)} ({_name(other_column)})" if other_column else _name(other)
        lines.append((f"FOREIGN KEY ({_name(own_column)}) REFERENCES {target}", ""))
    last = len(lines) - 1
    body = "\n".join(
        f"    {text}{'' if index == last else ','}{comment}" for index, (text, comment) in enumerate(lines)
    )
    return f"CREATE TABLE {_name(name)} (\n{body}\n);"


def _examples(connection: sqlite3.Connection, table: str, column: str, count: int) -> str:
    if not count:
        return ""
    rows = connection.execute(
        f"SELECT DISTINCT value FROM (SELECT {_quoted(column)} AS value FROM {_quoted(table)} LIMIT {SCANNED_ROWS}) "
        f"WHERE value IS NOT NULL AND typeof(value) <> 'blob' LIMIT {count}"
    ).fetchall()
    return f"example: [{', '.join(_value(value) for (value,) in rows)}]" if rows else ""


def _value(value: object) -> str:
    return repr(_shortened(value, VALUE_LENGTH)) if isinstance(value, str) else repr(value)


def _shortened(text: str, length: int) -> str:
    """The text on one line, cut at `length` characters."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[:length] + "..."


def _name(name: str) -> str:
    return name if name.isidentifier() and name.isascii() else _quoted(name)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _descriptions(folder: Path) -> Descriptions:
    """What the columns of every table mean; empty without the folder."""
    meanings: dict[tuple[str, str], str] = {}
    for path in sorted(folder.glob("*.csv")):
        try:
            rows = list(csv.DictReader(io.StringIO(_decoded(path), newline="")))
        except (OSError, csv.Error) as error:
            raise DataError(f"{path} cannot be read: {error}; mend it, or move it out of {folder}") from None
        for row in rows:
            cells = {str(key).strip().lower(): value or "" for key, value in row.items() if isinstance(value, str)}
            column = cells.get("original_column_name", "").strip().lower()
            meaning = _meaning(column, cells)
            if column and meaning:
                meanings[path.stem.strip().lower(), column] = meaning
    return meanings


def _meaning(column: str, cells: Mapping[str, str]) -> str:
    """The description (else the long name) of a column, and what its values mean, without repeating its own name."""
    name, values = (
        "; ".join(filter(None, map(str.strip, text.splitlines())))
        for text in (
            cells.get("column_description", "").strip() or cells.get("column_name", ""),
            cells.get("value_description", ""),
        )
    )
    return _shortened(": ".join(text for text in (name, values) if text and text.lower() != column), DESCRIPTION_LENGTH)


def _decoded(path: Path) -> str:
    """Some of BIRD's descriptions are Latin-1; no byte is invalid there."""
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")
