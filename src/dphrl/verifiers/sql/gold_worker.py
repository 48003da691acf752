"""Runs gold queries, in processes of their own that no completion ever reaches, and writes down what they return."""

from __future__ import annotations

import sqlglot  # here, not where it is used: its import is no item's fault, and files can be opened now

from dphrl.verifiers.sql.query_settings import QuerySettings
from dphrl.verifiers.sql.result_json import encode
from dphrl.verifiers.sql.run_query import QueryFailed, run_query
from dphrl.verifiers.sql.sql_text import orders_rows
from dphrl.verifiers.workers.job import Job, Reply

_DIALECT = sqlglot.Dialect.get_or_raise("sqlite")


def run_gold(item: tuple[str, str, str, str], settings: QuerySettings) -> Reply:
    """Run one gold query.

    Args:
        item: path of the database and its version; mode (spider or bird); gold query.
    Returns:
        `correct` and the result as text (`result_json.encode`); else `gold_error` where the database is at fault, or
        the status of a query that failed.
    """
    db, version, mode, sql = item
    try:
        rows = run_query((db, version), sql, settings, mode=mode, deadline_s=settings.gold_deadline_s)
    except QueryFailed as failure:
        return failure.status, failure.detail
    return "correct", encode(rows, ordered=has_order(sql))


def has_order(sql: str) -> bool:
    """Whether the outermost query has ORDER BY, by sqlglot; where it cannot read the query, by SQLite's tokens alone.

    The official Spider script looks for 'order by' anywhere, within strings and subqueries too; there it demands an
    order that SQL does not promise.
    """
    if "order" not in sql.lower():
        return False
    try:
        return sqlglot.parse_one(sql, read=_DIALECT).args.get("order") is not None
    except (sqlglot.errors.SqlglotError, RecursionError):
        return orders_rows(sql)


JOB = Job(run_gold, settings=QuerySettings)
