"""Equality of results against the definition by brute force, and where brute force would never end."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from dphrl.verifiers.sql import equal_results as sql_equal
from dphrl.verifiers.sql.equal_results import bird_equal, list_equal, says_nothing, spider_equal
from dphrl.verifiers.sql.result_json import Result, Row, decode, encode

CELL = st.sampled_from([0, 1, 1.0, 2, None, "1"])
ANY_CELL = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),  # SQLite has none
    st.text(max_size=5),
    st.binary(max_size=5),
    st.sampled_from([0, -0.0, float("inf"), "a", b"a", "Infinity", 2**53 + 1, float(2**53)]),
)
ANY_TABLE = st.integers(1, 4).flatmap(lambda width: st.lists(st.tuples(*[ANY_CELL] * width), max_size=5))


def tables(width: int, height: int) -> st.SearchStrategy[list[Row]]:
    return st.lists(st.tuples(*[CELL] * width), min_size=height, max_size=height)


def by_definition(gold: list[Row], rows: list[Row], ordered: bool) -> bool:
    """Some permutation of the columns makes the rows the same list, or the same bag."""
    for order in itertools.permutations(range(len(gold[0]))):
        permuted = [tuple(row[i] for i in order) for row in rows]
        if permuted == gold if ordered else Counter(permuted) == Counter(gold):
            return True
    return False


@settings(max_examples=300, deadline=None)
@given(st.data(), st.integers(1, 5), st.integers(1, 4), st.booleans())
def test_spider_equality_is_its_definition(data: st.DataObject, width: int, height: int, ordered: bool) -> None:
    gold, rows = data.draw(tables(width, height)), data.draw(tables(width, height))
    assert spider_equal(gold, rows, ordered=ordered) is by_definition(gold, rows, ordered)


def in_ties(gold: list[Row], rows: list[Row], ties: list[tuple[int, int]]) -> bool:
    """Some permutation within the ties makes the rows the gold list."""
    free = [itertools.permutations(rows[first:end]) for first, end in ties]
    for parts in itertools.product(*free):
        permuted = list(rows)
        for (first, end), part in zip(ties, parts, strict=True):
            permuted[first:end] = part
        if permuted == gold:
            return True
    return False


@settings(max_examples=300, deadline=None)
@given(st.data(), st.integers(1, 3), st.integers(2, 5), st.sampled_from([[(0, 2)], [(0, 2), (2, 4)], [(1, 5)], []]))
def test_ties_by_their_definition(data: st.DataObject, width: int, height: int, ties: list[tuple[int, int]]) -> None:
    """Rows of one run may change places, under one permutation of the columns."""
    ties = [(first, end) for first, end in ties if end <= height]
    gold = data.draw(tables(width, height))
    rows = data.draw(tables(width, height) | st.permutations(gold))
    permuted = [[tuple(row[i] for i in order) for row in rows] for order in itertools.permutations(range(width))]
    assert list_equal(gold, rows, ties=ties) is in_ties(gold, rows, ties)
    assert spider_equal(gold, rows, ordered=True, ties=ties) is any(in_ties(gold, other, ties) for other in permuted)


def test_which_results_say_nothing() -> None:
    assert says_nothing([]) and says_nothing([(None, None), (None, None)])
    assert not says_nothing([(None, 0)]) and not says_nothing([("",)])


@settings(max_examples=200, deadline=None)
@given(st.data(), st.integers(2, 6), st.integers(1, 6), st.randoms(use_true_random=False))
def test_a_shuffled_table_is_equal(data: st.DataObject, width: int, height: int, rng: random.Random) -> None:
    gold = data.draw(tables(width, height))
    order = rng.sample(range(width), width)
    rows = [tuple(row[i] for i in order) for row in gold]
    assert spider_equal(gold, rows, ordered=True)
    rng.shuffle(rows)
    assert spider_equal(gold, rows, ordered=False)


@settings(max_examples=300, deadline=None)
@given(ANY_TABLE, ANY_TABLE, st.booleans())
def test_laws_for_whatever_sqlite_returns(one: list[Row], other: list[Row], ordered: bool) -> None:
    """Every result equals itself, equality goes both ways, and BIRD's follows from it for the columns as they stand."""
    assert spider_equal(one, list(one), ordered=ordered) and bird_equal(one, one[::-1])
    assert spider_equal(one, other, ordered=ordered) is spider_equal(other, one, ordered=ordered)
    assert bird_equal(one, other) is bird_equal(other, one)
    if one == other:
        assert bird_equal(one, other)
    if spider_equal(one, other, ordered=True):
        assert spider_equal(one, other, ordered=False)


@settings(max_examples=300, deadline=None)
@given(ANY_TABLE, st.booleans())
def test_a_result_is_read_back_as_it_was_written(rows: list[Row], ordered: bool) -> None:
    result = Result(rows, ordered, ((0, 2),), frozenset({"t", "İ"}))
    back = decode(encode(result))
    assert back == result
    assert [[(type(c), str(c)) for c in row] for row in back.rows] == [[(type(c), str(c)) for c in row] for row in rows]


def test_equal_columns_do_not_explode() -> None:
    """Ten equal columns: the released script would try 10^10 permutations."""
    gold = [(i,) * 10 for i in range(20)]
    assert spider_equal(gold, gold[::-1], ordered=False)
    assert not spider_equal(gold, [*gold[:-1], (*[19] * 9, 0)], ordered=False)


def test_columns_with_the_same_values_do_not_explode() -> None:
    """Twelve columns, each the same values in another order: only the rows tell them apart."""
    rng = random.Random(0)
    columns = [rng.sample(range(30), 30) for _ in range(12)]
    gold = list(zip(*columns, strict=True))
    rng.shuffle(columns)
    rows = list(zip(*columns, strict=True))
    rng.shuffle(rows)
    assert spider_equal(gold, rows, ordered=False)
    one_swap = [(rows[0][1], rows[0][0], *rows[0][2:]), *rows[1:]]
    assert not spider_equal(gold, one_swap, ordered=False)


def test_symmetric_columns_are_tried_by_tying_them() -> None:
    """A 6-cycle and two triangles as incidence tables: refinement alone cannot tell them apart."""

    def incidence(edges: list[tuple[int, int]]) -> list[Row]:
        return [tuple(int(vertex in edge) for vertex in range(6)) for edge in edges]

    cycle = incidence([(i, (i + 1) % 6) for i in range(6)])
    renamed = incidence([(0, 2), (2, 4), (4, 1), (1, 3), (3, 5), (5, 0)])
    triangles = incidence([(0, 1), (1, 2), (2, 0), (3, 4), (4, 5), (5, 3)])
    assert spider_equal(cycle, renamed, ordered=False)
    assert not spider_equal(cycle, triangles, ordered=False)


def components(*sizes: int) -> list[Row]:
    """Edges of disjoint cycles, one row each; vertices are the columns."""
    edges, start = [], 0
    for size in sizes:
        edges += [(start + i, start + (i + 1) % size) for i in range(size)]
        start += size
    return [tuple(int(vertex in edge) for vertex in range(start)) for edge in edges]


def shuffled(table: list[Row], seed: int) -> list[Row]:
    """Rows and columns in another order."""
    rng = random.Random(seed)
    columns = list(zip(*table, strict=True))
    rng.shuffle(columns)
    rows = list(zip(*columns, strict=True))
    rng.shuffle(rows)
    return rows


def cyclic(size: int) -> list[Row]:
    """Each row is the one before, shifted: all rows and all columns hold the same values."""
    return [tuple((column + row) % size for column in range(size)) for row in range(size)]


UNEQUAL = {
    "cycles of 6 against triangles": (components(*[6] * 4), components(6, 6, 6, 3, 3)),
    "one long cycle": (components(24), components(*[3] * 8)),
    "addition modulo 12 against modulo 2 and 6": (
        cyclic(12),
        [tuple((c // 6 + r // 6) % 2 * 6 + (c + r) % 6 for c in range(12)) for r in range(12)],
    ),
    "addition modulo 8 against exclusive or": (
        cyclic(8),
        [tuple(column ^ row for column in range(8)) for row in range(8)],
    ),
}
EQUAL = {
    "cycles of 6": components(*[6] * 5),
    "cycles of all sizes": components(3, 4, 5, 6, 7),
    "cyclic shifts": cyclic(40),
    "a diagonal": [tuple(int(row == column) for column in range(40)) for row in range(40)],
    "2,000 equal columns": [(row,) * 2_000 for row in range(3)],
    "2,000 columns": [tuple(range(row, 2_000 + row)) for row in range(3)],
    "two kinds of equal columns": [(row,) * 500 + (-row,) * 500 for row in range(5)],
}


@pytest.fixture
def refinements(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often colours are refined."""
    count = [0]
    refine = sql_equal._refine

    def counting(*args: Any) -> Any:
        count[0] += 1
        return refine(*args)

    monkeypatch.setattr(sql_equal, "_refine", counting)
    return count


@pytest.mark.parametrize("name", EQUAL)
def test_a_permutation_is_found_in_a_number_of_steps_that_is_polynomial(name: str, refinements: list[int]) -> None:
    table = EQUAL[name]
    assert spider_equal(table, shuffled(table, 1), ordered=False)
    assert refinements[0] <= 1 + len(table[0]) * (len(table[0]) + 1) // 2


@pytest.mark.parametrize("name", UNEQUAL)
def test_results_that_hold_the_same_values_are_told_apart_in_a_bounded_number_of_steps(
    name: str, refinements: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All rows and columns look alike; trying the permutations would take up to 24! steps."""
    monkeypatch.setattr(sql_equal, "SPARE_TRIES", 100)
    left, right = UNEQUAL[name]
    assert not spider_equal(left, shuffled(right, 1), ordered=False)
    assert 0 < refinements[0] <= len(left[0]) ** 2 + 100


def test_bird_equality() -> None:
    assert bird_equal([(1, "a"), (1, "a")], [(1.0, "a")])
    assert not bird_equal([(1, "a")], [("a", 1)])
    assert bird_equal([], [])
    assert not bird_equal([], [(1,)])
