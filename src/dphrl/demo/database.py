"""The demo's SQLite database: three in-domain tables that are trained, two cross-domain tables that are only measured.

It is made so that different readings of one question give different rows: labels and categories repeat, numbers tie
(also at the top and the bottom), and one category column and one number column of each table hold NULLs.
"""

from __future__ import annotations

import random
import sqlite3
from dataclasses import dataclass
from pathlib import Path

ROWS = 20
"""Rows of each table (count)."""
DOUBLED_LABELS = 3
"""Labels of a table that two rows share: over half of the questions that list labels select such a pair."""
NULL_SHARE = 0.15
"""Share of NULLs in a table's category column and in its second number column."""
LOWEST, HIGHEST = 10, 49
"""Range of every number in the database; questions ask for values in it."""
DISTINCT_VALUES = 12
"""Different values of a number column: few, so that ties are common and a threshold often meets a row."""


@dataclass(frozen=True, slots=True)
class WorldTable:
    """A table of the world: an id, a label, a category with NULLs, and two numbers, the second with NULLs."""

    name: str
    label: str
    category: str
    categories: tuple[str, ...]
    numbers: tuple[str, str]


def _table(name: str, columns: str, categories: str) -> WorldTable:
    label, category, first, second = columns.split()
    return WorldTable(name, label, category, tuple(categories.split()), (first, second))


IN_DOMAIN = (
    _table("singer", "name country age income", "france japan peru kenya norway chile egypt nepal"),
    _table("song", "title genre length plays", "rock jazz folk punk soul blues disco opera"),
    _table("venue", "hall city seats price", "paris tokyo lima oslo rome delhi dakar quito"),
)
CROSS_DOMAIN = (
    _table("player", "nick team height goals", "hawks bears lions wolves foxes sharks bulls eagles"),
    _table("book", "cover author pages cost", "woolf borges eco lem camus kafka duras levi"),
)
TABLES = IN_DOMAIN + CROSS_DOMAIN


def draw_rows(table: WorldTable, *, rng: random.Random) -> list[tuple[int, str, str | None, int, int | None]]:
    """Draw the rows of one table: (id, label, category or NULL, first number, second number or NULL)."""
    first, second = (rng.sample(range(LOWEST, HIGHEST + 1), DISTINCT_VALUES) for _ in table.numbers)
    labels = rng.sample(range(ROWS * 2), ROWS - DOUBLED_LABELS)
    labels += labels[:DOUBLED_LABELS]
    rng.shuffle(labels)
    return [
        (
            row_id,
            f"{table.label}{labels[row_id - 1]}",
            None if rng.random() < NULL_SHARE else rng.choice(table.categories),
            rng.choice(first),
            None if rng.random() < NULL_SHARE else rng.choice(second),
        )
        for row_id in range(1, ROWS + 1)
    ]


def write_database(path: Path, *, rng: random.Random) -> None:
    """Create the world's database at `path`, replacing what is there."""
    path.unlink(missing_ok=True)
    connection = sqlite3.connect(path)
    try:
        for table in TABLES:
            columns = (
                f"id INTEGER PRIMARY KEY, {table.label} TEXT, {table.category} TEXT, "
                f"{table.numbers[0]} INTEGER, {table.numbers[1]} INTEGER"
            )
            connection.execute(f"CREATE TABLE {table.name} ({columns})")
            connection.executemany(f"INSERT INTO {table.name} VALUES (?, ?, ?, ?, ?)", draw_rows(table, rng=rng))
        connection.commit()
    finally:
        connection.close()


def open_database(path: Path) -> sqlite3.Connection:
    """Open the world's database read-only."""
    return sqlite3.connect(f"file:{path.resolve().as_posix()}?mode=ro", uri=True)


def numbers_in(connection: sqlite3.Connection, table: WorldTable, column: str) -> set[int]:
    """The different values of a number column, NULL left out."""
    rows = connection.execute(f"SELECT DISTINCT {column} FROM {table.name} WHERE {column} IS NOT NULL")
    return {int(value) for (value,) in rows}
