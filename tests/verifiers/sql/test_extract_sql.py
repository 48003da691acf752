"""Which query a completion answers with: every usual way to give one, what is none, and texts of any length."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import example, given, settings

from dphrl.verifiers.sql.extract_sql import _extracted, _spoken, extract_sql

QUERY = "SELECT name FROM singer WHERE age >= 40 AND town <> 'it''s'"

FORMS = [
    "{}",
    "{};",
    "{} ;;",
    "{}; -- done",
    "{};\n\nThis query lists the names.",
    "{}\n\nThis query lists the names.",
    "{}\n\nthis query lists the names",
    "{}\nExplanation: it lists the names.",
    "{}\n\n**Why**: names are asked for.",
    "{}\n\n- `name` is the column.\n- SELECTs it.",
    "\ufeff {}\n",
    "SQL: {}",
    "**Final query:** {}",
    "sql\n{}",
    "sqlite> {};",
    "1. {}",
    "- {}",
    "> {}",
    "The query is:\n\n{}\n\nIt lists the names.",
    "SQLQuery: {}\nSQLResult: [('Bob',)]\nAnswer: Bob",
    "First I thought of this:\nSELECT 1\n\nBut it should be\n{}",
    "SELECT 1;\n\nNo, this is wrong. Final query: {};",
    "/* SELECT 1; */ {}",
    "-- all the names: SELECT name\n{}",
    "`{}`",
    "``{}``",
    "The query is `{}`.",
    "SQL: `{}`, where `SELECT` picks `name`.",
    "Not `SELECT 1 FROM singer` but `{}`",
    '{{"sql": "{}"}}',
    '{{"thought": "of {{", "query" : "{}"}}',
    '{{"SQLQuery": "{};", "why": "SELECT 1"}}',
    "`sql {}`",
    "{}<|im_end|>",
    "{}</s>\nSELECT 1",
    "```sql\n{}\n```<|eot_id|>",
    '```json\n{{"answer": "{}"}}\n```',
    "```sql\n{}\n```",
    "```sql\n{};\n```",
    "```SQL {}```",
    "```sql\r\n{}\r\n```",
    "``` sql\n{}\n```",
    "```sqlite\n{}\n```",
    "```SQLite3\n{}\n```",
    "```mysql\n{}\n```",
    "```postgresql\n{}\n```",
    "```t-sql\n{}\n```",
    "```duckdb\n{}\n```",
    "```{{sql}}\n{}\n```",
    "```{{.sql .numberLines}}\n{}\n```",
    "```{{sql connection=con}}\n{}\n```",
    '```sql title="names.sql"\n{}\n```',
    "```sql:names.sql\n{}\n```",
    "```text\n{}\n```",
    "```\n{}\n```",
    "```{}```",
    "```\nsql\n{}\n```",
    "````sql\n{}\n````",
    "~~~sql\n{}\n~~~",
    "~~~\n{}\n~~~",
    "> ```sql\n> {}\n> ```",
    "- Names:\n  ```sql\n  {}\n  ```",
    "```sql\n{}",
    "```sql\n{};\n\nThis returns the names.",
    "```sql\n{}\n\nThis query returns the names.",
    "```sql\n-- the `names`, don't ask\n{}\n```",
    "```sql\n-- the names ```of all```\n```sql\n{}\n```",
    "```sql\n{}\n```\nResult:\n```sql\nBob | 40\n```",
    "```sql\n{}\n```\nResult:\n```\nBob | 40\n```\n",
    "```sql\n{}\n```\n```python\nprint(1)\n```",
    "```sql\n{}\n```\n`SELECT name FROM singer` gives names, and SQL: SELECT 1 does not.",
    "```sql\nSELECT 1\n```\nNo:\n```\n{}\n```",
    "```sql\n```sql\n{}\n```\n```",
    "```python\nsql = 'SELECT 1'\n```\n{}",
    "<answer>{}</answer>",
    "<ANSWER>\n{};\n</ANSWER>",
    "<answer>{}",
    "<answer>\n```sql\n{}\n```\n</answer>",
    "<answer>```sql\n{}\n</answer>",
    "<answer>`{}`</answer>",
    "<answer>SQL: {}</answer> That is it.",
    "<solution>{}</solution>",
    "<sql>{}</sql>",
    "<final_answer>{}</final_answer>",
    "<answer>SELECT 1</answer> Wait. <answer>{}</answer>",
    "```sql\nSELECT 1\n```\n<answer>{}</answer>",
    "<think>older</think>\n<solution>{}</solution>",
    "<think>\n```sql\nSELECT 1\n```\n</think>\n{}",
    "I try SELECT 1 ```sql\nSELECT 1\n```</think>\n```sql\n{}\n```",
    "<think>a</think><think>b</think>```sql\n{}\n```",
    "```sql\n{}\n```<think>Is it right? ```sql\nSELECT 1\n```",
    "<reasoning>```sql\nSELECT 1\n```</reasoning>{}",
]


@pytest.mark.parametrize("form", FORMS)
def test_every_usual_way_to_give_a_query(form: str) -> None:
    assert extract_sql(form.format(QUERY)) == QUERY


WHOLE = [
    "SELECT 1",
    "SELECT name\nFROM singer\n\nWHERE age > 3\n\nORDER BY name",
    "Select Name\nFrom Singer\nWhere Age > 3\nGroup By Name\nHaving Count(*) > 1",
    "SELECT a,\n\nb\n\nFROM t\nLEFT JOIN s\n\nON t.i = s.i",
    "SELECT 1\nUNION ALL\n\nSELECT 2",
    "SELECT a FROM t\nExcept\nSELECT b FROM t",
    "SELECT (\nSELECT max(a) FROM t) FROM t",
    "WITH w AS (\nSELECT 1 AS a)\nSELECT a FROM w",
    "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r LIMIT 3), s AS (SELECT 2)\nSELECT n FROM r",
    "VALUES (1, 'x'), (2, 'y')",
    "SELECT CASE WHEN a THEN 1\nELSE 2 END\nFROM t",
    "SELECT '`' || '``' || '```' FROM t",
    'SELECT "```", a FROM t',
    "SELECT `a` FROM `my table` WHERE b = 'x; y'",
    "SELECT a -- it's; `odd`\nFROM t",
    "SELECT /* a; b */ a FROM t",
    "SELECT '</think' || '<b>' FROM t WHERE a <b",
    "SELECT 'Note: this\n\nThis is text' FROM t",
    "SELECT a FROM t WHERE b = 'SELECT 1; SELECT 2'",
    "SELECT name DISTINCT FROM singer",
]


@pytest.mark.parametrize("query", WHOLE)
@pytest.mark.parametrize("form", ["{}", "```sql\n{}\n```", "```sql\n{}", "<answer>{}</answer>", "So:\n{}"])
def test_a_query_stays_whole(query: str, form: str) -> None:
    assert extract_sql(form.format(query)) == query


REFUSED = [
    ("SELECT 1; SELECT 2", "SELECT 1; SELECT 2"),
    ("SELECT name FROM singer; WHERE age > 3", "SELECT name FROM singer; WHERE age > 3"),
    ("SELECT 1;\nDROP TABLE t", "SELECT 1;\nDROP TABLE t"),
    ("```sql\nDELETE FROM t;\nSELECT 1\n```", "DELETE FROM t;\nSELECT 1"),
    ("```sql\nINSERT INTO t\nSELECT a FROM t\n```", "INSERT INTO t\nSELECT a FROM t"),
    ("CREATE TABLE s AS\nSELECT a FROM t", "CREATE TABLE s AS\nSELECT a FROM t"),
    ("EXPLAIN SELECT a FROM t", "EXPLAIN SELECT a FROM t"),
    ("PRAGMA x = 1", "PRAGMA x = 1"),
]


@pytest.mark.parametrize(("completion", "sql"), REFUSED)
def test_what_sqlite_must_refuse_is_not_cut_to_what_it_takes(completion: str, sql: str) -> None:
    assert extract_sql(completion) == sql


@pytest.mark.parametrize(
    ("completion", "sql"),
    [
        ("", ""),
        (" \n", ""),
        ("I do not know.", "I do not know."),
        ("Use `SELECT` and `FROM`.", "Use `SELECT` and `FROM`."),
        ("The SELECT statement lists the names.", "The SELECT statement lists the names."),
        ("```python\nprint(1)\n```", ""),
        ("```python\nSELECT 1\n```", ""),
        ("```\nBob | 40\n```", ""),
        ("```sql\nBob | 40\n```", "Bob | 40"),
        ("```sql\n-- I do not know\n```", "-- I do not know"),
        ("```sql\nSELECT 1\n```\nor ```sql", ""),  # a further query was begun
        ("<answer>Bob</answer>", ""),
        ("<think>```sql\nSELECT 1\n```", ""),
        ("<think>```sql\nSELECT 1\n```</think>", ""),
        ("<think>```sql\nSELECT 1\n```</think>I give up.", "I give up."),
        ("Maybe ```sql\nSELECT 1\n```</think>I give up.", "I give up."),
        ('{"sql": "SELECT 1\\', '{"sql": "SELECT 1\\'),
    ],
)
def test_what_holds_no_query(completion: str, sql: str) -> None:
    assert extract_sql(completion) == sql


WORDS = """
``` ` ~~~ ```sql ```sqlite ```python <answer> </answer> <think> </think> <sql> sql SELECT select WITH a AS ( ) FROM ' "
-- /* */ ; ;; x 1 , < > : SQL: This It's {"sql": \\ \x00 \ud800 \u0130 DROP TABLE t
"""
TEXTS = [" ", "\n", "\n\n", "```sql\n", "SELECT 1", "SELECT a FROM t", "```\n", '{"sql": "SELECT 1"}']
PIECES = st.sampled_from(WORDS.split()) | st.sampled_from(TEXTS)
TEXT = st.lists(PIECES, max_size=16).map("".join) | st.lists(PIECES, max_size=16).map(" ".join)


@settings(max_examples=800, deadline=None)
@given(TEXT | st.text(max_size=60))
@example("```sql\nSELECT '```' AS x")
@example("```sql\nselect a -- it's\n, 'x' FROM t\n``` it's")
def test_the_usual_form_is_read_as_any_other(completion: str) -> None:
    """The short way and the long way find one query; it is a part of the text, and the answer to itself."""
    query = extract_sql(completion)
    assert query == _extracted(_spoken(completion))
    assert query == query.strip()
    assert extract_sql(f"So:\n```sql\nSELECT a FROM t WHERE a < 'x' AND {len(query)}\n```\nDone.") == (
        f"SELECT a FROM t WHERE a < 'x' AND {len(query)}"
    )


LONG = [
    *["\n", "`", "``` ", "```sql\n", "```sqx", "sql```", "`````sql", "```sql\n```\n", "'", "<answer>", "</answer>"],
    *["<think>", "SELECT 1\n", "SELECT 1;", "SELECT 1;\n\nThis is.\n", "/*", "--", "/* */", "select", "with a as ("],
    *['"sql": "', '"sql": "\\"', "`a", "``a`", ";", "; -- \n", "(", "x: ", "x: select ", "> ", " ~~~", "end ", "\t"],
]


@pytest.mark.slow
@pytest.mark.parametrize("piece", LONG)
def test_long_texts_are_read_in_linear_time(piece: str) -> None:
    """In seconds; a quadratic way would take minutes each. 1,600 newlines take the released extractor 23 seconds."""
    text = piece * (100_000 // len(piece))
    for begin in ("", "```sql\n", "SELECT 1\n", "SELECT 1"):
        assert isinstance(extract_sql(begin + text), str)
