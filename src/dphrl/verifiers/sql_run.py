"""Runs completions' queries, inside the worker, and compares what they return with the gold results it was sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dphrl.types import Status
from dphrl.verifiers.sql_equal import Row, bird_equal, spider_equal
from dphrl.verifiers.sql_exec import QueryFailed, run_query
from dphrl.verifiers.sql_gold import decode


@dataclass(frozen=True, slots=True)
class Gold:
    """Result of a gold query."""

    rows: list[Row]
    ordered: bool
    """Whether the gold query orders its rows."""
    distinct: frozenset[Row] = field(default_factory=frozenset)


_golds: dict[str, Gold] = {}


def remember(shared: Mapping[str, str], *, forget: bool) -> None:
    """Take gold results (key -> text of `sql_gold.encode`) for the items to come; `forget` drops those held so far."""
    if forget:
        _golds.clear()
    for key, text in shared.items():
        rows, ordered = decode(text)
        _golds[key] = Gold(rows, ordered, frozenset(rows))


def judge(item: tuple[str, str, str, str, str], settings: Mapping[str, Any]) -> tuple[Status, str]:
    """Judge one query against a gold result.

    Args:
        item: key of the gold result; path of the database and its version; mode (spider or bird); query.
        settings: deadline_s (CPU seconds), max_rows, max_bytes (of a result), keep_distinct (spider), ordered.
    Returns:
        Status and detail.
    """
    key, db, version, mode, sql = item
    gold = _golds[key]
    ordered = {"always": True, "never": False, "auto": mode == "spider" and gold.ordered}[settings["ordered"]]
    as_set = mode == "bird" and not ordered
    try:
        rows = run_query(
            (db, version),
            sql,
            settings,
            mode=mode,
            deadline_s=settings["deadline_s"],
            enough=_foreign(gold) if as_set else _longer(gold),
        )
    except QueryFailed as failure:
        return failure.status, failure.detail
    if as_set:
        equal = bird_equal(gold.distinct, rows)
    elif mode == "bird":
        equal = gold.rows == rows
    else:
        equal = spider_equal(gold.rows, rows, ordered=ordered)
    return ("correct", "") if equal else ("wrong", "another result than the gold query's")


def _longer(gold: Gold) -> Callable[[list[Row]], bool]:
    """A bag or list with more rows than the gold result is wrong, whatever follows."""
    most = len(gold.rows)
    return lambda rows: len(rows) > most


def _foreign(gold: Gold) -> Callable[[list[Row]], bool]:
    """A set with a row the gold result lacks is wrong, whatever follows."""
    distinct = gold.distinct
    return lambda rows: rows[-1] not in distinct
