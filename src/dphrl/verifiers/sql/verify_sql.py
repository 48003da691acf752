"""Verifier for SQL: a completion is right when its query returns what the gold query does (Spider's or BIRD's way)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from dphrl.errors import VerifierError
from dphrl.types import Item, Verdict
from dphrl.verifiers.sql.database_file import database_path, database_version
from dphrl.verifiers.sql.extract_sql import extract_sql
from dphrl.verifiers.sql.gold_cache import GoldCache, GoldQuery, GoldReply, read_file, write_file
from dphrl.verifiers.sql.query_settings import MODES, Empty, Mode, Ordered, QuerySettings, Ties, check_choice
from dphrl.verifiers.sql.sql_style import sql_style
from dphrl.verifiers.sql.sql_text import MAX_SQL
from dphrl.verifiers.verifier import Verifier, column, completion_of, verdict
from dphrl.verifiers.workers.pool import pool_of

QUERY_WORKER = "dphrl.verifiers.sql.query_worker"
GOLD_WORKER = "dphrl.verifiers.sql.gold_worker"
"""Modules of the two jobs: gold queries run in processes that no completion reaches."""
HARD_FACTOR = 2.0
"""The deadline that costs a worker its life, as a multiple of the one that SQLite is asked to keep."""
TRIES = 3
"""Times a batch is judged whose databases change meanwhile."""


def verify_sql(
    items: Sequence[Item],
    *,
    db_dir: str | None = None,
    mode: Mode = "spider",
    keep_distinct: bool = True,
    ordered: Ordered = "auto",
    ties: Ties = "any",
    exact: bool = False,
    empty: Empty = "same_tables",
    deadline_s: float = 5.0,
    gold_deadline_s: float = 30.0,
    max_rows: int = 200_000,
    max_bytes: int = 64_000_000,
    gold_cache: str | None = None,
    workers: int | None = None,
) -> list[Verdict]:
    """Run each completion's query, read only, in a worker process, and compare its result with its gold query's.

    spider: same bag of rows, or list when the gold query's outermost level has ORDER BY, under any permutation of the
    columns. bird: same set of rows, columns by position. The defaults are made for training; with
    `query_settings.SCRIPT_RULES` each mode compares as its benchmark's script does. Only a query that returns columns
    can be right. Gold queries run once for each version of a database, in processes of their own;
    identical queries of a batch run once. docs/verifiers.md shows both modes by examples.

    Args:
        items: with `completion` (`extract_sql` says what of it is the answer), `gold` (SQL), `db` (path of a
            database or, with `db_dir`, its name), optional `mode`.
        db_dir: folder that holds NAME/NAME.sqlite for each database name.
        mode: which benchmark's equality; an item's own `mode` comes first.
        keep_distinct: leave DISTINCT in (spider); false takes it out of both queries.
        ordered: whether the order of rows counts: auto = as the mode says, always (also makes bird compare lists),
            never.
        ties: where it counts, whether rows that the gold query's ORDER BY leaves equal may stand in any order, or are
            fixed as SQLite returned them.
        exact: whether numbers must be equal to the last digit; else within 1e-9 of the larger, but for whole numbers.
        empty: whether a result without a value (no rows, or NULL alone) that equals the gold query's is right: equal =
            always, same_tables = where it reads at least one of the gold query's tables, wrong = never.
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
    if workers is not None and workers < 1:
        raise VerifierError(f"sql: workers={workers} must be at least 1, or None for one a core")
    check_choice("mode", mode, MODES)
    settings = QuerySettings(
        keep_distinct=keep_distinct,
        ordered=ordered,
        ties=ties,
        exact=exact,
        empty=empty,
        deadline_s=deadline_s,
        gold_deadline_s=gold_deadline_s,
        max_rows=max_rows,
        max_bytes=max_bytes,
    )
    options = _Options(db_dir, mode, settings, None if gold_cache is None else Path(gold_cache), workers)
    queries = [extract_sql(completion_of("sql", item)) for item in items]
    for _ in range(TRIES):
        verdicts, steady = _attempt(items, queries, options)
        if steady:
            break
    return verdicts


@dataclasses.dataclass(frozen=True, slots=True)
class _Options:
    """What is the same for all items of a call."""

    db_dir: str | None
    mode: str
    settings: QuerySettings
    gold_cache: Path | None
    workers: int | None


def _attempt(items: Sequence[Item], queries: Sequence[str], options: _Options) -> tuple[list[Verdict], bool]:
    """Verdicts, and whether every database stayed as it was; the items of one that did not are `gold_error`."""
    golds, numbers = _golds(items, options)
    replies = _gold_replies(golds, options)
    verdicts = _judge(list(zip(numbers, queries, strict=True)), golds, [replies[gold] for gold in golds], options)
    version_of = cache(database_version)
    changed = {
        number: verdict("gold_error", f"database {gold.db} kept changing while it was read")
        for number, gold in enumerate(golds)
        if version_of(gold.db) != gold.version
    }
    return [changed.get(number, own) for number, own in zip(numbers, verdicts, strict=True)], not changed


def _golds(items: Sequence[Item], options: _Options) -> tuple[list[GoldQuery], list[int]]:
    """The gold queries, each once, and the number of every item's."""
    path_of = cache(lambda db: str(database_path(db, options.db_dir)))
    version_of = cache(database_version)  # for this attempt only: a database may change before the next
    settings = options.settings
    met: dict[tuple[str, str, str], int] = {}
    golds: list[GoldQuery] = []
    numbers: list[int] = []
    for item in items:
        mode = str(item.get("mode") or options.mode)
        key = (str(column("sql", item, "db")), mode, str(column("sql", item, "gold") or ""))
        number = met.setdefault(key, len(golds))
        if number == len(golds):
            check_choice("mode", mode, MODES, f" (item {item.get('id')!r})")
            db = path_of(key[0])
            golds.append(
                GoldQuery(
                    db,
                    version_of(db),
                    *key[1:],
                    keep_distinct=settings.keep_distinct,
                    ties=settings.ties_in(mode),
                    max_rows=settings.max_rows,
                    max_bytes=settings.max_bytes,
                    deadline_s=settings.gold_deadline_s,
                )
            )
        numbers.append(number)
    return golds, numbers


_cache = GoldCache()


def _gold_replies(golds: Sequence[GoldQuery], options: _Options) -> dict[GoldQuery, GoldReply]:
    """The reply to every gold query: from memory, from the file, or by running it. A bad one is met once, and the time
    or the worker it costs is never blamed on a completion."""
    distinct = list(dict.fromkeys(golds))
    known = _cache.get(distinct)
    unknown = [gold for gold in distinct if gold not in known]
    if not unknown:
        return known
    file = options.gold_cache
    stored = read_file(file, [gold for gold in unknown if gold.lasting]) if file else {}
    to_run = [gold for gold in unknown if gold not in stored]
    ran = pool_of(GOLD_WORKER).run(
        [(gold.db, gold.version, gold.mode, gold.sql) for gold in to_run],
        dataclasses.asdict(options.settings),
        cpu_s=HARD_FACTOR * options.settings.gold_deadline_s,
        workers=options.workers,
        adapt=False,
    )
    new = dict(zip(to_run, ran, strict=True))
    results = {gold: text for gold, (status, text) in new.items() if status == "correct" and gold.lasting}
    if file and results:
        write_file(file, results)
    new.update({gold: ("correct", text) for gold, text in stored.items()})
    return known | _cache.put(new)


def _judge(
    pairs: Sequence[tuple[int, str]], golds: Sequence[GoldQuery], gold_replies: Sequence[GoldReply], options: _Options
) -> list[Verdict]:
    """Run each distinct (gold, query) once, those of one database and one gold query together."""
    verdicts: dict[tuple[int, str], Verdict] = {}
    to_run = []
    for number, query in dict.fromkeys(pairs):
        if gold_replies[number].status != "correct":
            verdicts[number, query] = verdict("gold_error", _fault(golds[number], gold_replies[number]))
        elif not query:
            verdicts[number, query] = verdict("no_answer", "no SQL in the completion")
        elif len(query) > MAX_SQL:
            verdicts[number, query] = verdict("blocked", f"a query of {len(query)} characters; at most {MAX_SQL}")
        else:
            to_run.append((number, query))
    to_run.sort(key=lambda pair: (golds[pair[0]].db, pair[0]))
    names = [gold_replies[number].name for number, _ in to_run]
    texts = {number: (golds[number], gold_replies[number]) for number, _ in to_run}
    ran = pool_of(QUERY_WORKER).run(
        [(name, query) for name, (_, query) in zip(names, to_run, strict=True)],
        dataclasses.asdict(options.settings),
        cpu_s=HARD_FACTOR * options.settings.deadline_s,
        workers=options.workers,
        needs=names,
        shared={reply.name: (gold.db, gold.version, gold.mode, reply.text) for gold, reply in texts.values()},
    )
    judged = {reply: verdict(*reply) for reply in set(ran)}  # most replies are alike
    verdicts.update((pair, judged[reply]) for pair, reply in zip(to_run, ran, strict=True))
    return [verdicts[pair] for pair in pairs]


def _fault(gold: GoldQuery, reply: GoldReply) -> str:
    """Whatever befell a gold query, its worker's death too, is the data's fault, and says which."""
    return reply.text if reply.status == "gold_error" else f"gold query on {gold.db}: {reply.status}: {reply.text}"


VERIFIER = Verifier(
    name="sql",
    rules=2,
    judge=verify_sql,
    columns=("gold", "db"),
    optional=("mode",),
    solution=sql_style,
    answer_form="```sql\n%s\n```",
)
