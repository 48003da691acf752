"""Completions that mean harm: every false reward of the official scripts, and attacks on files, data, memory and time.

Each runs beside honest queries in one worker process, in both modes, against a gold query without rows, where returning
nothing would be right.
"""

from __future__ import annotations

import re
import resource
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dphrl.types import NO_REWARD, Verdict
from dphrl.verifiers.sql.verify_sql import GOLD_WORKER, QUERY_WORKER, verify_sql
from dphrl.verifiers.workers.limits import MEMORY_BYTES
from dphrl.verifiers.workers.pool import pool_of

DEADLINE_S = 0.1
SCHEMA = """
CREATE TABLE t(a INTEGER, b TEXT);
INSERT INTO t VALUES (1, 'x'), (2, 'y'), (2, 'y'), (3, NULL);
CREATE TABLE empty(a INTEGER);
CREATE INDEX i ON t(b);
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that is current, holds two databases, and where temporary files would go; the workers are new."""
    folder = tmp_path_factory.mktemp("attacked")
    for name in ("x.sqlite", "y.sqlite"):
        with closing(sqlite3.connect(folder / name)) as connection:
            connection.executescript(SCHEMA)
    for job in (QUERY_WORKER, GOLD_WORKER):
        pool_of(job).close()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TMPDIR", str(folder))
        patch.setenv("SQLITE_TMPDIR", str(folder))
        yield folder
    for job in (QUERY_WORKER, GOLD_WORKER):
        pool_of(job).close()


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Bytes and time of change of every file."""
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def item(gold: str, query: str, mode: str = "spider", db: str = "x.sqlite") -> dict[str, str]:
    return {"gold": gold, "db": db, "completion": query, "mode": mode}


HONEST = [
    item("SELECT a, b FROM t", "SELECT b, a FROM t"),
    item("SELECT a, b FROM t", "SELECT a, b FROM t GROUP BY 1, 2", "bird"),
    item("SELECT a FROM t WHERE b LIKE 'X'", "SELECT 1"),
    item("SELECT a FROM t ORDER BY a", "SELECT a FROM t ORDER BY a", db="y.sqlite"),
    item("SELECT 3", "SELECT count(DISTINCT a) FROM t", "bird", db="y.sqlite"),
]


def attack(folder: Path, queries: list[dict[str, str]], deadline_s: float = DEADLINE_S) -> list[Verdict]:
    """Verdicts on hostile queries, after which honest ones are judged as ever, and nothing on disk is changed."""
    before = files(folder)
    verdicts = verify_sql([*queries, *HONEST], deadline_s=deadline_s, workers=1)
    assert [verdict.status for verdict in verdicts[len(queries) :]] == ["correct"] * len(HONEST)
    assert verify_sql(HONEST[::-1], workers=1)[0].correct
    assert files(folder) == before
    return verdicts[: len(queries)]


def refused(folder: Path, query: str, gold: str = "SELECT a FROM empty", deadline_s: float = DEADLINE_S) -> set[str]:
    """Statuses, all with reward 0, of a query in both modes."""
    verdicts = attack(folder, [item(gold, query, mode) for mode in ("spider", "bird")], deadline_s)
    assert [verdict.reward for verdict in verdicts] == [0.0, 0.0]
    return {verdict.status for verdict in verdicts}


# The false rewards of the official scripts.


def test_false_reward_delete_that_empties_a_table(place: Path) -> None:
    """BIRD's script runs the prediction first, on the gold query's connection, which may write."""
    assert refused(place, "DELETE FROM t", "SELECT a FROM t") == {"blocked"}


def test_false_reward_temp_view_that_shadows_a_table(place: Path) -> None:
    """There, a view of the same name hides the table from the gold query."""
    assert refused(place, "CREATE TEMP VIEW t AS SELECT 1 AS a WHERE 0", "SELECT a FROM t") == {"blocked"}


@pytest.mark.parametrize(
    "pragma",
    [
        "case_sensitive_like=1",
        "reverse_unordered_selects=1",
        "writable_schema=1",
        "cache_size=0",
        "hard_heap_limit=10000",
        "temp_store=FILE",
        "journal_mode=WAL",
        "encoding='UTF-16'",
        "user_version=7",
    ],
)
def test_false_reward_pragma_that_changes_later_answers(place: Path, pragma: str) -> None:
    """HONEST has a LIKE that ignores case, and queries that need memory and a cache."""
    assert refused(place, f"PRAGMA {pragma}", "SELECT a FROM t WHERE b LIKE 'Z'") == {"blocked"}


def test_false_reward_extra_columns(place: Path) -> None:
    for gold, query in (
        ("SELECT a FROM t", "SELECT a, b FROM t"),
        ("SELECT 1", "SELECT 1, 1"),
        ("SELECT 1, 2", "SELECT 1"),
    ):
        assert refused(place, query, gold) == {"wrong"}


@pytest.mark.parametrize(
    "query",
    [
        "ATTACH ':memory:' AS m",
        "DETACH main",
        "PRAGMA optimize",
        "REINDEX",
        "ANALYZE",
        "EXPLAIN SELECT a FROM empty",
        "EXPLAIN QUERY PLAN SELECT a FROM empty",
        "-- SELECT a FROM empty",
        "/* SELECT a FROM empty */",
        ";",
        "BEGIN",
        "SAVEPOINT s",
        "END",
    ],
)
def test_false_reward_no_query_where_the_gold_result_is_empty(place: Path, query: str) -> None:
    """The scripts take a statement without rows for an empty result."""
    assert refused(place, query) <= {"blocked", "invalid"}


def test_false_reward_ten_equal_columns(place: Path) -> None:
    """Ten columns of the same values, in other rows: the script tries ten to the tenth permutations, and never ends."""
    rows = ", ".join(f"({', '.join(str((7 * row + column) % 10) for column in range(10))})" for row in range(10))
    assert refused(place, f"VALUES {rows.replace('(0, 1,', '(1, 0,')}", f"VALUES {rows}") == {"wrong"}
    turned = ", ".join(f"column{i}" for i in range(10, 0, -1))
    [verdict] = attack(place, [item(f"VALUES {rows}", f"SELECT {turned} FROM (VALUES {rows})")])
    assert verdict.correct


def test_false_reward_newlines_for_the_extractor(place: Path) -> None:
    """1,600 newlines take the released extractor 23 seconds."""
    for text in ("\n" * 1_600, "```sql" + "\n" * 100_000, "```sql\n" * 50_000):
        [verdict] = attack(place, [item("SELECT a FROM empty", text)])
        assert (verdict.status, verdict.reward) == ("no_answer", 0.0)


def test_false_reward_order_by_in_a_string_or_subquery(place: Path) -> None:
    """The script looks for the letters, and then demands an order that SQL does not promise: a false 0."""
    for gold in ("SELECT a, 'order by' FROM t", "SELECT a, 'order by' FROM (SELECT a FROM t ORDER BY a)"):
        [verdict] = attack(place, [item(gold, "SELECT a, 'order by' FROM t ORDER BY a DESC")])
        assert verdict.correct


# Files and data.

BLOCKED = {
    "delete behind a semicolon": "; DELETE FROM t",
    "explain behind a semicolon": "; EXPLAIN SELECT a FROM empty",
    "attach a new file": "ATTACH 'new.sqlite' AS x",
    "attach the other database": "ATTACH 'y.sqlite' AS y",
    "attach by URI": "ATTACH 'file:new.sqlite?mode=rwc' AS x",
    "vacuum into": "VACUUM INTO 'copy.sqlite'",
    "vacuum": "VACUUM",
    "load_extension": "SELECT load_extension('./new.so')",
    "LOAD_EXTENSION by another case": "SELECT Load_Extension('./new.so', 'f') FROM t",
    "fts3_tokenizer": "SELECT fts3_tokenizer('simple', x'0000000000000000')",
    "pragma as a table": "SELECT * FROM pragma_table_info('t')",
    "pragma without argument": "SELECT * FROM pragma_database_list",
    "delete": "DELETE FROM t",
    "delete behind with": "WITH x AS (SELECT 1) DELETE FROM t",
    "delete that returns": "DELETE FROM empty RETURNING a",
    "insert": "INSERT INTO empty VALUES (1)",
    "insert behind with": "WITH x AS (SELECT 1) INSERT INTO empty SELECT * FROM x",
    "update": "UPDATE t SET a = 1",
    "update behind with": "WITH x AS (SELECT 1) UPDATE empty SET a = 1 RETURNING a",
    "replace": "REPLACE INTO empty VALUES (1)",
    "drop": "DROP TABLE t",
    "alter": "ALTER TABLE t RENAME TO u",
    "create": "CREATE TABLE u AS SELECT 1",
    "temp table": "CREATE TEMP TABLE t(a)",
    "temp trigger": "CREATE TEMP TRIGGER r AFTER INSERT ON t BEGIN SELECT 1; END",
    "virtual table": "CREATE VIRTUAL TABLE f USING fts5(a)",
    "delete behind a comment": "/* SELECT */ DELETE FROM t",
}
INVALID = {
    "writefile": "SELECT writefile('new.txt', 'x')",
    "readfile": "SELECT readfile('/etc/passwd')",
    "edit": "SELECT edit('x', 'touch new.txt')",
    "fsdir": "SELECT * FROM fsdir('/')",
    "dot command": ".shell touch new.txt",
    "delete behind a query": "SELECT a FROM empty; DELETE FROM t",
    "two queries": "SELECT a FROM empty; SELECT a FROM empty",
    "the schema": "WITH x AS (SELECT 1) UPDATE sqlite_master SET type = 'view'",
    "a null character": "SELECT a FROM empty\0 WHERE 1",
    "a lone surrogate": "SELECT '\ud800' FROM empty",
    "a mark for right to left": "SEL\u202eECT a FROM empty",
    "a no-break space": "SELECT\u00a0a FROM empty",
    "an open string": "SELECT 'abc FROM empty",
    "an open bracket": "SELECT [a FROM empty",
    "49,000 parentheses": "SELECT " + "(" * 49_000 + "1" + ")" * 49_000,
    "nested queries": "SELECT * FROM (" * 5_000 + "empty" + ")" * 5_000,
    "NOT": "SELECT " + "NOT " * 20_000 + "1",
    "minus": "SELECT " + "- " * 40_000 + "1",
    "concatenation": "SELECT a" + " || a" * 19_000 + " FROM empty",
    "nested CASE": "SELECT " + "CASE WHEN 1 THEN " * 4_000 + "1" + " END" * 4_000,
    "2,001 columns": "SELECT a" + ", a" * 2_000 + " FROM empty",
    "65 tables": "SELECT 1 FROM empty" + ", empty" * 64,
    "501 terms": "SELECT a FROM empty" + " UNION SELECT a FROM empty" * 500,
    "variables": "SELECT ?250001 FROM empty",
    "a pattern of 10,000 characters": "SELECT 'a' LIKE hex(zeroblob(5000))",
    "begin with an identifier": "SELECTa FROM empty",
}


@pytest.mark.parametrize("name", BLOCKED)
def test_what_is_no_query_is_blocked(place: Path, name: str) -> None:
    assert refused(place, BLOCKED[name]) == {"blocked"}


@pytest.mark.parametrize("name", INVALID)
def test_what_sqlite_refuses_is_invalid(place: Path, name: str) -> None:
    assert refused(place, INVALID[name]) == {"invalid"}


def test_long_queries(place: Path) -> None:
    """What SQLite can read is judged, up to 100,000 characters; both sides of the limits."""
    many = "SELECT a FROM t WHERE a IN (" + ", ".join(["1", "2", "3"] * 9_000) + ")"
    wide = "SELECT a" + ", a" * 1_999 + " FROM t"
    assert all(
        v.correct for v in attack(place, [item("SELECT a FROM t", many), item(wide, wide), item(wide, wide, "bird")])
    )
    assert refused(place, "SELECT '" + "x" * 100_000 + "'") == {"blocked"}
    assert refused(place, "SELECT " + "(" * 100_000) == {"blocked"}
    assert refused(place, "SELECT 1 -- " + "x" * 10**7) == {"blocked"}


# Memory and time. A query that SQLite is asked in vain to stop costs its worker its life, at twice the deadline.

NUMBERS = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) "
MEGABYTE = "hex(zeroblob(490000))"
LONG_JSON = "'[' || rtrim(replace(hex(zeroblob(100000)), '0', '1,'), ',') || ']'"
MEMORY = {
    "zeroblob": "SELECT zeroblob(1000000000)",
    "randomblob": "SELECT randomblob(1000000000)",
    "hex": "SELECT hex(zeroblob(900000))",
    "concatenation": f"SELECT {MEGABYTE} || {MEGABYTE}",
    "replace": f"SELECT replace({MEGABYTE}, '0', '{'x' * 500}')",
    "group_concat": NUMBERS + "SELECT group_concat(hex(zeroblob(50000))) FROM (SELECT n FROM r LIMIT 100)",
    "json_group_array": NUMBERS + "SELECT json_group_array(hex(zeroblob(50000))) FROM (SELECT n FROM r LIMIT 100)",
    "doubling": "WITH RECURSIVE r(x) AS (SELECT 'x' UNION ALL SELECT x || x FROM r) SELECT max(length(x)) FROM r",
    "characters to trim": f"SELECT trim('a', {MEGABYTE})",
}
TIME = {
    "recursion": NUMBERS + "SELECT count(*) FROM r",
    "recursion without rows": NUMBERS + "SELECT n FROM r WHERE n < 0",
    "cross join of the schema": "SELECT count(*) FROM " + ", ".join(f"sqlite_master AS s{i}" for i in range(30)),
    "sort of a cross join": "SELECT 1 FROM t" + "".join(f", t AS t{i}" for i in range(12)) + " ORDER BY random()",
    "json": f"SELECT count(*) FROM json_each({LONG_JSON}) AS x, json_each({LONG_JSON}) AS y",
    "window": NUMBERS + "SELECT sum(n) OVER (ORDER BY n) FROM r",
}
DEADLY = {
    "printf of a precision": ("SELECT printf('%.*c', 1000000000, 'x')", {"timeout", "memory"}),
    "instr": (f"SELECT instr({MEGABYTE}, hex(zeroblob(240000)) || '1')", {"timeout"}),
    "trim": (f"SELECT trim(replace({MEGABYTE}, '0', '1'), hex(zeroblob(30000)) || '1')", {"timeout"}),
    "LIKE": (f"SELECT {MEGABYTE} LIKE '%{'0' * 900}1'", {"timeout"}),
    "GLOB": (f"SELECT {MEGABYTE} GLOB '*{'0' * 900}1'", {"timeout"}),
    "tables that double while they are prepared": (
        "WITH a0 AS (SELECT 1 x)"
        + "".join(f", a{i} AS (SELECT * FROM a{i - 1} UNION ALL SELECT * FROM a{i - 1})" for i in range(1, 40))
        + " SELECT * FROM a39",
        {"timeout"},
    ),
    "columns that double": (
        "WITH a0 AS (SELECT 1 x, 2 y)"
        + "".join(f", a{i} AS (SELECT * FROM a{i - 1} AS l JOIN a{i - 1} AS r)" for i in range(1, 30))
        + " SELECT 1 FROM a29",
        {"timeout", "invalid", "memory"},
    ),
    "joins of joins": (
        "WITH a0 AS (SELECT a FROM t)"
        + "".join(f", a{i} AS (SELECT l.a FROM a{i - 1} AS l NATURAL JOIN a{i - 1} AS r)" for i in range(1, 30))
        + " SELECT * FROM a29",
        {"timeout", "invalid", "memory"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MEMORY)
def test_values_are_bounded(place: Path, name: str) -> None:
    assert refused(place, MEMORY[name]) == {"memory"}


@pytest.mark.parametrize("name", TIME)
def test_sqlite_is_asked_to_stop(place: Path, name: str) -> None:
    """The worker lives on."""
    verify_sql(HONEST, workers=1)
    pids = pool_of(QUERY_WORKER).pids
    assert refused(place, TIME[name]) == {"timeout"}
    assert pool_of(QUERY_WORKER).pids == pids


@pytest.mark.parametrize("name", DEADLY)
def test_a_call_that_does_not_end_costs_the_worker_its_life(place: Path, name: str) -> None:
    query, expected = DEADLY[name]
    assert refused(place, query) <= expected


FEW = NUMBERS.replace("FROM r)", "FROM r WHERE n < 10000)")
HALF_A_GIGABYTE = {
    "sort": FEW + f"SELECT * FROM (SELECT {MEGABYTE} || n FROM r) ORDER BY 1",
    "distinct": FEW + f"SELECT count(*) FROM (SELECT {MEGABYTE} || n FROM r GROUP BY 1)",
    "materialized": FEW + f", m AS MATERIALIZED (SELECT {MEGABYTE} || n FROM r) SELECT count(*) FROM m, m AS y",
    "wide row": "SELECT " + ", ".join(["zeroblob(1000000)"] * 1_500),
    "wide random row": "SELECT " + ", ".join(["randomblob(1000000)"] * 1_500),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HALF_A_GIGABYTE)
def test_memory_of_a_query_is_bounded(place: Path, name: str) -> None:
    """No worker takes more than its share, though the deadline would allow it, and none dies of it."""
    verify_sql(HONEST, workers=1)
    [pid] = pool_of(QUERY_WORKER).pids
    assert refused(place, HALF_A_GIGABYTE[name], deadline_s=20.0) == {"memory"}
    assert pool_of(QUERY_WORKER).pids == [pid]
    [peak] = re.findall(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert int(peak) * 1024 < 0.75 * MEMORY_BYTES


def test_rows_that_repeat_a_right_one_are_bounded(place: Path) -> None:
    """BIRD compares sets, so no row is foreign."""
    gold = f"SELECT {MEGABYTE}"
    [verdict] = attack(place, [item(gold, NUMBERS + f"SELECT {MEGABYTE} FROM r", "bird")], deadline_s=5.0)
    assert (verdict.status, verdict.detail) == ("memory", "a result above 64000000 bytes")


def test_the_limits_of_a_worker(place: Path) -> None:
    """What the kernel holds it to, whatever code runs in it."""
    verify_sql(HONEST, workers=1)
    for job in (QUERY_WORKER, GOLD_WORKER):
        [pid] = pool_of(job).pids
        assert resource.prlimit(pid, resource.RLIMIT_AS) == (MEMORY_BYTES, MEMORY_BYTES)
        assert resource.prlimit(pid, resource.RLIMIT_FSIZE) == (0, 0)
        assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, 0)
        assert resource.prlimit(pid, resource.RLIMIT_NOFILE)[0] == 0  # it can open no file, not even a temporary one
        links = {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()}
        assert str(place / "x.sqlite") in links


# Gold results that are hard to compare.


@pytest.mark.parametrize("equal", [True, False])
def test_comparison_of_hostile_results(place: Path, equal: bool) -> None:
    """2,000 equal columns; a square of cyclic shifts with its columns turned round, and with two cells exchanged."""
    same = "SELECT " + ", ".join(["a"] * 2_000) + " FROM t"
    square = [[(row + column) % 60 for column in range(60)] for row in range(60)]
    turned = [row[::-1] for row in square]
    if not equal:
        turned[3][5], turned[3][6] = turned[3][6], turned[3][5]
    values = ["VALUES " + ", ".join(f"({', '.join(map(str, row))})" for row in table) for table in (square, turned)]
    other = same if equal else same.replace("a FROM", "a + (rowid = 2) FROM")
    verdicts = attack(place, [item(same, other), item(*values)], deadline_s=5.0)
    assert [verdict.status for verdict in verdicts] == ["correct" if equal else "wrong"] * 2


def test_a_hostile_gold_query_is_the_datas_fault(place: Path) -> None:
    """Data sets hold strange things, too; no completion is blamed for them, and nothing is touched."""
    for table in (BLOCKED, INVALID, MEMORY):
        before = files(place)
        verdicts = verify_sql([item(gold, "SELECT 1") for gold in table.values()], gold_deadline_s=1.0)
        assert [verdict.status for verdict in verdicts] == ["gold_error"] * len(table)
        assert {verdict.reward for verdict in verdicts} == {None} and "gold_error" in NO_REWARD
        assert files(place) == before
