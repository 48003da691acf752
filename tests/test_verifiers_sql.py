"""Verdicts on SQL: hand-made tables, both benchmarks' equality, and queries that mean harm."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from dphrl.errors import VerifierError
from dphrl.verifiers.sql import verify_batch
from dphrl.verifiers.sql_text import (
    canonical_sql,
    extract_sql,
    first_word,
    orders_rows,
    spider_rewrites,
    without_distinct,
)

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
    return [verdict.status for verdict in verify_batch(items, **args)]  # type: ignore[arg-type]


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
        ("SELECT 4", "SELECT max(n) FROM (SELECT row_number() OVER (ORDER BY a) AS n FROM t)", "correct", "correct"),
        ("SELECT '05'", "SELECT printf('%02d', strftime('%m', '2020-05-01'))", "correct", "correct"),
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
def test_verdicts(db: Path, gold: str | None, query: str, spider: str, bird: str) -> None:
    assert statuses(db, gold, query) == [spider]
    assert statuses(db, gold, query, mode="bird") == [bird]


def test_rewards_and_modes_of_prompts(db: Path) -> None:
    """A prompt's own mode comes first; only what says nothing about the completion has no reward."""
    item = {"gold": "SELECT a, b FROM t", "db": str(db), "completion": "SELECT b, a FROM t"}
    verdicts = verify_batch([item, item | {"mode": "bird"}, item | {"gold": "x"}])
    assert [(v.correct, v.reward) for v in verdicts] == [(True, 1.0), (False, 0.0), (False, None)]


def test_keep_distinct(db: Path) -> None:
    assert statuses(db, "SELECT a FROM t", "SELECT DISTINCT a FROM t", keep_distinct=True) == ["wrong"]
    assert statuses(db, "SELECT count(DISTINCT a) FROM t", "SELECT 4") == ["correct"]  # stripped there too


HOSTILE = {
    "attach": ("ATTACH '{folder}/new.sqlite' AS x", "blocked"),
    "pragma": ("PRAGMA table_info(t)", "blocked"),
    "pragma as a table": ("SELECT * FROM pragma_table_info('t')", "blocked"),
    "pragma without argument": ("SELECT * FROM pragma_database_list", "blocked"),
    "vacuum into": ("VACUUM INTO '{folder}/copy.sqlite'", "blocked"),
    "delete": ("DELETE FROM t", "blocked"),
    "delete behind with": ("WITH x AS (SELECT 1) DELETE FROM t", "blocked"),
    "update of the schema": ("WITH x AS (SELECT 1) UPDATE sqlite_master SET type = 'view'", "invalid"),
    "temp view": ("CREATE TEMP VIEW t AS SELECT 1", "blocked"),
    "reindex": ("REINDEX", "blocked"),
    "explain": ("EXPLAIN SELECT a FROM empty", "blocked"),
    "explain behind a semicolon": ("; EXPLAIN SELECT a FROM empty", "invalid"),
    "begin": ("BEGIN", "blocked"),
    "comment": ("-- SELECT a FROM empty", "invalid"),
    "two statements": ("SELECT a FROM empty; SELECT a FROM empty", "invalid"),
    "load_extension": ("SELECT load_extension('x')", "blocked"),
    "fts3_tokenizer": ("SELECT fts3_tokenizer('simple')", "blocked"),
    "endless recursion": (BOMB, "timeout"),
    "exponential prepare": (PREPARE_BOMB, "timeout"),
    "printf": ("SELECT printf('%.*c', 1000000000, 'x')", "timeout"),
    "zeroblob": ("SELECT zeroblob(1000000000)", "memory"),
    "replace": ("SELECT replace(hex(zeroblob(90000)), '0', hex(zeroblob(500)))", "memory"),
    "like": ("SELECT 'a' LIKE hex(zeroblob(10000))", "invalid"),
    "long text": ("SELECT '" + "x" * 200_000 + "'", "blocked"),
    "surrogate": ("SELECT '\ud800'", "invalid"),
    "null character": ("SELECT '\x00'", "invalid"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_queries_gain_nothing_and_leave_no_trace(db: Path, name: str) -> None:
    """Never right, even where the gold result is empty; the next query on the same database is judged as before."""
    query, expected = HOSTILE[name]
    query = query.replace("{folder}", str(db.parent))
    before = db.read_bytes()
    nothing = {"gold": "SELECT a FROM empty", "db": str(db), "completion": query}
    something = {"gold": "SELECT a FROM t", "db": str(db), "completion": "SELECT a FROM t"}
    verdicts = verify_batch([nothing, something], deadline_s=0.1)
    assert [verdict.status for verdict in verdicts] == [expected, "correct"]
    assert list(db.parent.iterdir()) == [db]
    assert db.read_bytes() == before


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


def test_a_missing_database_is_the_datas_fault_and_is_not_created(tmp_path: Path) -> None:
    path = tmp_path / "none.sqlite"
    assert statuses(path, "SELECT 1", "SELECT 1") == ["gold_error"]
    assert not path.exists()


def test_databases_by_name(db: Path, tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "shop.sqlite").write_bytes(db.read_bytes())
    item = {"gold": "SELECT a FROM t", "db": "shop", "completion": "SELECT a FROM t"}
    assert verify_batch([item], db_dir=str(tmp_path))[0].correct
    with pytest.raises(VerifierError, match="db_dir"):
        verify_batch([item])


@pytest.mark.parametrize(
    ("columns", "args", "message"),
    [
        ({"db": "x.sqlite"}, {}, "no 'gold'"),
        ({"gold": "SELECT 1"}, {}, "no 'db'"),
        ({"gold": "SELECT 1", "db": "x.sqlite"}, {"mode": "spyder"}, "did you mean 'spider'"),
        ({"gold": "SELECT 1", "db": "x.sqlite"}, {"deadline_s": 0}, "above 0"),
        ({"gold": "SELECT 1", "db": "x.sqlite"}, {"workers": 0}, "at least 1"),
        ({"gold": "SELECT 1", "db": "x.sqlite"}, {"ordered": "alway"}, "did you mean 'always'"),
        ({"gold": "SELECT 1", "db": "x.sqlite", "completion": None}, {}, "not text"),
    ],
)
def test_wrong_use_is_named(columns: dict[str, str], args: dict[str, object], message: str) -> None:
    with pytest.raises(VerifierError, match=message):
        verify_batch([{"completion": "SELECT 1"} | columns], **args)  # type: ignore[arg-type]


def test_threads_share_the_workers(db: Path) -> None:
    gate = threading.Barrier(8)

    def judge(number: int) -> list[str]:
        gate.wait()
        return statuses(db, f"SELECT {number}", *[f"SELECT {number} + {i % 2}" for i in range(100)])

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(judge, range(8)))
    assert results == [["correct", "wrong"] * 50] * 8


@pytest.mark.parametrize(
    ("completion", "sql"),
    [
        ("SELECT 1", "SELECT 1"),
        ("a ```sql\nSELECT 1\n``` b ```sql\nSELECT 2\n``` c", "SELECT 2"),
        ("```SQL SELECT 1```", "SELECT 1"),
        ("```sql\nSELECT 1", "SELECT 1"),  # cut
        ("```sqlite\nSELECT 1\n```", ""),
        ("```\nSELECT 1\n```", ""),
        ("", ""),
    ],
)
def test_extract_sql(completion: str, sql: str) -> None:
    assert extract_sql(completion) == sql


def test_reading_text_is_linear() -> None:
    """Each of these takes quadratic time or worse with a careless pattern; here they are nothing."""
    for text in (
        "\n" * 10**5,
        "```sql\n" * 10**4,
        "'" * 10**5,
        "/*" * 10**4,
        "``" * 10**4,
        "'a''" * 10**4,
        "[" * 10**5,
    ):
        extract_sql(text)
        first_word(text)
        orders_rows(text)
        canonical_sql(text)
        without_distinct(text + " distinct")


@pytest.mark.parametrize(
    ("sql", "ordered"),
    [
        ("SELECT a FROM t ORDER BY a", True),
        ("SELECT a FROM t order /* x */ \n by a LIMIT 1", True),
        ("SELECT a FROM t UNION SELECT b FROM t ORDER BY 1", True),
        ("SELECT a FROM (SELECT a FROM t ORDER BY a)", False),
        ("SELECT row_number() OVER (ORDER BY a) FROM t", False),
        ("SELECT 'order by' FROM t -- order by a", False),
        ('SELECT "order" FROM t GROUP BY a', False),
    ],
)
def test_orders_rows(sql: str, ordered: bool) -> None:
    assert orders_rows(sql) is ordered


def test_rewrites_of_the_spider_script() -> None:
    assert without_distinct("SELECT DISTINCT a, count(Distinct b), 'distinct' FROM t -- distinct") == (
        "SELECT  a, count( b), 'distinct' FROM t -- distinct"
    )
    assert spider_rewrites("SELECT year ( curdate() ) - a WHERE b ! = 1") == "SELECT 2020- a WHERE b != 1"


def test_canonical_sql() -> None:
    assert canonical_sql("select  A\nFROM `T` where b='X  y';") == canonical_sql(
        "SELECT a from `t` -- c\nWHERE b = 'X  y'"
    )
    assert canonical_sql("SELECT 'a'") != canonical_sql("SELECT 'A'")


@pytest.mark.parametrize("mode", ["spider", "bird"])
def test_spider_golds_verify_against_themselves(shared_data: Path, mode: str) -> None:
    spider = shared_data / "spider"
    with (spider / "dev.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for _, line in zip(range(300), file, strict=False)]
    items = [
        {"gold": row["query"], "db": row["db_id"], "completion": f"So:\n```sql\n{row['query']}\n```"} for row in rows
    ]
    verdicts = verify_batch(items, db_dir=str(spider / "database"), mode=mode)  # type: ignore[arg-type]
    assert [rows[i] for i, verdict in enumerate(verdicts) if not verdict.correct] == []
