"""Runs completions' queries, inside the worker, and compares what they return with the gold results it was sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from dphrl.verifiers.sql.equal_results import bird_equal, list_equal, says_nothing, spider_equal
from dphrl.verifiers.sql.near_numbers import GoldNumbers, has_fractions
from dphrl.verifiers.sql.query_settings import QuerySettings
from dphrl.verifiers.sql.result_json import Result, Row, Rows, decode
from dphrl.verifiers.sql.run_query import QueryFailed, run_query, tables_read
from dphrl.verifiers.workers.job import Job, Reply


@dataclass(frozen=True)
class GoldResult:
    """Result of a gold query, where it came from, and what is made of it once for many completions."""

    database: tuple[str, str]
    """Path and version."""
    mode: str
    result: Result

    @cached_property
    def silent(self) -> bool:
        """Whether it says nothing, so that it may be met by accident."""
        return says_nothing(self.result.rows)

    @cached_property
    def distinct(self) -> frozenset[Row]:
        """The rows as a set."""
        return frozenset(self.result.rows)

    @cached_property
    def has_fractions(self) -> bool:
        """Whether any number in it is not whole."""
        return has_fractions(self.result.rows)

    @cached_property
    def numbers(self) -> GoldNumbers:
        """Its numbers, in groups that count as one."""
        return GoldNumbers(self.result.rows)

    @cached_property
    def canonical(self) -> list[Row]:
        """The rows with one number for each group."""
        return self.numbers.canonical(self.result.rows)

    @cached_property
    def distinct_canonical(self) -> frozenset[Row]:
        """Those as a set."""
        return frozenset(self.canonical)


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
        _golds[key] = GoldResult((db, version), mode, decode(text))


def judge_query(item: tuple[str, str], settings: QuerySettings) -> Reply:
    """Judge one query against a gold result.

    Args:
        item: key of the gold result; query.
    Returns:
        Status and detail.
    """
    key, sql = item
    gold = _golds[key]
    ordered = settings.ordered_in(gold.mode, gold.result.ordered)
    as_set = gold.mode == "bird" and not ordered
    try:
        rows = run_query(
            gold.database,
            sql,
            settings,
            mode=gold.mode,
            deadline_s=settings.deadline_s,
            most=None if as_set else len(gold.result.rows),
            fits=(lambda new: _fits(gold, new, settings)) if as_set else None,
        ).rows
    except QueryFailed as failure:
        return failure.status, failure.detail
    if not (_same(gold, gold.result.rows, rows, ordered) or _near(gold, rows, settings, ordered)):
        return "wrong", "another result than the gold query's"
    return _judge_silent(gold.result.tables, settings) if gold.silent else ("correct", "")


def _fits(gold: GoldResult, rows: Rows, settings: QuerySettings) -> bool:
    """Whether rows may be part of a right result, whose order and number do not count."""
    return gold.distinct.issuperset(rows) or (
        _may_be_near(gold, rows, settings) and gold.distinct_canonical.issuperset(gold.numbers.canonical(rows))
    )


def _same(gold: GoldResult, wanted: Rows, rows: Rows, ordered: bool) -> bool:
    """Whether rows are those wanted, as the mode compares them and numbers exactly."""
    if gold.mode == "spider":
        return spider_equal(wanted, rows, ordered=ordered, ties=gold.result.ties)
    return list_equal(wanted, rows, ties=gold.result.ties) if ordered else bird_equal(wanted, rows)


def _near(gold: GoldResult, rows: Rows, settings: QuerySettings, ordered: bool) -> bool:
    """The same with near numbers taken for equal ones."""
    if gold.mode == "spider" and len(rows) != len(gold.result.rows):
        return False  # before a look at every cell
    return _may_be_near(gold, rows, settings) and _same(gold, gold.canonical, gold.numbers.canonical(rows), ordered)


def _may_be_near(gold: GoldResult, rows: Rows, settings: QuerySettings) -> bool:
    return not settings.exact and (gold.has_fractions or has_fractions(rows))


def _judge_silent(wanted: frozenset[str], settings: QuerySettings) -> Reply:
    """Judge the query that was run last, which returns as little as the gold query does, by the tables it reads."""
    if settings.empty == "wrong":
        return "wrong", "a result without values, as the gold query's, which empty=wrong does not count"
    if settings.empty == "same_tables" and wanted and not wanted & tables_read():
        return "wrong", f"a result without values, as the gold query's, but not from {', '.join(sorted(wanted))}"
    return "correct", ""


JOB = Job(judge_query, settings=QuerySettings, remember=remember_golds)
