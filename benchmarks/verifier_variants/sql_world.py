"""Gold queries with their databases, and what is true of two queries: both are run with sqlite3 alone, and compared
by rules written here. Nothing of dphrl's verifier is used."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, permutations
from pathlib import Path

import sqlglot

from dphrl.demo.task import ASSETS, world_database

MAX_ROWS = 2_000
MAX_COLUMNS = 5
"""Wider results are compared column by column in place: their permutations would take too long."""
STEPS = 2_000
"""Thousands of SQLite's steps after which a query is given up."""
Result = tuple[tuple[object, ...], ...]


@dataclass(frozen=True, slots=True)
class SqlGold:
    """A gold query."""

    source: str
    sql: str
    db: str
    prompt: str


def sql_golds(folder: Path) -> Iterator[SqlGold]:
    """Spider's gold queries where the data is there, then those of the shipped world; each once."""
    seen = set()
    for gold in (*_spider(folder / "spider"), *_shipped()):
        if (gold.db, gold.sql) not in seen:
            seen.add((gold.db, gold.sql))
            yield gold


def _spider(folder: Path) -> Iterator[SqlGold]:
    for name in ("dev", "train_spider"):
        path = folder / f"{name}.jsonl"
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
            row = json.loads(line)
            db = folder / "database" / row["db_id"] / f"{row['db_id']}.sqlite"
            yield SqlGold("spider", row["query"].strip().removesuffix(";").strip(), str(db), row["question"])


def _shipped() -> Iterator[SqlGold]:
    for line in (ASSETS / "prompts.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["gold"].upper().startswith("SELECT"):
            yield SqlGold("shipped", row["gold"], str(world_database()), row["prompt"])


@lru_cache(maxsize=256)
def _connection(db: str) -> sqlite3.Connection:
    connection = sqlite3.connect(f"file:{db}?mode=ro&immutable=1", uri=True)
    connection.text_factory = lambda data: data.decode(errors="ignore")
    return connection


@lru_cache(maxsize=20_000)
def result(db: str, sql: str) -> Result | None:
    """What a query returns; None where it fails, takes too long, or returns too much."""
    connection = _connection(db)
    left = [STEPS]

    def tick() -> bool:
        left[0] -= 1
        return left[0] < 0

    connection.set_progress_handler(tick, 1000)
    try:
        cursor = connection.execute(sql)
        rows = cursor.fetchmany(MAX_ROWS + 1)
    except (sqlite3.Error, sqlite3.Warning, ValueError):
        return None
    finally:
        connection.set_progress_handler(None, 0)  # or a handler that has run out would end the next query
    return tuple(rows) if cursor.description and len(rows) <= MAX_ROWS else None


def tables(db: str) -> dict[str, list[tuple[str, str]]]:
    """Table -> [(column, declared type)]."""
    connection = _connection(db)
    names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    quoted = {name: name.replace('"', '""') for name in names}
    return {
        name: [(row[1], row[2]) for row in connection.execute(f'PRAGMA table_info("{quoted[name]}")')] for name in names
    }


def surely_same(one: Result, other: Result) -> bool:
    """The same rows in the same order."""
    return _rounded(one) == _rounded(other)


def same_bag(one: Result, other: Result) -> bool:
    """The same rows in any order, under some order of the columns; numbers to 6 digits."""
    left, right = _rounded(one), _rounded(other)
    if len(left) != len(right):
        return False
    if not left:
        return True
    width = len(left[0])
    if width != len(right[0]):
        return False
    wanted = Counter(left)
    orders = permutations(range(width)) if width <= MAX_COLUMNS else [tuple(range(width))]
    return any(Counter(tuple(row[place] for place in order) for row in right) == wanted for order in orders)


def _rounded(rows: Result) -> Result:
    return tuple(tuple(_number(cell) for cell in row) for row in rows)


def _number(cell: object) -> object:
    return float(f"{cell:.6g}") + 0.0 if isinstance(cell, int | float) and not isinstance(cell, bool) else cell


def surely_different(gold: Result, answer: Result, mode: str) -> bool:
    """Different rows, whatever their order; in `bird` as sets. Two empty results are never surely different."""
    if not gold and not answer:
        return False
    if mode == "bird":
        return set(_rounded(gold)) != set(_rounded(answer)) and not same_bag(gold, answer)
    return not same_bag(gold, answer)


def tie_blocks(gold: SqlGold) -> list[Result] | None:
    """The rows of an ordered gold query, those that its ORDER BY leaves equal together; None where that cannot be told:
    no outermost ORDER BY, or one beside DISTINCT or a set operation."""
    tree = parsed(gold.sql)
    if not isinstance(tree, sqlglot.exp.Select) or tree.args.get("order") is None or tree.args.get("distinct"):
        return None
    width = len(tree.expressions)
    keys = [key.this.copy() for key in tree.args["order"].expressions]
    rows = result(gold.db, tree.copy().select(*keys).sql(dialect="sqlite"))
    plain = result(gold.db, gold.sql)
    if not rows or plain is None or any(len(row) != width + len(keys) for row in rows):
        return None
    if tuple(row[:width] for row in rows) != plain:
        return None
    return [tuple(row[:width] for row in block) for _, block in groupby(rows, key=lambda row: row[width:])]


def in_order(blocks: list[Result], answer: Result) -> bool:
    """Whether rows stand in the order that a gold query asks for; those it leaves equal may stand in any."""
    place = 0
    for block in blocks:
        if Counter(_rounded(answer[place : place + len(block)])) != Counter(_rounded(block)):
            return False
        place += len(block)
    return place == len(answer)


@lru_cache(maxsize=8)
def parsed(sql: str) -> sqlglot.exp.Expression | None:
    """The query as a tree, not to be changed; None where sqlglot cannot read it."""
    try:
        return sqlglot.parse_one(sql, read="sqlite")
    except sqlglot.errors.SqlglotError:
        return None
