"""Equality of results against the definition by brute force, and where brute force would never end."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import hypothesis.strategies as st
from hypothesis import given, settings

from dphrl.verifiers.sql_equal import Row, bird_equal, spider_equal

CELL = st.sampled_from([0, 1, 1.0, 2, None, "1"])


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
@given(st.data(), st.integers(1, 4), st.integers(1, 4), st.booleans())
def test_spider_equality_is_its_definition(data: st.DataObject, width: int, height: int, ordered: bool) -> None:
    gold, rows = data.draw(tables(width, height)), data.draw(tables(width, height))
    assert spider_equal(gold, rows, ordered=ordered) is by_definition(gold, rows, ordered)


@settings(max_examples=200, deadline=None)
@given(st.data(), st.integers(2, 6), st.integers(1, 6), st.randoms(use_true_random=False))
def test_a_shuffled_table_is_equal(data: st.DataObject, width: int, height: int, rng: random.Random) -> None:
    gold = data.draw(tables(width, height))
    order = rng.sample(range(width), width)
    rows = [tuple(row[i] for i in order) for row in gold]
    assert spider_equal(gold, rows, ordered=True)
    rng.shuffle(rows)
    assert spider_equal(gold, rows, ordered=False)


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


def test_bird_equality() -> None:
    assert bird_equal([(1, "a"), (1, "a")], [(1.0, "a")])
    assert not bird_equal([(1, "a")], [("a", 1)])
    assert bird_equal([], [])
    assert not bird_equal([], [(1,)])
