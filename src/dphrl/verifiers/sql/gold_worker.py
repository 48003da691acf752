"""Runs gold queries, in processes of their own that no completion ever reaches, and writes down what they return."""

from __future__ import annotations

import time
from itertools import groupby

from dphrl.verifiers.sql.near_numbers import GoldNumbers
from dphrl.verifiers.sql.order_keys import order_keys
from dphrl.verifiers.sql.query_settings import QuerySettings
from dphrl.verifiers.sql.result_json import Result, Row, encode
from dphrl.verifiers.sql.run_query import Fetched, QueryFailed, run_query, tables_read
from dphrl.verifiers.sql.sql_text import one_statement, orders_rows
from dphrl.verifiers.workers.job import Job, Reply


def run_gold(item: tuple[str, str, str, str], settings: QuerySettings) -> Reply:
    """Run one gold query.

    Args:
        item: path of the database and its version; mode (spider or bird); gold query.
    Returns:
        `correct` and the result as text (`result_json.encode`); else `gold_error` where the database is at fault, or
        the status of a query that failed.
    """
    db, version, mode, written = item
    sql = one_statement(written)
    began = time.process_time()
    try:
        fetched = run_query((db, version), sql, settings, mode=mode, deadline_s=settings.gold_deadline_s)
    except QueryFailed as failure:
        return failure.status, failure.detail
    tables = tables_read()
    ordered = orders_rows(sql)
    ties: tuple[tuple[int, int], ...] = ()
    left_s = settings.gold_deadline_s - (time.process_time() - began)
    if ordered and len(fetched.rows) > 1 and settings.ties_in(mode) != "none" and left_s > 0:
        ties = _ties((db, version), sql, settings, fetched, mode=mode, deadline_s=left_s)
    return "correct", encode(Result(fetched.rows, ordered, ties, tables))


def _ties(
    database: tuple[str, str], sql: str, settings: QuerySettings, fetched: Fetched, *, mode: str, deadline_s: float
) -> tuple[tuple[int, int], ...]:
    """Begin and end of the runs of rows that the query's ORDER BY leaves equal; none where that cannot be said."""
    by = order_keys(sql, fetched.names)
    if by is None:
        return ()
    keys: list[Row] = [tuple(row[i] for i in by.columns) for row in fetched.rows]
    if by.query is not None:
        try:
            longer = run_query(database, by.query, settings, mode=mode, deadline_s=deadline_s).rows
        except QueryFailed:
            return ()
        width = len(fetched.names)
        if [row[:width] for row in longer] != fetched.rows:  # the further columns changed what is selected
            return ()
        keys = [key + row[width:] for key, row in zip(keys, longer, strict=True)]
    if settings.ties_in(mode) == "near":
        keys = GoldNumbers(keys).canonical(keys)
    runs, start = [], 0
    for _, run in groupby(keys):
        end = start + sum(1 for _ in run)
        if end - start > 1:
            runs.append((start, end))
        start = end
    return tuple(runs)


JOB = Job(run_gold, settings=QuerySettings)
