"""Styles: what makes two right completions one solution, for SQL, mathematics and plain text."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dphrl.verifiers.math.math_style import math_style
from dphrl.verifiers.sql.sql_style import MAX_NESTING, MAX_QUERY, sql_style
from dphrl.verifiers.sql.sql_text import canonical_sql
from dphrl.verifiers.verifier import text_style

SAME = [
    ("SELECT a.x FROM t AS a WHERE a.y = 3", "select t.x from t where y=4"),
    ("SELECT x FROM t", "```sql\nselect  X -- the column\nfrom T;\n```"),
    ("SELECT count(*) AS n FROM t GROUP BY x ORDER BY n", "SELECT COUNT(*) FROM t GROUP BY x ORDER BY count(*) ASC"),
    ("SELECT x AS a, count(*) FROM t GROUP BY a", "SELECT x, count(*) AS c FROM t GROUP BY x"),
    ("SELECT x FROM t ORDER BY y DESC LIMIT 1", "SELECT x FROM t ORDER BY y DESC LIMIT 5"),
    (
        "WITH a AS (SELECT x, count(*) AS n FROM t) SELECT n FROM a",
        "WITH b AS (SELECT x, count(*) m FROM t) SELECT b.m FROM b",
    ),
    (
        "WITH a(k, n) AS (SELECT x, count(*) FROM t) SELECT n FROM a",
        "WITH b AS (SELECT x, count(*) m FROM t) SELECT b.m FROM b",
    ),
    (
        "SELECT x FROM (SELECT x, max(y) AS m FROM t) AS q WHERE m > 3",
        "SELECT x FROM (SELECT x, max(y) z FROM t) WHERE z > 9",
    ),
    ('SELECT x FROM t WHERE n = "Bob" AND m IN ("a", \'b\')', "SELECT x FROM t WHERE n = 'Al' AND m IN ('c', 'd')"),
    ("SELECT x FROM t WHERE (a = 1) AND (b = 2)", "SELECT x FROM t WHERE a = 1 AND b = 2"),
    ("SELECT x FROM t INNER JOIN s ON t.a = s.b", "SELECT x FROM t AS p JOIN s AS q ON p.a = q.b"),
    ("SELECT x FROM t LEFT OUTER JOIN s ON t.a = s.b", "SELECT x FROM t LEFT JOIN s ON t.a = s.b"),
    ("SELECT x FROM t WHERE a = -3 OR b <> TRUE", "SELECT x FROM t WHERE a = 3 OR b != 0"),
    ('SELECT [x], `y` FROM "T"', "SELECT X, Y FROM main.t"),
    ("SELECT x AS n FROM t UNION SELECT y FROM s ORDER BY n", "SELECT x FROM t UNION SELECT y FROM s ORDER BY x"),
]
DIFFERENT = [
    "SELECT x FROM t JOIN s ON t.a = s.a WHERE s.b = 1",
    "SELECT x FROM t, s WHERE t.a = s.a AND s.b = 1",
    "SELECT x FROM t LEFT JOIN s ON t.a = s.a WHERE s.b = 1",
    "SELECT x FROM t WHERE a IN (SELECT a FROM s WHERE b = 1)",
    "SELECT x FROM t WHERE EXISTS (SELECT 1 FROM s WHERE s.a = t.a AND b = 1)",
    "WITH q AS (SELECT a FROM s WHERE b = 1) SELECT x FROM t WHERE a IN (SELECT a FROM q)",
    "WITH q AS (SELECT a FROM s WHERE b = 1), r AS (SELECT x, a FROM t) SELECT x FROM r JOIN q ON r.a = q.a",
    "SELECT x FROM t WHERE a = 1 INTERSECT SELECT x FROM t WHERE b = 1",
    "SELECT x FROM t WHERE a = 1 UNION SELECT x FROM t WHERE b = 1",
    "SELECT x FROM t WHERE a = 1 AND b = 1",
    "SELECT x FROM t WHERE a = 1 OR b = 1",
    "SELECT x FROM t WHERE a = 1 AND (b = 1 OR c = 1)",
    "SELECT DISTINCT x FROM t WHERE a = 1 AND b = 1",
    "SELECT x FROM t WHERE a = 1 GROUP BY x",
    "SELECT x FROM t WHERE a = b",
    "SELECT x FROM t WHERE a = 1 ORDER BY b LIMIT 1",
    "SELECT x FROM t WHERE a = 1 ORDER BY b DESC LIMIT 1",
    "SELECT x FROM t WHERE b = (SELECT max(b) FROM t)",
    "SELECT x FROM s",
    "SELECT y FROM t",
]


@pytest.mark.parametrize(("left", "right"), SAME)
def test_queries_that_differ_in_writing_are_one_solution(left: str, right: str) -> None:
    assert sql_style(left) == sql_style(right)


def test_queries_that_differ_in_structure_are_not() -> None:
    assert len({sql_style(query) for query in DIFFERENT}) == len(DIFFERENT)


def test_a_skeleton_is_readable() -> None:
    assert sql_style(DIFFERENT[3]) == "SELECT x FROM t WHERE a IN (SELECT a FROM s WHERE b = ?)"
    assert sql_style(SAME[6][0]) == "WITH cte0 AS (SELECT x, COUNT(*) FROM t) SELECT result0 FROM cte0"


@pytest.mark.parametrize(
    "query",
    [
        "SELECT x FROM",
        "this is no query",
        "SELECT 1; SELECT 2",
        "EXPLAIN SELECT 1",
        "VALUES (1)",
        "DROP TABLE t",
        "SELECT " + "(" * (MAX_NESTING + 1) + "1" + ")" * (MAX_NESTING + 1),
        "SELECT " + "+".join(["1"] * MAX_QUERY),
        "SELECT " + "case when 1 then " * 500 + "1" + " end" * 500,
        "SELECT " + "not " * 2000 + "1",
        "SELECT " + "(" * 3000,
        "",
    ],
)
def test_what_cannot_be_parsed_falls_back(query: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert sql_style(query) == canonical_sql(query.strip())
    assert not caplog.records


def test_the_largest_nesting_is_parsed() -> None:
    inside = "(" * MAX_NESTING + "x" + ")" * MAX_NESTING
    assert sql_style(f"SELECT {inside} FROM t") == "SELECT x FROM t"


def test_an_alias_used_at_every_level_does_not_double_the_query() -> None:
    """With the expression put in for each use, twelve levels would be 4^12 copies."""
    query = "SELECT x AS a FROM t ORDER BY x"
    for _ in range(12):
        query = f"SELECT ({query} LIMIT 1) + y AS a FROM t ORDER BY a, a, a, a"
    assert len(sql_style(query)) < 10_000


NAMES = st.sampled_from(["a", "b", "item", "T1"])
WORDS = st.sampled_from(
    [
        "select",
        "from",
        "where",
        "t",
        "x",
        "(",
        ")",
        "'",
        '"',
        "=",
        "join",
        "with",
        "as",
        "order by",
        ",",
        "*",
        "1",
        "--",
    ]
)


@given(NAMES, NAMES, st.integers(), st.text("abc'", max_size=4), st.sampled_from([" ", "\n", "  "]))
def test_names_of_aliases_and_values_do_not_show(one: str, two: str, number: int, text: str, space: str) -> None:
    assume(one != two)
    quoted = text.replace("'", "''")
    query = f"SELECT {one}.x AS {two}x FROM t AS {one} JOIN s {two} ON {one}.i = {two}.i "
    query += f"WHERE y > {number} AND z = '{quoted}'"
    assert sql_style(query.replace(" ", space)) == "SELECT x FROM t JOIN s ON i = i WHERE y > ? AND z = ?"


@given(st.one_of(st.text(), st.lists(WORDS).map(" ".join)))
def test_no_text_makes_a_style_fail(text: str) -> None:
    for style in (sql_style, math_style, text_style):
        assert isinstance(style(text), str)
    assert isinstance(sql_style(f"SELECT {text} FROM t"), str)


@pytest.mark.parametrize(
    "text", ["\ud800", "\0", "=" * 10**5, "= " * 10**5, "<<" * 10**5, "=" + " " * 10**6, "= 1e999999999"]
)
def test_odd_texts(text: str) -> None:
    assert [isinstance(style(text), str) for style in (sql_style, math_style, text_style)] == [True] * 3


def test_the_parser_is_imported_when_it_is_needed() -> None:
    code = (
        "import sys; from dphrl.verifiers.sql.sql_style import sql_style\n"
        "assert 'sqlglot' not in sys.modules\n"
        "sql_style('SELECT 1'); assert 'sqlglot' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_queries_of_spider_have_skeletons(shared_data: Path) -> None:
    lines = (shared_data / "spider" / "dev.jsonl").read_text().splitlines()
    queries = {json.loads(line)["query"] for line in lines}
    assert not [query for query in queries if sql_style(query) == canonical_sql(query)], "all are parsed"
    skeletons = {sql_style(query) for query in queries}
    assert len(skeletons) < len({canonical_sql(query) for query in queries})


@pytest.mark.parametrize(
    ("completion", "form"),
    [
        ("16 - 3 - 4 = 9 eggs. Then 9 * 2 = $18.\n#### 18", "9"),
        ("She eats 3 + 4 = 7, so 16 - 7 = 9 remain, and 9 * 2 = 18. The answer is 18.", "7; 9"),
        ("(16 - 3 - 4) * 2 = 18, so \\boxed{18}", "direct"),
        ("It is 18,  since\nall else is known: \\boxed{18}", "It is 18, since all else is known: \\boxed{18}"),
        ("16-3-4 = <<16-3-4=9>>9, 9*2 = $<<9*2=18>>18\n#### 18", "9"),
        ("S + 143 = 200 - 16 = 184. Thus S = 184 - 143 = 41\n#### 41", "184"),
        ("12 x 2 = 24 and 12 x 2 = 24 and 24 + 24 = 48. \\boxed{48}", "24; 24"),
        ("So $x = \\frac{1}{2}$ and $y=2x + 3 = 4$. \\boxed{5}", "1/2; 4"),
        ("$x = \\sqrt{2}$, $y = x ^ 2$; \\boxed{2}", "\\sqrt{2}; x^2"),
        ("\\[a &= 3 \\\\ b &= 1,200.50\\] \\boxed{0}", "2401/2; 3"),
        ("It = the sum of these. 3 = 3. \\boxed{1}", "3"),
        ("1/3 ≈ 0.33, \\approx 33\\% in all. $b = \\boxed{2}$", "33; 33/100"),
    ],
)
def test_intermediate_results(completion: str, form: str) -> None:
    assert math_style(completion) == form


def test_numbers_written_in_different_ways_are_one_result() -> None:
    ways = ["1200", "1,200", "$1,200.00", "\\$1200", "\\frac{2400}{2}", "2400/2", "1200.0 dollars", "+1200"]
    assert {math_style(f"First x = {way}. Then \\boxed{{5}}") for way in ways} == {"1200"}


@given(st.lists(st.integers(-999, 999).map(lambda n: f"a step = {n}"), min_size=1, max_size=6), st.randoms())
def test_the_order_of_steps_does_not_matter(steps: list[str], random: object) -> None:
    moved = list(steps)
    random.shuffle(moved)  # type: ignore[attr-defined]
    assert math_style("\n".join([*steps, "\\boxed{1000}"])) == math_style("\n".join([*moved, "\\boxed{1000}"]))


def test_plain_text_differs_by_more_than_space() -> None:
    assert text_style("a  b\n c ") == "a b c" != text_style("a b C")
