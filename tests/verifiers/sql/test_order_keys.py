"""What a query sorts by, and which rows of a gold result may therefore change places."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dphrl.verifiers.sql.order_keys import OrderKeys, order_keys
from dphrl.verifiers.sql.verify_sql import verify_sql


@pytest.mark.parametrize(
    ("sql", "names", "keys"),
    [
        ("SELECT a FROM t", ["a"], None),
        ("SELECT a, b FROM t ORDER BY b DESC", ["a", "b"], OrderKeys((1,), None)),
        ("SELECT a, b FROM t ORDER BY 2, 1 NULLS LAST LIMIT 3", ["a", "b"], OrderKeys((1, 0), None)),
        ("SELECT a FROM t ORDER BY A COLLATE nocase ASC NULLS FIRST", ["a"], OrderKeys((0,), None)),
        ('SELECT a "the a" FROM t ORDER BY "the a"', ["the a"], OrderKeys((0,), None)),
        ("SELECT a FROM t ORDER BY t.b", ["a"], OrderKeys((), "SELECT a , (t.b) FROM t ORDER BY t.b")),
        (
            "SELECT a, 'x from' FROM t GROUP BY 1 ORDER BY a, count(*) DESC, max(b, 1)",
            ["a", "'x from'"],
            OrderKeys(
                (0,),
                "SELECT a, 'x from' , (count(*)), (max(b, 1)) FROM t GROUP BY 1 ORDER BY a, count(*) DESC, max(b, 1)",
            ),
        ),
        (
            "WITH w AS (SELECT a FROM t) SELECT a IS NOT DISTINCT FROM 1 FROM w ORDER BY b + 1",
            ["x"],
            OrderKeys(
                (),
                "WITH w AS (SELECT a FROM t) SELECT a IS NOT DISTINCT FROM 1 , (b + 1) FROM w ORDER BY b + 1",
            ),
        ),
        ("SELECT a FROM t UNION SELECT b FROM t ORDER BY 1", ["a"], OrderKeys((0,), None)),
        ("SELECT a FROM t UNION SELECT b FROM t ORDER BY a + 1", ["a"], None),
        ("SELECT 1 ORDER BY 1 + 1", ["1"], None),
    ],
)
def test_what_a_query_sorts_by(sql: str, names: list[str], keys: OrderKeys | None) -> None:
    assert order_keys(sql, names) == keys


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("ties") / "x.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            """
            CREATE TABLE t(name TEXT, age INTEGER, fee REAL);
            INSERT INTO t VALUES ('a', 1, 0.3), ('b', 2, 0.30000000000000004), ('c', 2, 0.5), ('d', 2, 0.7),
                ('e', 3, 1);
            CREATE TABLE s(name TEXT, part INTEGER);
            INSERT INTO s VALUES ('a', 1), ('a', 2), ('b', 1), ('b', 2), ('c', 7);
            """
        )
    yield path


def judged(db: Path, gold: str, names: str, **args: object) -> bool:
    """Whether names, or rows, in this order are right."""
    rows = ", ".join(f"('{name}')" for name in names)
    item = {"gold": gold, "db": str(db), "completion": f"SELECT * FROM (VALUES {rows})"}
    return verify_sql([item], **args)[0].correct  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("gold", "right", "wrong"),
    [
        ("SELECT name FROM t ORDER BY age", "abcde adcbe acdbe", "bacde abced edcba"),
        ("SELECT name FROM t ORDER BY age DESC", "ebcda edbca", "abcde bcdea"),
        ("SELECT name FROM t ORDER BY t.age, name", "abcde", "acbde"),
        ("SELECT name FROM t ORDER BY age > 1", "abcde aedcb", "bacde"),
        ("SELECT name FROM t ORDER BY age LIMIT 3", "abc acb", "bac abd"),
        ("SELECT DISTINCT name FROM t ORDER BY age", "abcde adcbe", "bacde"),
        ("SELECT name FROM t AS x ORDER BY (SELECT count(*) FROM s WHERE s.name = x.name)", "decab edcba", "abcde"),
        ("SELECT name FROM s GROUP BY name ORDER BY count(*)", "cab cba", "abc acb"),
        ("SELECT name AS age FROM t ORDER BY age", "abcde", "adcbe"),  # the alias, not the column of its name
        ("SELECT name FROM s UNION SELECT name FROM t ORDER BY name", "abcde", "abced"),
        ("SELECT name FROM t ORDER BY 'x'", "abcde edcba", "abcd"),  # a constant orders nothing
        ("SELECT name FROM t ORDER BY NULL; -- x", "abcde edcba", "abcd"),
        ("SELECT name FROM t WHERE fee < 0.4 ORDER BY fee", "ab ba", "aa"),  # near numbers are ties, too
        ("SELECT name FROM t WHERE age IS DISTINCT FROM 3 ORDER BY age", "abcd adcb", "bacd"),
    ],
)
def test_rows_that_order_by_leaves_equal_may_change_places(db: Path, gold: str, right: str, wrong: str) -> None:
    for mode in ({}, {"mode": "bird", "ordered": "always"}):
        assert [judged(db, gold, names, **mode) for names in right.split()] == [True] * len(right.split())
        assert [judged(db, gold, names, **mode) for names in wrong.split()] == [False] * len(wrong.split())


def test_ties_are_fixed_where_that_is_asked_for(db: Path) -> None:
    gold = "SELECT name FROM t ORDER BY age"
    assert judged(db, gold, "abcde", ties="fixed") and not judged(db, gold, "adcbe", ties="fixed")
    assert judged(db, gold, "edcba", ties="fixed", ordered="never")
    assert judged(db, gold, "adcbe", ordered="always")
    assert not judged(db, "SELECT name FROM t", "bacde", ordered="always")


def test_near_numbers_are_no_ties_where_numbers_are_exact(db: Path) -> None:
    gold = "SELECT name FROM t WHERE fee < 0.4 ORDER BY fee"
    assert judged(db, gold, "ab", exact=True) and not judged(db, gold, "ba", exact=True)


def test_columns_may_be_permuted_among_ties(db: Path) -> None:
    item = {"gold": "SELECT name, age FROM t ORDER BY age", "db": str(db)}
    swapped = {"completion": "SELECT age, name FROM t ORDER BY age, name DESC"}
    mixed = {"completion": "SELECT age, iif(name = 'd', 'c', iif(name = 'c', 'd', name)) FROM t ORDER BY age DESC"}
    assert [verdict.correct for verdict in verify_sql([item | swapped, item | mixed])] == [True, False]


def test_where_further_columns_change_the_result_the_order_is_fixed(db: Path) -> None:
    """DISTINCT parts by what is ordered by: with it, rows repeat, so nothing is known of ties."""
    gold = "SELECT DISTINCT name FROM s ORDER BY part % 2"
    assert [judged(db, gold, names) for names in ("abc", "bac", "cab")].count(True) == 1
