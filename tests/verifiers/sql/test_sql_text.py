"""What is read off the text of SQL: ORDER BY, DISTINCT, the clock."""

from __future__ import annotations

import json
from pathlib import Path

import hypothesis.strategies as st
import pytest
import sqlglot
from hypothesis import given, settings

from dphrl.verifiers.sql.sql_text import (
    asks_the_moment,
    canonical_sql,
    first_word,
    one_statement,
    orders_rows,
    spider_rewrites,
    tokens,
    without_distinct,
)

SQL_PIECES = st.sampled_from(
    [
        "distinct",
        "DISTINCT ",
        " ",
        "'",
        '"',
        "`",
        "[",
        "]",
        "--",
        "/*",
        "*/",
        "\n",
        "a",
        "(",
        ")",
        "''",
        "order ",
        "by",
        "é",
    ]
)
SQL = st.lists(SQL_PIECES, max_size=14).map("".join)


@settings(max_examples=500, deadline=None)
@given(SQL | st.text(max_size=40))
def test_tokens_are_the_text_cut_up(sql: str) -> None:
    """Nothing is lost or read twice; every pattern is possessive, so one pass is also linear time."""
    parts = list(tokens(sql))
    assert "".join(text for _, text in parts) == sql and all(text for _, text in parts)
    assert first_word(sql) == next((text.lower() for kind, text in parts if kind != "space"), "")


@settings(max_examples=500, deadline=None)
@given(SQL | st.lists(st.sampled_from(["is ", "not ", "distinct ", "Is\n", "/* is */", "x "]), max_size=6).map("".join))
def test_distinct_is_taken_out_where_it_is_a_word_and_no_operator(sql: str) -> None:
    words = [(kind, text.lower()) for kind, text in tokens(sql) if kind != "space"]
    kept = [
        text
        for i, (kind, text) in enumerate(words)
        if (kind, text) != ("word", "distinct")
        or words[max(i - 1, 0) : i] == [("word", "is")]
        or words[max(i - 2, 0) : i] == [("word", "is"), ("word", "not")]
    ]
    assert [text.lower() for kind, text in tokens(without_distinct(sql)) if kind != "space"] == kept
    assert "distinct" in sql.lower() or without_distinct(sql) == sql


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
        ("WITH w AS (SELECT a FROM t ORDER BY a) SELECT a FROM w", False),
        ("WITH w AS (SELECT a FROM t) SELECT a FROM w ORDER BY a", True),
        ("SELECT a FROM t WINDOW w AS (ORDER BY a)", False),
        ("SELECT group_concat(a ORDER BY a) FROM t", False),
        ("SELECT a FROM t ORDER BY a; -- x", True),
        ("SELECT a FROM t ORDER BY a;;", True),
        ("SELECT a FROM t ORDER BY a --", True),
        ("SELECT a FROM t ORDER BY a;\n/* done */ ; \n", True),
        ("SELECT a FROM t WHERE a > = 1 ORDER BY a", True),  # Spider's split operators
        ("SELECT a FROM [order] ORDER BY a, 'order by'", True),
        ("SELECT a FROM t ORDER BY \ud800", True),
        ("SELECT \u201corder by\u201d FROM t", False),  # a name, to SQLite
        ("order", False),
    ],
)
def test_whether_the_outermost_query_has_order_by(sql: str, ordered: bool) -> None:
    assert orders_rows(sql) is ordered
    assert orders_rows(one_statement(sql)) is ordered


def test_order_by_as_a_parser_finds_it(shared_data: Path) -> None:
    """By sqlglot, on every distinct gold query of Spider."""
    queries = {
        json.loads(line)["query"]
        for name in ("train_spider", "dev")
        for line in (shared_data / "spider" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    }
    some = sorted(query for query in queries if "order" in query.lower())[::3]
    assert len(some) > 300
    for query in some:
        assert orders_rows(query) is (sqlglot.parse_one(query, read="sqlite").args.get("order") is not None), query


@pytest.mark.parametrize(
    ("sql", "one"),
    [
        ("SELECT 1", "SELECT 1"),
        ("SELECT 1;", "SELECT 1"),
        ("SELECT 1;;", "SELECT 1"),
        ("SELECT 1 ; -- x", "SELECT 1 "),
        ("SELECT 1;\n/* x */ ;", "SELECT 1"),
        ("SELECT ';' -- ;", "SELECT ';' -- ;"),
        ("SELECT 1; SELECT 2", "SELECT 1; SELECT 2"),
        ("SELECT 1; WHERE", "SELECT 1; WHERE"),
        ("", ""),
    ],
)
def test_what_stands_behind_a_statement_goes(sql: str, one: str) -> None:
    assert one_statement(sql) == one


@pytest.mark.parametrize(
    ("sql", "asks"),
    [
        ("SELECT strftime('%Y', 'now')", True),
        ("SELECT strftime( '%Y' )", True),
        ("SELECT strftime('%Y', birthday) FROM t", False),
        ("SELECT date()", True),
        ("SELECT date(day) FROM t", False),
        ("SELECT current_timestamp", True),
        ("SELECT a FROM t ORDER BY RANDOM() LIMIT 1", True),
        ("SELECT known, snow, update_time FROM t", False),
    ],
)
def test_what_asks_for_the_time_or_for_chance(sql: str, asks: bool) -> None:
    assert asks_the_moment(sql) is asks


@pytest.mark.parametrize(
    ("sql", "rewritten"),
    [
        ("SELECT year ( curdate() ) - a WHERE b ! = 1", "SELECT (2020) - a WHERE b != 1"),
        ("SELECT YEAR(CURDATE())FROM t", "SELECT (2020)FROM t"),
        ("a > = 1 AND b < = 2 AND c >  = 3", "a >= 1 AND b <= 2 AND c >  = 3"),
        ("'x > = y', \"a < = b\", `c ! = d`, [e > = f] > = 1", "'x > = y', \"a < = b\", `c ! = d`, [e > = f] >= 1"),
        ("a -- > = year(curdate())\n> = 'year(curdate())'", "a -- > = year(curdate())\n>= 'year(curdate())'"),
        ("/* > = */ a > = 1", "/* > = */ a >= 1"),
        ("myyear(curdate()) > = 1", "myyear(curdate()) >= 1"),
        ("'it''s > = 1' > = 2", "'it''s > = 1' >= 2"),
    ],
)
def test_repairs_of_the_spider_script(sql: str, rewritten: str) -> None:
    assert spider_rewrites(sql) == rewritten


@pytest.mark.parametrize(
    ("sql", "rest"),
    [
        (
            "SELECT DISTINCT a, count(Distinct b), 'distinct' FROM t -- distinct",
            "SELECT   a, count(  b), 'distinct' FROM t -- distinct",
        ),
        ("a IS DISTINCT FROM b", "a IS DISTINCT FROM b"),
        ("a is /* x */ not\ndistinct from b", "a is /* x */ not\ndistinct from b"),
        ('"distinct", `distinct`, [distinct], :distinct', '"distinct", `distinct`, [distinct], :distinct'),
        ("\u201cdistinct\u201d, distinct_ones, xdistinct", "\u201cdistinct\u201d, distinct_ones, xdistinct"),
        ("a IS NOT (SELECT DISTINCT b)", "a IS NOT (SELECT   b)"),
    ],
)
def test_distinct_that_is_taken_out(sql: str, rest: str) -> None:
    assert without_distinct(sql) == rest


def test_canonical_sql() -> None:
    assert canonical_sql("select  A\nFROM `T` where b='X  y';") == canonical_sql(
        "SELECT a from `t` -- c\nWHERE b = 'X  y'"
    )
    assert canonical_sql("SELECT 'a'") != canonical_sql("SELECT 'A'")
