"""Verdicts on SQL: hand-made tables for both modes, what honest queries use, options, and what is run how often.

Reading text, comparing, files and attacks have tests of their own: test_verifiers_sql_*.py, test_verifiers_attacks.py.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dphrl.errors import VerifierError
from dphrl.verifiers.sql.query_settings import SCRIPT_RULES
from dphrl.verifiers.sql.verify_sql import GOLD_WORKER, QUERY_WORKER, verify_sql
from dphrl.verifiers.workers.pool import Pool

BOMB = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT count(*) FROM r"
PREPARE_BOMB = (
    "WITH a0 AS (SELECT 1 x)"
    + "".join(f", a{i} AS (SELECT * FROM a{i - 1} UNION ALL SELECT * FROM a{i - 1})" for i in range(1, 40))
    + " SELECT * FROM a39"
)


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small database in a path that would end a careless URI."""
    path = tmp_path_factory.mktemp("dbs") / "a ?mode=rw&b#%20.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            """
            CREATE TABLE t(a INTEGER, b TEXT);
            INSERT INTO t VALUES (1, 'x'), (2, 'y'), (2, 'y'), (3, NULL);
            CREATE TABLE empty(a INTEGER);
            CREATE TABLE latin(word TEXT);
            INSERT INTO latin VALUES (CAST(x'6361E9' AS TEXT));
            CREATE VIEW v AS SELECT a FROM t;
            """
        )
    yield path


def statuses(db: Path, gold: str | None, *completions: str, **args: object) -> list[str]:
    items = [{"gold": gold, "db": str(db), "completion": text} for text in completions]
    return [verdict.status for verdict in verify_sql(items, **args)]  # type: ignore[arg-type]


DIFFERENT_IN_TRAINING = {
    ("SELECT a FROM t", "SELECT DISTINCT a FROM t"): ("wrong", "correct"),
    ("SELECT 0.3", "SELECT 0.1 + 0.2"): ("correct", "correct"),
    ("SELECT a FROM empty", "SELECT b, a FROM t WHERE 0"): ("wrong", "wrong"),
    ("SELECT 9007199254740993", "SELECT 9007199254740993.0"): ("correct", "correct"),
}
"""(gold, query) -> verdicts in both modes, where the defaults are not the scripts' rules."""


@pytest.mark.parametrize(
    ("gold", "query", "spider", "bird"),
    [
        ("SELECT a, b FROM t", "SELECT a, b FROM t", "correct", "correct"),
        ("SELECT a, b FROM t", "SELECT b, a FROM t", "correct", "wrong"),  # columns by position in BIRD
        ("SELECT a FROM t", "SELECT DISTINCT a FROM t", "correct", "correct"),  # DISTINCT stripped; a set
        ("SELECT a FROM t", "SELECT a FROM t GROUP BY a", "wrong", "correct"),  # a bag against a set
        ("SELECT a FROM t ORDER BY a", "SELECT a FROM t ORDER BY a DESC", "wrong", "correct"),
        ("SELECT a FROM t", "SELECT a FROM t ORDER BY a DESC", "correct", "correct"),
        ("SELECT a, b FROM t ORDER BY a", "SELECT b, a FROM t ORDER BY a", "correct", "wrong"),
        ("SELECT a FROM t", "SELECT a + 0.0 FROM t", "correct", "correct"),  # 1 == 1.0
        ("SELECT a FROM t", "SELECT a || '' FROM t", "wrong", "wrong"),  # '1' is not 1
        ("SELECT 0.3", "SELECT 0.1 + 0.2", "wrong", "wrong"),  # floats exactly
        ("SELECT NULL", "SELECT b FROM t WHERE b IS NULL", "correct", "correct"),
        ("SELECT a FROM t", "SELECT a, b FROM t", "wrong", "wrong"),  # no credit for extra columns
        ("SELECT a FROM empty", "SELECT b, a FROM t WHERE 0", "correct", "correct"),  # both empty, any width
        ("SELECT a FROM empty", "SELECT a FROM t", "wrong", "wrong"),
        ("SELECT count(*) FROM t", "SELECT count(*) FROM t WHERE a > = 1", "correct", "invalid"),
        ("SELECT 2020", "SELECT YEAR(CURDATE())", "correct", "invalid"),
        ("SELECT 'ca'", "SELECT word FROM latin", "correct", "invalid"),  # text that is not UTF-8
        ("SELECT a FROM t", "SELECT a FROM t;  -- done", "correct", "correct"),
        ("SELECT a FROM t", "VALUES (1), (2), (2), (3)", "correct", "correct"),
        ("SELECT a FROM t", "WITH w AS (SELECT a FROM t) SELECT * FROM w", "correct", "correct"),
        ("SELECT a FROM t", "SELECT value FROM json_each('[1, 2, 2, 3]')", "correct", "correct"),
        ("SELECT a FROM t", "\ufeffSELECT a FROM t", "correct", "correct"),  # SQLite skips the mark, too
        ("SELECT a FROM t", "SELECT a FROM t /* cut", "correct", "correct"),
        ("SELECT x'6162'", "SELECT 'ab'", "wrong", "wrong"),  # a blob is no text
        ("SELECT x'6162'", "SELECT CAST('ab' AS BLOB)", "correct", "correct"),
        ("SELECT 0", "SELECT -0.0", "correct", "correct"),
        ("SELECT 9e999", "SELECT 2e308", "correct", "correct"),  # infinity
        ("SELECT 9e999", "SELECT -9e999", "wrong", "wrong"),
        ("SELECT 9007199254740993", "SELECT 9007199254740993.0", "wrong", "wrong"),  # no float is this number
        ("SELECT 9223372036854775807", "SELECT 9223372036854775807", "correct", "correct"),
        ("SELECT 'Infinity'", "SELECT 9e999", "wrong", "wrong"),
        ("SELECT a, a FROM t", "SELECT a FROM t", "wrong", "wrong"),
        ("SELECT 1, 10", "SELECT 1.0, 10", "correct", "correct"),
        ("SELECT a FROM (SELECT a FROM t ORDER BY a)", "SELECT a FROM t ORDER BY a DESC", "correct", "correct"),
        ("SELECT 'order by', a FROM t", "SELECT 'order by', a FROM t ORDER BY a DESC", "correct", "correct"),
        ("SELECT a FROM t UNION ALL SELECT 9 ORDER BY 1", "VALUES (9), (3), (2), (2), (1)", "wrong", "correct"),
        ("SELECT a FROM t", "SELECT a FROM nowhere", "invalid", "invalid"),
        ("SELECT a FROM t", "I do not know.", "invalid", "invalid"),
        ("SELECT a FROM t", "```python\nprint(1)\n```", "no_answer", "no_answer"),
        ("SELECT a FROM t", " \n", "no_answer", "no_answer"),
        ("SELECT a FROM t", "```sql\nSELECT 1\n```\nNo:\n```SQL\nSELECT a FROM t\n```", "correct", "correct"),
        ("SELECT zz FROM t", "SELECT a FROM t", "gold_error", "gold_error"),
        ("DELETE FROM t", "SELECT a FROM t", "gold_error", "gold_error"),
        ("-- nothing", "", "gold_error", "gold_error"),
        (None, "SELECT 1", "gold_error", "gold_error"),
    ],
)
def test_verdicts_by_the_rules_of_the_scripts(db: Path, gold: str | None, query: str, spider: str, bird: str) -> None:
    assert statuses(db, gold, query, **SCRIPT_RULES) == [spider]
    assert statuses(db, gold, query, mode="bird", **SCRIPT_RULES) == [bird]
    if (gold, query) not in DIFFERENT_IN_TRAINING:
        assert statuses(db, gold, query) == [spider]
        assert statuses(db, gold, query, mode="bird") == [bird]


@pytest.mark.parametrize(("gold", "query"), DIFFERENT_IN_TRAINING)
def test_verdicts_that_differ_in_training(db: Path, gold: str, query: str) -> None:
    spider, bird = DIFFERENT_IN_TRAINING[gold, query]
    assert statuses(db, gold, query) == [spider]
    assert statuses(db, gold, query, mode="bird") == [bird]


def test_rewards_and_modes_of_prompts(db: Path) -> None:
    """A prompt's own mode comes first; only what says nothing about the completion has no reward."""
    item = {"gold": "SELECT a, b FROM t", "db": str(db), "completion": "SELECT b, a FROM t"}
    verdicts = verify_sql([item, item | {"mode": "bird"}, item | {"gold": "x"}])
    assert [(v.correct, v.reward) for v in verdicts] == [(True, 1.0), (False, 0.0), (False, None)]


def test_distinct_is_kept_or_taken_out(db: Path) -> None:
    """Everywhere, count(DISTINCT a) too."""
    for gold, query in (
        ("SELECT a FROM t", "SELECT DISTINCT a FROM t"),
        ("SELECT count(DISTINCT a) FROM t", "SELECT 4"),
    ):
        assert statuses(db, gold, query) == statuses(db, gold, query, keep_distinct=True) == ["wrong"]
        assert statuses(db, gold, query, keep_distinct=False) == ["correct"]


@pytest.mark.parametrize("keep_distinct", [True, False])
@pytest.mark.parametrize(
    "query",
    [
        "SELECT a DISTINCT FROM t",
        "SELECT a FROM t WHERE DISTINCT a > 0",
        "SELECT count(a DISTINCT) FROM t",
        "SELECT group_concat(DISTINCT a, ',') FROM t",
        "SELECT a FROM t DISTINCT",
        "SELECT DISTINCT DISTINCT a FROM t",
    ],
)
def test_a_distinct_that_sqlite_refuses_is_not_mended(db: Path, query: str, keep_distinct: bool) -> None:
    gold = query.replace("DISTINCT", "")
    assert statuses(db, gold, query, gold, keep_distinct=keep_distinct) == ["invalid", "correct"]
    assert statuses(db, query, gold, keep_distinct=keep_distinct) == ["gold_error"]


@pytest.mark.parametrize("keep_distinct", [True, False])
def test_is_distinct_from_is_an_operator(db: Path, keep_distinct: bool) -> None:
    for one, other in (("IS NOT DISTINCT FROM", "IS"), ("IS DISTINCT FROM", "IS NOT")):
        queries = [f"SELECT a FROM t WHERE b {operator} NULL" for operator in (one, other)]
        assert statuses(db, queries[0], *queries, keep_distinct=keep_distinct) == ["correct"] * 2
        assert statuses(db, queries[1], *queries, keep_distinct=keep_distinct) == ["correct"] * 2
        assert statuses(db, "SELECT a FROM t", *queries, keep_distinct=keep_distinct) == ["wrong"] * 2


def test_rewriting_leaves_texts_and_names_alone(db: Path) -> None:
    gold = "SELECT 'x > = y', 'DISTINCT', 'YEAR(CURDATE())'"
    others = ["SELECT 'x >= y', 'DISTINCT', 'YEAR(CURDATE())'", "SELECT 'x > = y', '', 'YEAR(CURDATE())'"]
    others.append("SELECT 'x > = y', 'DISTINCT', '2020'")
    for keep_distinct in (True, False):
        expected = ["correct", "wrong", "wrong", "wrong"]
        assert statuses(db, gold, gold, *others, keep_distinct=keep_distinct) == expected


@pytest.mark.parametrize(
    "behind", ["", ";", ";;", " ; ; ", "; -- x", "; --", " --", ";\n/* x */", "; /* x */ ;", " /* x"]
)
def test_order_by_counts_whatever_follows_it(db: Path, behind: str) -> None:
    for gold in ("SELECT a FROM t ORDER BY a", "SELECT a FROM t ORDER BY a LIMIT 4"):
        queries = ["SELECT a FROM t ORDER BY a", "SELECT a FROM t ORDER BY a DESC"]
        assert statuses(db, gold + behind, *queries) == ["correct", "wrong"]
        assert statuses(db, gold, *(query + behind for query in queries)) == ["correct", "wrong"]


EMPTY = {
    "SELECT a FROM empty": {
        "SELECT a FROM empty": ("correct", "correct", "wrong"),
        "SELECT max(a) FROM empty GROUP BY a": ("correct", "correct", "wrong"),
        "SELECT x.a FROM t CROSS JOIN empty AS x": ("correct", "correct", "wrong"),
        "SELECT a FROM t WHERE 0": ("correct", "wrong", "wrong"),
        "SELECT a FROM t AS empty WHERE a > 9": ("correct", "wrong", "wrong"),
        "SELECT 1 WHERE 0": ("correct", "wrong", "wrong"),
        "WITH empty AS (SELECT 1 AS a WHERE 0) SELECT a FROM empty": ("correct", "wrong", "wrong"),
        "SELECT 1 WHERE 0 -- FROM empty": ("correct", "wrong", "wrong"),
        "SELECT NULL": ("wrong", "wrong", "wrong"),
        "SELECT a FROM t": ("wrong", "wrong", "wrong"),
    },
    "SELECT max(a) FROM empty": {
        "SELECT a FROM empty UNION SELECT min(a) FROM empty": ("correct", "correct", "wrong"),
        "SELECT NULL": ("correct", "wrong", "wrong"),
        "SELECT max(a) FROM t WHERE 0": ("correct", "wrong", "wrong"),
        "SELECT count(a) FROM empty": ("wrong", "wrong", "wrong"),
        "SELECT 1 WHERE 0": ("wrong", "wrong", "wrong"),
    },
    "SELECT count(*) FROM empty": {"SELECT 0": ("correct", "correct", "correct")},  # a value is no silence
    "SELECT a FROM v WHERE a > 9": {"SELECT a FROM t WHERE a > 8": ("correct", "correct", "wrong")},  # v reads t
    "SELECT NULL": {"SELECT b FROM t WHERE b IS NULL": ("correct", "correct", "wrong")},  # no table to be read
}


@pytest.mark.parametrize("mode", ["spider", "bird"])
@pytest.mark.parametrize("gold", EMPTY)
def test_results_without_values(db: Path, gold: str, mode: str) -> None:
    for number, empty in enumerate(("equal", "same_tables", "wrong")):
        found = statuses(db, gold, *EMPTY[gold], mode=mode, empty=empty)
        assert dict(zip(EMPTY[gold], found, strict=True)) == {q: v[number] for q, v in EMPTY[gold].items()}
    assert statuses(db, gold, *EMPTY[gold], mode=mode) == [v[1] for v in EMPTY[gold].values()]


@pytest.mark.parametrize("mode", ["spider", "bird"])
def test_numbers_computed_another_way(db: Path, mode: str) -> None:
    """Three ways to write a percentage."""
    ways = [
        "100.0 * count(*) / 3",
        "count(*) * 100 / 3.0",
        "CAST(count(*) AS REAL) / 3 * 100",
        "count(*) / 3.0 * 100.0",
    ]
    queries = [f"SELECT b, {way} FROM t GROUP BY b" for way in ways]
    for gold in queries:
        assert statuses(db, gold, *queries, mode=mode) == ["correct"] * len(ways)
        assert "wrong" in statuses(db, gold, *queries, mode=mode, exact=True)
    assert statuses(db, queries[0], "SELECT b, round(100.0 * count(*) / 3, 6) FROM t GROUP BY b", mode=mode) == [
        "wrong"
    ]
    ordered = [f"{query} ORDER BY 2 DESC" for query in queries]
    assert statuses(db, ordered[0], *ordered, mode=mode, ordered="always") == ["correct"] * len(ways)


@pytest.mark.parametrize(
    ("mode", "ordered", "expected"),
    [
        ("spider", "auto", ["wrong", "correct"]),
        ("spider", "always", ["wrong", "wrong"]),
        ("spider", "never", ["correct", "correct"]),
        ("bird", "auto", ["correct", "correct"]),
        ("bird", "always", ["wrong", "wrong"]),
        ("bird", "never", ["correct", "correct"]),
    ],
)
def test_whether_the_order_of_rows_counts(db: Path, mode: str, ordered: str, expected: list[str]) -> None:
    """The gold query orders its rows, or does not; the completion's has them the other way round."""
    backwards = "SELECT b, a FROM (SELECT a AS b, b AS a FROM t) ORDER BY 1 DESC"
    golds = ("SELECT a, b FROM t ORDER BY a", "SELECT a, b FROM t")
    assert [statuses(db, gold, backwards, mode=mode, ordered=ordered)[0] for gold in golds] == expected


def test_a_list_may_not_repeat_rows_even_in_bird(db: Path) -> None:
    assert statuses(db, "SELECT a FROM t GROUP BY a", "SELECT a FROM t", mode="bird") == ["correct"]
    assert statuses(db, "SELECT a FROM t GROUP BY a", "SELECT a FROM t", mode="bird", ordered="always") == ["wrong"]


HONEST = {
    "json": ("SELECT json_extract('{\"a\": [1, 2]}', '$.a[1]')", [(2,)]),
    "json arrow": ("SELECT '{\"a\": 5}' ->> 'a'", [(5,)]),
    "json_each": ("SELECT value FROM json_each('[1, 2]')", [(1,), (2,)]),
    "json_tree": ("SELECT count(*) FROM json_tree('{\"a\": {\"b\": 1}}')", [(3,)]),
    "json_group_array": ("SELECT json_group_array(a) FROM (SELECT a FROM t ORDER BY a)", [("[1,2,2,3]",)]),
    "row_number": ("SELECT max(n) FROM (SELECT row_number() OVER (ORDER BY a) AS n FROM t)", [(4,)]),
    "rank": ("SELECT rank() OVER (ORDER BY a) FROM t", [(1,), (2,), (2,), (4,)]),
    "lag": ("SELECT lag(a) OVER (ORDER BY a) FROM t", [(None,), (1,), (2,), (2,)]),
    "running sum": ("SELECT sum(a) OVER (ORDER BY a ROWS UNBOUNDED PRECEDING) FROM t", [(1,), (3,), (5,), (8,)]),
    "filter": ("SELECT count(*) FILTER (WHERE b = 'y') FROM t", [(2,)]),
    "CTE": ("WITH w(x) AS (SELECT a FROM t) SELECT sum(x) FROM w", [(8,)]),
    "recursion": ("WITH RECURSIVE r(n) AS (SELECT 1 UNION SELECT n + 1 FROM r LIMIT 4) SELECT max(n) FROM r", [(4,)]),
    "strftime": ("SELECT strftime('%Y-%m', '2020-05-01')", [("2020-05",)]),
    "julianday": ("SELECT julianday('2020-01-02') - julianday('2020-01-01')", [(1.0,)]),
    "date": ("SELECT date('2020-01-31', '+1 month', 'start of month', '-1 day')", [("2020-02-29",)]),
    "today": ("SELECT date('now') = CURRENT_DATE", [(1,)]),
    "local time": ("SELECT length(datetime('now', 'localtime'))", [(19,)]),
    "printf": ("SELECT printf('%05.1f|%02d', 3.14159, 7)", [("003.1|07",)]),
    "round, abs": ("SELECT round(2.567, 1), abs(-3)", [(2.6, 3)]),
    "group_concat": ("SELECT group_concat(b, '-') FROM t", [("x-y-y",)]),
    "like, glob": ("SELECT 'Abc' LIKE 'a%', 'Abc' GLOB 'a*', 'a_c' LIKE 'a!_c' ESCAPE '!'", [(1, 0, 1)]),
    "iif, coalesce, nullif": ("SELECT iif(1, 'a', 'b'), coalesce(NULL, 2), nullif(1, 1)", [("a", 2, None)]),
    "case": ("SELECT CASE WHEN a > 2 THEN 'big' ELSE 'small' END FROM t", [("small",)] * 3 + [("big",)]),
    "cast": ("SELECT CAST('12abc' AS INTEGER), CAST(3 AS TEXT), CAST(1 AS REAL) / 2", [(12, "3", 0.5)]),
    "values": ("VALUES (1, 'x'), (2, 'y')", [(1, "x"), (2, "y")]),
    "set operations": ("SELECT a FROM t INTERSECT SELECT 2 UNION SELECT 7 EXCEPT SELECT 9", [(2,), (7,)]),
    "correlated subquery": ("SELECT a FROM t AS o WHERE a < (SELECT max(a) FROM t WHERE b <> o.b)", [(1,)]),
    "exists, in": ("SELECT EXISTS (SELECT 1 FROM t WHERE a IN (3, 4))", [(1,)]),
    "joins": ("SELECT count(*) FROM t LEFT JOIN empty USING (a) CROSS JOIN v", [(16,)]),
    "text functions": ("SELECT upper(substr('abc', 2)), instr('abc', 'c'), trim(' a ')", [("BC", 3, "a")]),
    "replace": ("SELECT replace('aXa', 'a', 'b'), 'a' || 'b'", [("bXb", "ab")]),
    "hex, unicode": ("SELECT hex('ä'), unicode('ä'), char(228), length('ä')", [("C3A4", 228, "ä", 1)]),
    "schema": ("SELECT name FROM sqlite_master WHERE type = 'view'", [("v",)]),
    "rowid": ("SELECT max(rowid) FROM t", [(4,)]),
    "limit": ("SELECT a FROM t ORDER BY a LIMIT 2 OFFSET 2", [(2,), (3,)]),
}  # fmt: skip


def as_values(rows: list[tuple[object, ...]]) -> str:
    """SQL that returns the rows."""
    cell = {type(None): lambda _: "NULL", str: lambda text: f"'{text}'"}
    return "VALUES " + ", ".join(f"({', '.join(cell.get(type(c), repr)(c) for c in row)})" for row in rows)


@pytest.mark.parametrize("name", HONEST)
def test_what_honest_queries_use_still_works(db: Path, name: str) -> None:
    """Right against its own values, and as a gold query."""
    query, rows = HONEST[name]
    values = as_values(rows)
    for mode in ("spider", "bird"):
        assert statuses(db, values, query, mode=mode) == ["correct"]
        assert statuses(db, query, values, mode=mode, ordered="never") == ["correct"]


def test_mathematical_functions_where_sqlite_has_them(db: Path) -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        built_in = connection.execute(
            "SELECT 1 FROM pragma_compile_options WHERE compile_options LIKE '%MATH%'"
        ).fetchone()
    expected = "correct" if built_in else "invalid"
    assert statuses(db, "VALUES (3.0, 8.0, 1)", "SELECT sqrt(9), pow(2, 3), sign(5)") == [expected]
    assert statuses(db, "SELECT 1", "SELECT 'a' REGEXP 'a'") == ["invalid"]  # an operator without a function


def test_what_needs_room_gets_it(db: Path) -> None:
    """Sorts and intermediate tables too large for the first try, which would spill into a file."""
    numbers = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 200000)"
    large = f"{numbers} SELECT count(*) FROM (SELECT DISTINCT printf('%050d', n) FROM r)"
    sort = f"{numbers} SELECT n FROM r ORDER BY printf('%050d', -n) LIMIT 1"
    both = statuses(db, "SELECT 200000", large, sort.replace("SELECT n FROM", "SELECT n + 0 FROM"), mode="bird")
    assert both == ["correct", "wrong"]
    assert statuses(db, "SELECT 1", sort.replace("-n", "n")) == ["correct"]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[object]]]:
    """(job, items) of what reaches the worker processes."""
    record: list[tuple[str, list[object]]] = []
    run = Pool.run

    def recording(pool: Pool, items: list[object], *args: object, **others: object) -> list[tuple[str, str]]:
        if items:
            record.append((pool.job, list(items)))
        return run(pool, items, *args, **others)  # type: ignore[arg-type, return-value]

    monkeypatch.setattr(Pool, "run", recording)
    return record


def test_identical_queries_of_a_batch_run_once(db: Path, sent: list[tuple[str, list[object]]]) -> None:
    """Ten completions, three queries, two golds; in the next batch no gold is run."""
    golds = ["SELECT count(*) + 10 FROM t", "SELECT count(*) + 11 FROM t"]
    queries = ["SELECT 14", "SELECT 15", "```sql\nSELECT 14\n``` is right", "```sql\nSELECT 14```", "SELECT 16"]
    items = [{"gold": gold, "db": str(db), "completion": query} for gold in golds for query in queries]
    expected = ["correct", "wrong", "correct", "correct", "wrong", "wrong", "correct", "wrong", "wrong", "wrong"]
    assert [verdict.status for verdict in verify_sql(items)] == expected
    assert [(job, len(sent_items)) for job, sent_items in sent] == [(GOLD_WORKER, 2), (QUERY_WORKER, 6)]
    sent.clear()
    assert [verdict.status for verdict in verify_sql(items[::-1])] == expected[::-1]
    assert [(job, len(sent_items)) for job, sent_items in sent] == [(QUERY_WORKER, 6)]


def test_a_gold_query_that_asks_for_the_time_is_run_in_each_batch(
    db: Path, sent: list[tuple[str, list[object]]]
) -> None:
    for _ in range(2):
        assert statuses(db, "SELECT strftime('%Y', 'now')", "SELECT strftime('%Y')") == ["correct"]
    assert [job for job, _ in sent] == [GOLD_WORKER, QUERY_WORKER] * 2


def test_a_failed_gold_query_is_met_once_for_each_deadline(db: Path, sent: list[tuple[str, list[object]]]) -> None:
    slow = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 300000) SELECT count(*) FROM r"
    for _ in range(2):
        assert statuses(db, slow, "SELECT 300000", gold_deadline_s=0.001) == ["gold_error"]
    assert statuses(db, slow, "SELECT 300000") == ["correct"]
    assert [job for job, _ in sent] == [GOLD_WORKER, GOLD_WORKER, QUERY_WORKER]


def test_only_the_culprit_is_blamed_in_a_long_batch(db: Path) -> None:
    """Three workers die on the way; more items than one message holds."""
    queries = [f"SELECT a FROM t WHERE a < {100 + i}" for i in range(200)]
    for index in (0, 70, 199):
        queries[index] = PREPARE_BOMB + f" LIMIT {index + 1}"
    found = statuses(db, "SELECT a FROM t", *queries, deadline_s=0.1)
    assert [index for index, status in enumerate(found) if status != "correct"] == [0, 70, 199]
    assert {found[index] for index in (0, 70, 199)} == {"timeout"}


@pytest.mark.parametrize("gold", [BOMB, PREPARE_BOMB])
def test_a_gold_query_that_never_ends_is_the_datas_fault(db: Path, gold: str) -> None:
    assert statuses(db, gold, "SELECT 1", "SELECT 2", "", gold_deadline_s=0.1) == ["gold_error"] * 3


def test_size_of_a_result_is_capped(db: Path) -> None:
    many = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT n FROM r"
    assert statuses(db, "SELECT a FROM t", many, mode="bird") == ["wrong"]  # a row the gold result lacks
    assert statuses(db, "SELECT a FROM t", many) == ["wrong"]  # already longer than the gold result
    same = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n FROM r) SELECT n FROM r"
    assert statuses(db, "SELECT a FROM t", same, mode="bird", max_rows=1000) == ["memory"]
    assert statuses(db, "SELECT a FROM t", same, mode="bird", max_bytes=100_000) == ["memory"]


def test_a_query_too_long_to_run_is_not_even_sent(db: Path, sent: list[tuple[str, list[object]]]) -> None:
    """A worker that chokes on a message would be blamed on its first item, which may be another's."""
    assert statuses(db, "SELECT 1", "SELECT 1", "SELECT 1 --" + "x" * 10**7) == ["correct", "blocked"]
    assert [(job, len(items)) for job, items in sent if job == QUERY_WORKER] == [(QUERY_WORKER, 1)]


@pytest.mark.parametrize(
    ("columns", "args", "message"),
    [
        ({"db": "x.sqlite"}, {}, "no 'gold'"),
        ({"gold": "SELECT 1"}, {}, "no 'db'"),
        ({"gold": "SELECT 1", "db": "x.sqlite"}, {"mode": "spyder"}, "did you mean 'spider'"),
        ({"gold": "SELECT 1", "db": "x.sqlite"}, {"deadline_s": 0}, "deadline_s=0 must be a number above 0"),
        ({"gold": "SELECT 1", "db": "x.sqlite"}, {"gold_deadline_s": float("nan")}, "above 0"),
        ({"gold": "SELECT 1", "db": "x.sqlite"}, {"deadline_s": float("inf")}, "above 0"),
        ({"gold": "SELECT 1", "db": "x.sqlite"}, {"max_rows": "many"}, "whole number"),
        ({"gold": "SELECT 1", "db": "x.sqlite"}, {"max_bytes": 1.5}, "whole number"),
        ({"gold": "SELECT 1", "db": "x.sqlite", "mode": "brid", "id": 7}, {}, r"did you mean 'bird'\? \(item 7\)"),
        ({"gold": "SELECT 1", "db": "x.sqlite"}, {"workers": 0}, "at least 1"),
        ({"gold": "SELECT 1", "db": "x.sqlite"}, {"ordered": "alway"}, "did you mean 'always'"),
        ({"gold": "SELECT 1", "db": "x.sqlite"}, {"ties": "fix"}, "ties='fix' is not one of any, fixed"),
        ({"gold": "SELECT 1", "db": "x.sqlite"}, {"empty": "same_table"}, "did you mean 'same_tables'"),
        ({"gold": "SELECT 1", "db": "x.sqlite"}, {"exact": "no"}, "exact='no' must be true or false"),
        ({"gold": "SELECT 1", "db": "x.sqlite"}, {"keep_distinct": 1}, "keep_distinct=1 must be true or false"),
        ({"gold": "SELECT 1", "db": "x.sqlite", "completion": None}, {}, "not text"),
    ],
)
def test_wrong_use_is_named(columns: dict[str, str], args: dict[str, object], message: str) -> None:
    with pytest.raises(VerifierError, match=message):
        verify_sql([{"completion": "SELECT 1"} | columns], **args)  # type: ignore[arg-type]


def test_threads_share_the_workers(db: Path) -> None:
    gate = threading.Barrier(8)

    def judge(number: int) -> list[str]:
        gate.wait()
        return statuses(db, f"SELECT {number}", *[f"SELECT {number} + {i % 2}" for i in range(100)])

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(judge, range(8)))
    assert results == [["correct", "wrong"] * 50] * 8


@pytest.mark.parametrize("rules", [{}, SCRIPT_RULES], ids=["training", "script"])
@pytest.mark.parametrize("mode", ["spider", "bird"])
def test_spider_golds_verify_against_themselves(shared_data: Path, mode: str, rules: dict[str, Any]) -> None:
    spider = shared_data / "spider"
    with (spider / "dev.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for _, line in zip(range(300), file, strict=False)]
    items = [
        {"gold": row["query"], "db": row["db_id"], "completion": f"So:\n```sql\n{row['query']}\n```"} for row in rows
    ]
    verdicts = verify_sql(items, db_dir=str(spider / "database"), mode=mode, **rules)  # type: ignore[arg-type]
    assert [rows[i] for i, verdict in enumerate(verdicts) if not verdict.correct] == []
