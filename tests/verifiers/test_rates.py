"""The programs of `benchmarks/verifier_rates.py`: what they write, and how it is counted. No verifier runs here."""

from __future__ import annotations

import random
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dphrl.verifiers.verifier import verdict

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
GOLDS = [
    r"42",
    r"48000",
    r"-3",
    r"0.75",
    r"27.0",
    r"\frac{5}{3}",
    r"-\frac{1}{8}",
    r"\frac{7}{11}",
    r"2\sqrt{3}",
    r"\sqrt{5}",
    r"8\%",
    r"45^\circ",
    r"\$36",
    r"(B)",
    r"(3,-2)",
    r"2,7",
    r"\{1,2\}",
    r"x^2+5x-6",
    r"[1,\infty)",
    r"(0,1)\cup(2,3)",
    r"x=5",
    r"x=2,y=3",
    r"3\pm2",
    r"\begin{pmatrix}1\\2\end{pmatrix}",
    r"6xy^2",
    r"(100,200)",
    r"\frac{1}{2}xy",
]
QUERIES = (
    "SELECT name FROM singer WHERE age >= 30 AND town = 'Oslo'",
    "SELECT DISTINCT age FROM singer",
    "SELECT name, age FROM singer ORDER BY age DESC",
    "SELECT name FROM singer ORDER BY age",
    "SELECT name FROM singer ORDER BY age LIMIT 2",
    "SELECT town, count(*), avg(age) FROM singer GROUP BY town HAVING count(*) > 1",
    "SELECT count(age) FROM singer WHERE age BETWEEN 20 AND 45",
    "SELECT s.name FROM singer AS s JOIN concert AS c ON s.name = c.singer",
    "SELECT max(age) FROM singer WHERE town != 'Rome' OR age > 50",
    "SELECT name FROM singer WHERE age > 90",
    "SELECT name FROM singer",
)


@pytest.fixture(scope="module")
def make() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        from verifier_variants import make

        yield make
    for name in [name for name in sys.modules if name.startswith(("verifier_variants", "verifier_rates"))]:
        del sys.modules[name]


@pytest.fixture
def queries(make: ModuleType, tmp_path: Path) -> list[Any]:
    from verifier_variants.sql_world import SqlGold

    db = tmp_path / "singers.sqlite"
    with closing(sqlite3.connect(db)) as connection:
        connection.executescript(
            "CREATE TABLE singer(name TEXT, age INTEGER, town TEXT); CREATE TABLE concert(singer TEXT, year INTEGER);"
            "INSERT INTO singer VALUES ('Ann', 30, 'Oslo'), ('Bob', 40, 'Oslo'), ('Cleo', 40, 'Rome');"
            "INSERT INTO singer VALUES ('Dee', 25, NULL);"
            "INSERT INTO concert VALUES ('Ann', 2020), ('Ann', 2021), ('Bob', 2020);"
        )
    return [SqlGold("test", sql, str(db), "") for sql in QUERIES]


def math_golds() -> list[Any]:
    from verifier_variants.math_golds import read_gold

    texts = [*GOLDS, r"5 \text{ cm}", r"\text{Yes}", "$12$.", "x^{2} y z"]
    prompt = "Simplify $3x^2-2x^2+5x-6$."
    golds = [read_gold(source, text, prompt) for text in texts for source in ("gsm8k", "math500")]
    assert all(golds)
    return golds


def test_every_class_of_mathematics_writes_something_and_a_seed_says_what(make: ModuleType) -> None:
    from verifier_variants.math_changed import CHANGED
    from verifier_variants.math_same import SAME

    variants = list(make.math_variants(math_golds(), 1))
    assert variants == list(make.math_variants(math_golds(), 1)) != list(make.math_variants(math_golds(), 2))
    assert {variant.rule for variant in variants if variant.same} == set(SAME)
    assert {variant.rule for variant in variants if not variant.same} == set(CHANGED)


def test_the_table_is_read_whole(make: ModuleType) -> None:
    from verifier_variants.math_tables import TABLE, table_rows, table_variants

    variants = list(table_variants(random.Random(1), 1))
    answers = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if line.startswith(("  = ", "  ! "))]
    assert len(variants) == len(answers) == sum(len(answers) for _, _, answers in table_rows())
    assert not [variant for variant in variants if "<n>" in variant.gold + variant.completion]
    assert {variant.same for variant in variants} == {True, False}


@pytest.mark.parametrize(
    ("text", "kind", "parts"),
    [
        ("$1,234$", "whole", ("1,234",)),
        (r"-\frac{3}{4}", "fraction", ("-", "3", "4")),
        ("(0,100)", "tuple", ("0", "100")),
        (r"(-\infty,5)", "interval", ("(", r"-\infty", "5", ")")),
        ("1,-2", "list", ("1", "-2")),
        ("x=5", "equation", ("x", "5")),
        (r"3 \pm 2", "plus-minus", ("3 ", "2")),
        ("1.5e-10", "scientific", ("1.5", "-10")),
        (r"15x - 80", "expression", ()),
        (r"x \in A, y > 0", "other", ()),
    ],
)
def test_kinds_of_golds(make: ModuleType, text: str, kind: str, parts: tuple[str, ...]) -> None:
    from verifier_variants.math_golds import read_gold

    gold = read_gold("test", text)
    assert gold is not None and (gold.kind, gold.parts) == (kind, parts)


def test_every_class_of_sql_writes_something_and_a_seed_says_what(make: ModuleType, queries: list[Any]) -> None:
    from verifier_variants import sql_changed, sql_same

    rng = random.Random(1)
    programs = {
        **{(True, name): program for name, program in (sql_same.QUERIES_SAME | sql_same.COMPLETIONS_SAME).items()},
        **{
            (False, name): rule
            for name, rule in (sql_changed.QUERIES_CHANGED | sql_changed.COMPLETIONS_CHANGED).items()
        },
    }
    assert not [rule for rule, program in programs.items() if not any([*program(rng, gold)] for gold in queries)]
    variants = [variant for gold in queries for variant in make.sql_variants(gold, "1")]
    assert variants == [variant for gold in queries for variant in make.sql_variants(gold, "1")]
    of_more = {"gold with an end", "nothing of the tables"}
    assert {(v.same, v.rule) for v in variants if v.rule not in of_more} <= set(programs)
    assert of_more <= {v.rule for v in variants}


def test_what_sqlite_says_of_two_queries(queries: list[Any]) -> None:
    from verifier_variants.sql_world import in_order, result, surely_different, tie_blocks

    ordered = next(gold for gold in queries if gold.sql.endswith("ORDER BY age"))
    blocks = tie_blocks(ordered)
    assert blocks == [(("Dee",),), (("Ann",),), (("Bob",), ("Cleo",))]
    assert in_order(blocks, (("Dee",), ("Ann",), ("Cleo",), ("Bob",)))
    assert not in_order(blocks, (("Ann",), ("Dee",), ("Bob",), ("Cleo",)))
    assert not surely_different(((1, "a"), (2, "b")), (("b", 2.0), ("a", 1 + 1e-9)), "spider")
    assert surely_different(((1,), (1,)), ((1,),), "spider") and not surely_different(((1,), (1,)), ((1,),), "bird")
    assert not surely_different((), (), "spider") and surely_different((), ((None,),), "spider")
    assert result(ordered.db, "SELECT nothing FROM singer") is None


def test_counts_and_report(make: ModuleType) -> None:
    import verifier_rates as rates
    from verifier_variants.variant import Variant

    variants = [
        Variant(rule=rule, same=same, gold="1", completion="x", source="test")
        for rule, same in [("a", True), ("a", True), ("b", False), ("b", False), (rates.ECHO, False)]
    ]
    verdicts = [verdict(status) for status in ("correct", "gold_error", "correct", "wrong", "correct")]
    counts = rates.counted(variants, verdicts, [True, True, False, True, False])
    report = rates.report(counts, beside=True)
    assert (report["same"], report["missed_per_1000"], report["math_verify_missed_per_1000"]) == (2, 500, 0)
    assert (report["changed"], report["falsely_paid_per_1000"], report["math_verify_falsely_paid_per_1000"]) == (
        2,
        500,
        500,
    )
    assert report["falsely_paid"] == {"b": [2, 500, 500], rates.ECHO: [1, 1000, 0]}
    assert "gold_error" in counts[True, "a"].shown[0]
