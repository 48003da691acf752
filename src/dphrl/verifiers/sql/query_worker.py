"""Runs completions' queries, inside the worker, and compares what they return with the gold results it was sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dphrl.verifiers.sql.equal_results import bird_equal, spider_equal
from dphrl.verifiers.sql.query_settings import QuerySettings
from dphrl.verifiers.sql.result_json import Row, decode
from dphrl.verifiers.sql.run_query import QueryFailed, run_query
from dphrl.verifiers.workers.job import Job, Reply


@dataclass(frozen=True, slots=True)
class GoldResult:
    """Result of a gold query, and where it came from."""

    db: str
    version: str
    mode: str
    rows: list[Row]
    ordered: bool
    """Whether the gold query orders its rows."""
    distinct: frozenset[Row]
    """The rows as a set (bird; empty in spider)."""


_golds: dict[str, GoldResult] = {}


def remember_golds(shared: Mapping[str, Sequence[str]], *, forget: bool) -> None:
    """Take gold results for the items to come.

    Args:
        shared: key -> path of the database, its version, mode, result (`result_json.encode`).
        forget: drop those held so far.
    """
    if forget:
        _golds.clear()
    for key, (db, version, mode, text) in shared.items():
        rows, ordered = decode(text)
        _golds[key] = GoldResult(db, version, mode, rows, ordered, frozenset(rows if mode == "bird" else ()))


def judge_query(item: tuple[str, str], settings: QuerySettings) -> Reply:
    """Judge one query against a gold result.

    Args:
        item: key of the gold result; query.
    Returns:
        Status and detail.
    """
    key, sql = item
    gold = _golds[key]
    ordered = {"always": True, "never": False, "auto": gold.mode == "spider" and gold.ordered}[settings.ordered]
    as_set = gold.mode == "bird" and not ordered
    try:
        rows = run_query(
            (gold.db, gold.version),
            sql,
            settings,
            mode=gold.mode,
            deadline_s=settings.deadline_s,
            most=None if as_set else len(gold.rows),
            known=gold.distinct if as_set else None,
        )
    except QueryFailed as failure:
        return failure.status, failure.detail
    if as_set:
        equal = bird_equal(gold.distinct, rows)
    elif gold.mode == "bird":
        equal = gold.rows == rows
    else:
        equal = spider_equal(gold.rows, rows, ordered=ordered)
    return ("correct", "") if equal else ("wrong", "another result than the gold query's")


JOB = Job(judge_query, settings=QuerySettings, remember=remember_golds)
