"""Verifier for SQL: a completion is right when its query returns what the gold query does (Spider's or BIRD's way)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from dphrl.errors import VerifierError, nearest
from dphrl.types import Item, Verdict
from dphrl.verifiers.pool import Reply, pool_of
from dphrl.verifiers.sql_cache import GoldCache, GoldQuery, GoldReply, read_file, write_file
from dphrl.verifiers.sql_text import extract_sql
from dphrl.verifiers.verdicts import column, completion_of, verdict

Mode = Literal["spider", "bird"]
Ordered = Literal["auto", "always", "never"]
MODES: tuple[str, ...] = get_args(Mode)
ORDERED: tuple[str, ...] = get_args(Ordered)
DB_SUFFIXES = (".sqlite", ".sqlite3", ".db")

HARD_FACTOR = 2.0
"""The deadline that costs a worker its life, as a multiple of the one that SQLite is asked to keep."""
_CHANGE_COUNTER = slice(24, 28)
"""Bytes of a database's header that every transaction changes."""


def verify_batch(
    items: Sequence[Item],
    *,
    db_dir: str | None = None,
    mode: Mode = "spider",
    keep_distinct: bool = False,
    ordered: Ordered = "auto",
    deadline_s: float = 5.0,
    gold_deadline_s: float = 30.0,
    max_rows: int = 200_000,
    max_bytes: int = 64_000_000,
    gold_cache: str | None = None,
    workers: int | None = None,
) -> list[Verdict]:
    """Run each completion's query, read only, in a worker process, and compare its result with its gold query's.

    spider: same bag of rows, or list when the gold query's outermost level has ORDER BY, under any permutation of the
    columns; DISTINCT is taken out of both queries. bird: same set of rows, columns by position. Only a query that
    returns columns can be right. Gold queries run once for each version of a database, in processes of their own;
    identical queries of a batch run once. docs/verifiers.md shows both modes by examples.

    Args:
        items: with `completion` (the answer is its last ```sql block, or the whole text without a fence), `gold` (SQL),
            `db` (path of a database or, with `db_dir`, its name), optional `mode`.
        db_dir: folder that holds NAME/NAME.sqlite for each database name.
        mode: which benchmark's equality; an item's own `mode` comes first.
        keep_distinct: leave DISTINCT in (spider).
        ordered: whether the order of rows counts: auto = as the mode says, always (also makes bird compare lists),
            never.
        deadline_s, gold_deadline_s: CPU seconds a completion's, a gold query may take, > 0.
        max_rows, max_bytes: of one result, >= 1.
        gold_cache: file that keeps gold results for the next run; it is made where there is none.
        workers: most processes at work, >= 1; None = one a core, divided among the ranks of this machine.
    Returns:
        One verdict per item: correct, wrong, no_answer (no SQL), invalid (SQL error, no columns), blocked (anything but
        a query), timeout, memory, or gold_error without reward (the gold query or the database is at fault).
    Raises:
        VerifierError: a key is missing, an argument is out of range, the cache is no cache, or no worker can start.
    Source: test-suite-sql-eval (Zhong et al., 2020) and BIRD (Li et al., 2023) evaluation scripts.
    """
    settings = {
        "keep_distinct": keep_distinct,
        "ordered": ordered,
        "deadline_s": deadline_s,
        "gold_deadline_s": gold_deadline_s,
        "max_rows": max_rows,
        "max_bytes": max_bytes,
    }
    _check(settings, workers)
    path_of = cache(lambda db: str(database_path(db, db_dir)))
    version_of = cache(database_version)  # for this batch only: a database may change before the next
    golds = []
    for item in items:
        db = path_of(str(column("sql", item, "db")))
        sql = str(column("sql", item, "gold") or "")
        golds.append(GoldQuery(db, version_of(db), _mode(item, mode), sql, keep_distinct, max_rows, max_bytes))
    replies = _gold_replies(golds, settings, None if gold_cache is None else Path(gold_cache), workers)
    return _judge(golds, [extract_sql(completion_of("sql", item)) for item in items], replies, settings, workers)


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


def database_version(db: str) -> str:
    """Text that changes with a database on disk: file, size, time of change, and SQLite's own count of changes."""
    parts = []
    for path in (db, f"{db}-wal"):
        try:
            with Path(path).open("rb") as file:
                stat = os.fstat(file.fileno())
                counter = file.read(_CHANGE_COUNTER.stop)[_CHANGE_COUNTER].hex()
        except OSError:
            parts.append("none")
        else:
            parts.append(f"{stat.st_dev}-{stat.st_ino}-{stat.st_size}-{stat.st_mtime_ns}-{counter}")
    return " ".join(parts)


def _check(settings: Mapping[str, Any], workers: int | None) -> None:
    for name in ("deadline_s", "gold_deadline_s", "max_rows", "max_bytes"):
        if settings[name] <= 0:
            raise VerifierError(f"sql: {name}={settings[name]} must be above 0")
    if workers is not None and workers < 1:
        raise VerifierError(f"sql: workers={workers} must be at least 1, or None for one a core")
    ordered = settings["ordered"]
    if ordered not in ORDERED:
        raise VerifierError(
            f"sql: ordered={ordered!r} is not one of {', '.join(ORDERED)}{nearest(str(ordered), ORDERED)}"
        )


def _mode(item: Item, default: str) -> str:
    mode = str(item.get("mode") or default)
    if mode not in MODES:
        raise VerifierError(
            f"sql: mode={mode!r} is not one of {', '.join(MODES)}{nearest(mode, MODES)} (item {item.get('id')!r})"
        )
    return mode


_cache = GoldCache()


def _gold_replies(
    golds: Sequence[GoldQuery], settings: Mapping[str, Any], file: Path | None, workers: int | None
) -> dict[GoldQuery, GoldReply]:
    """The reply to every gold query: from memory, from the file, or by running it. A bad one is met once, and the time
    or the worker it costs is never blamed on a completion."""
    distinct = list(dict.fromkeys(golds))
    known = _cache.get(distinct)
    unknown = [gold for gold in distinct if gold not in known]
    if not unknown:
        return known
    stored = read_file(file, unknown) if file else {}
    to_run = [gold for gold in unknown if gold not in stored]
    ran = pool_of("sql_gold").run(
        [(gold.db, gold.version, gold.mode, gold.sql) for gold in to_run],
        settings,
        cpu_s=HARD_FACTOR * settings["gold_deadline_s"],
        workers=workers,
    )
    new = {gold: _as_gold_error(gold, reply) for gold, reply in zip(to_run, ran, strict=True)}
    if file and (results := {gold: text for gold, (status, text) in new.items() if status == "correct"}):
        write_file(file, results)
    new.update({gold: ("correct", text) for gold, text in stored.items()})
    return known | _cache.put(new)


def _as_gold_error(gold: GoldQuery, reply: Reply) -> Reply:
    """Whatever befell a gold query, its worker's death too, is the data's fault."""
    status, text = reply
    return (
        reply if status in ("correct", "gold_error") else ("gold_error", f"gold query on {gold.db}: {status}: {text}")
    )


def _judge(
    golds: Sequence[GoldQuery],
    queries: Sequence[str],
    gold_replies: Mapping[GoldQuery, GoldReply],
    settings: Mapping[str, Any],
    workers: int | None,
) -> list[Verdict]:
    """Run each distinct (gold, query) once, those of one database together."""
    pairs = list(zip(golds, queries, strict=True))
    to_run = [pair for pair in dict.fromkeys(pairs) if pair[1] and gold_replies[pair[0]].status == "correct"]
    to_run.sort(key=lambda pair: pair[0].db)
    names = [gold_replies[gold].name for gold, _ in to_run]
    ran = pool_of("sql").run(
        [(name, gold.db, gold.version, gold.mode, query) for name, (gold, query) in zip(names, to_run, strict=True)],
        settings,
        cpu_s=HARD_FACTOR * settings["deadline_s"],
        workers=workers,
        needs=names,
        shared={gold_replies[gold].name: gold_replies[gold].text for gold, _ in to_run},
    )
    replies = dict(zip(to_run, ran, strict=True))
    no_answer: Reply = ("no_answer", "no SQL in the completion")
    verdicts = []
    for gold, query in pairs:
        failed = gold_replies[gold].status != "correct"
        verdicts.append(
            verdict("gold_error", gold_replies[gold].text)
            if failed
            else verdict(*replies.get((gold, query), no_answer))
        )
    return verdicts
