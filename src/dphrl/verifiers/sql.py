"""Verifier for SQL: a completion is right when its query returns what the gold query does (Spider's or BIRD's way)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from dphrl.errors import VerifierError, nearest
from dphrl.types import Prompt, Verdict
from dphrl.verifiers.sql_text import extract_sql
from dphrl.verifiers.verdicts import verdict
from dphrl.verifiers.worker import Reply, worker_of

Mode = Literal["spider", "bird"]
MODES: tuple[str, ...] = get_args(Mode)
DB_SUFFIXES = (".sqlite", ".sqlite3", ".db")

WALL_FACTOR = 20.0
"""Wall-clock seconds allowed for each CPU second of a deadline: what a crowded machine may cost, and no more."""

GoldItem = tuple[str, str, str]
"""Path of the database, mode, gold query."""

_gold_replies: dict[tuple[GoldItem, str], Reply] = {}
"""(Gold item, settings) -> what the worker said of the gold query alone: a bad one is met once, and the time or the
worker it costs is never blamed on a completion."""


def sql_verify(
    prompts: Sequence[Prompt],
    completions: Sequence[str],
    *,
    db_dir: str | None = None,
    mode: Mode = "spider",
    keep_distinct: bool = False,
    deadline_s: float = 5.0,
    gold_deadline_s: float = 30.0,
    max_rows: int = 200_000,
    max_bytes: int = 64_000_000,
) -> list[Verdict]:
    """Run each completion's query beside its gold query, read only, in a worker process, and compare the results.

    spider: same bag of rows, or list when the gold query's outermost level has ORDER BY, under any permutation of the
    columns; DISTINCT is taken out of both queries. bird: same set of rows, columns by position. Only a query that
    returns columns can be right.

    Args:
        prompts: with columns `gold` (SQL), `db` (path of a database or, with `db_dir`, its name), optional `mode`.
        completions: texts; the answer is the last ```sql block, or the whole text without a fence.
        db_dir: folder that holds NAME/NAME.sqlite for each database name.
        mode: which benchmark's equality; a prompt's own `mode` column comes first.
        keep_distinct: leave DISTINCT in (spider).
        deadline_s, gold_deadline_s: CPU seconds a completion's, a gold query may take, > 0.
        max_rows, max_bytes: of one result, >= 1.
    Returns:
        One verdict per pair: correct, wrong, no_answer (no SQL), invalid (SQL error, no columns), blocked (anything but
        a query), timeout, memory, or gold_error without reward (the gold query or the database is at fault).
    Raises:
        VerifierError: a column is missing, an argument is out of range, or the worker cannot start.
    Source: test-suite-sql-eval (Zhong et al., 2020) and BIRD (Li et al., 2023) evaluation scripts.
    """
    if min(deadline_s, gold_deadline_s, max_rows, max_bytes) <= 0:
        raise VerifierError(
            f"sql: deadline_s={deadline_s}, gold_deadline_s={gold_deadline_s}, max_rows={max_rows}, "
            f"max_bytes={max_bytes} must all be above 0"
        )
    settings = {
        "keep_distinct": keep_distinct,
        "deadline_s": deadline_s,
        "gold_deadline_s": gold_deadline_s,
        "max_rows": max_rows,
        "max_bytes": max_bytes,
    }
    golds = [_gold_item(prompt, db_dir, mode) for prompt in prompts]
    queries = [extract_sql(completion) for completion in completions]
    return _judge(golds, queries, settings)


def database_path(db: object, db_dir: str | None) -> Path:
    """Where a database lies.

    Args:
        db: a path that ends in .sqlite, .sqlite3 or .db, or a name in `db_dir`.
        db_dir: folder that holds NAME/NAME.sqlite, and below which a relative path is taken; None = current directory.
    Returns:
        An absolute path; the file need not exist.
    Raises:
        VerifierError: a name without `db_dir`.
    """
    name = str(db)
    if name.endswith(DB_SUFFIXES):
        return Path(db_dir or ".", name).absolute()
    if db_dir is None:
        raise VerifierError(
            f"db={name!r} is no path of a database ({', '.join(DB_SUFFIXES)}); name the folder that holds "
            f"{name}/{name}.sqlite in task.verifier_args.db_dir"
        )
    return Path(db_dir, name, f"{name}.sqlite").absolute()


def _gold_item(prompt: Prompt, db_dir: str | None, mode: str) -> GoldItem:
    missing = [name for name in ("gold", "db") if name not in prompt.columns]
    if missing:
        raise VerifierError(
            f"sql: prompt {prompt.id!r} has no column {missing[0]!r}; it has {sorted(prompt.columns)}; "
            "name the column of the file in task.columns"
        )
    own_mode = str(prompt.columns.get("mode") or mode)
    if own_mode not in MODES:
        raise VerifierError(
            f"sql: mode={own_mode!r} is not one of {', '.join(MODES)}{nearest(own_mode, MODES)} (prompt {prompt.id!r})"
        )
    return str(database_path(prompt.columns["db"], db_dir)), own_mode, str(prompt.columns["gold"] or "")


def _judge(golds: Sequence[GoldItem], queries: Sequence[str], settings: Mapping[str, Any]) -> list[Verdict]:
    """Check unseen gold queries first, then run each distinct (gold, query) once."""
    limits = repr(sorted(settings.items()))
    unseen = [gold for gold in dict.fromkeys(golds) if (gold, limits) not in _gold_replies]
    for gold, reply in zip(unseen, _run([(*gold, None) for gold in unseen], settings), strict=True):
        status, detail = reply
        _gold_replies[gold, limits] = reply if status == "correct" else ("gold_error", detail)
    pairs = list(zip(golds, queries, strict=True))
    bad = {gold: reply for gold in golds if (reply := _gold_replies[gold, limits])[0] != "correct"}
    to_run = [(gold, query) for gold, query in dict.fromkeys(pairs) if query and gold not in bad]
    replies = dict(zip(to_run, _run([(*gold, query) for gold, query in to_run], settings), strict=True))
    no_answer: Reply = ("no_answer", "no SQL in the completion")
    return [verdict(*(bad.get(gold) or replies.get((gold, query), no_answer))) for gold, query in pairs]


def _run(items: Sequence[tuple[str, str, str, str | None]], settings: Mapping[str, Any]) -> list[Reply]:
    wall_s = WALL_FACTOR * (settings["deadline_s"] + settings["gold_deadline_s"])
    return worker_of("sql").run(items, settings, wall_s=wall_s) if items else []
