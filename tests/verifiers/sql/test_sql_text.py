"""What is read off the text of SQL: the answer of a completion, ORDER BY, DISTINCT, the clock."""

from __future__ import annotations

import re

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from dphrl.verifiers.sql.gold_worker import has_order
from dphrl.verifiers.sql.sql_text import (
    asks_the_moment,
    canonical_sql,
    extract_sql,
    first_word,
    orders_rows,
    spider_rewrites,
    tokens,
    without_distinct,
)

PIECES = st.sampled_from(
    [
        "```",
        "`",
        "```sql",
        "```SQL\n",
        "```sqlite",
        "sql",
        "\n",
        " ",
        "SELECT 1",
        "```python\n",
        "x",
        "'",
        "\x00",
        "\ud800",
        "İ",
    ]
)
TEXT = st.lists(PIECES, max_size=12).map("".join) | st.text(max_size=40)


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
        ("```sql\nSELECT 1\n```\n```python\nprint(1)\n```", "SELECT 1"),  # the last block of SQL, not the last block
        ("```sql\n```sql\nSELECT 2\n```\n```", "SELECT 2"),  # a fence within a fence: the inner one
        ("`````sql\nSELECT 1\n`````", "SELECT 1"),
        ("```sql\nSELECT 1\n```\nor ```sql", ""),  # the last block is empty
        ("~~~sql\nSELECT 1\n~~~", "~~~sql\nSELECT 1\n~~~"),  # no fence that counts
        ("```sql\nSELECT '`' || '``'\n```", "SELECT '`' || '``'"),
    ],
)
def test_extract_sql(completion: str, sql: str) -> None:
    assert extract_sql(completion) == sql


@settings(max_examples=500, deadline=None)
@given(TEXT)
def test_the_answer_is_the_last_block_of_sql(completion: str) -> None:
    """The definition, written with a pattern that looks from the front."""
    fences = [match.end() for match in re.finditer(r"```sql\b", completion, re.IGNORECASE)]
    if fences:
        expected = completion[fences[-1] :].split("```")[0].strip()
    else:
        expected = "" if "```" in completion else completion.strip()
    assert extract_sql(completion) == expected


class Counted(str):
    """A text that counts the characters its searches pass."""

    passed = 0

    def rfind(self, what: str, start: int = 0, end: int | None = None) -> int:  # type: ignore[override]
        stop = len(self) if end is None else end
        found = super().rfind(what, start, stop)
        self.passed += stop - max(found, 0)
        return found

    def find(self, what: str, start: int = 0, end: int | None = None) -> int:  # type: ignore[override]
        found = super().find(what, start)
        self.passed += (found if found >= 0 else len(self)) - start
        return found


@pytest.mark.parametrize(
    "piece", ["\n", "`", "``` ", "```sql\n", "```sqx", "sql```", "`````sql", "```sql\n```\n", "```python\n```\n", "'"]
)
@pytest.mark.parametrize("end", ["", "```", "```sql\nSELECT 1"])
def test_each_character_is_passed_once_or_twice(piece: str, end: str) -> None:
    """So the time is linear, whatever the text; 1,600 newlines take the released extractor 23 seconds."""
    text = Counted(piece * 2_000 + end)
    extract_sql(text)
    assert 0 < text.passed <= 2 * len(text)


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
@given(SQL)
def test_distinct_is_taken_out_where_it_is_a_word(sql: str) -> None:
    kept = [text for kind, text in tokens(sql) if (kind, text.lower()) != ("word", "distinct")]
    assert without_distinct(sql) == "".join(kept)


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
def test_whether_the_outermost_query_has_order_by(sql: str, ordered: bool) -> None:
    """By the parser, and by tokens alone, which is the way where the parser cannot read a query."""
    assert has_order(sql) is ordered
    assert orders_rows(sql) is ordered


@pytest.mark.parametrize(
    ("sql", "ordered"),
    [
        ("SELECT a FROM t WHERE a > = 1 ORDER BY a", True),  # Spider's split operators
        ("SELECT a FROM t WHERE (((( ORDER BY a", False),
        ("SELECT " + "(" * 20_000 + " ORDER BY a", False),
        ("SELECT a FROM [order] ORDER BY a, 'order by'", True),
        ("SELECT a FROM t ORDER BY \ud800", True),
        ("order", False),
    ],
)
def test_where_the_parser_cannot_read_the_tokens_decide(sql: str, ordered: bool) -> None:
    assert has_order(sql) is ordered


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
