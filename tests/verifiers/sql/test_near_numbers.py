"""Numbers that count as one, against the definition by brute force."""

from __future__ import annotations

import itertools
import math
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from dphrl.verifiers.sql.equal_results import bird_equal, list_equal, spider_equal
from dphrl.verifiers.sql.near_numbers import TOLERANCE, GoldNumbers, has_fractions, is_whole
from dphrl.verifiers.sql.result_json import Row

UP = 0.6 * TOLERANCE
CHAIN = st.sampled_from([0.3, 0.3 * (1 + UP), 0.3 * (1 + 2 * UP), 0.3 * (1 + 3 * UP), 0.3 * (1 - UP)])
"""Near their neighbours, not near those beyond."""
APART = st.sampled_from([0.3, 0.1 + 0.2, 1 / 3, 0.3333333333333333, 2, 2.0000000000000004, -0.3, -0.30000000000000004])
ODD = st.sampled_from(
    [0, 1, 1.0, None, "0.3", b"0.3", 5e-324, math.inf, -math.inf, 1_700_000_000, 1_700_000_001.0, 1_700_000_000.5]
)


def near(one: object, other: object) -> bool:
    """The definition."""
    if type(one) in (int, float) and type(other) in (int, float):
        assert isinstance(one, int | float) and isinstance(other, int | float)
        return one == other or (not (is_whole(one) and is_whole(other)) and math.isclose(one, other, rel_tol=1e-9))
    return one == other


def matched(gold: list[Row], rows: list[Row]) -> bool:
    """Whether the rows can be paired so that all cells of a pair are near."""
    if len(gold) != len(rows):
        return False
    return any(
        all(near(a, b) for one, other in zip(gold, order, strict=True) for a, b in zip(one, other, strict=True))
        for order in itertools.permutations(rows)
    )


def by_definition(gold: list[Row], rows: list[Row], way: str) -> bool:
    width = len(gold[0])
    if way == "list":
        return all(near(a, b) for one, other in zip(gold, rows, strict=True) for a, b in zip(one, other, strict=True))
    if way == "set":
        pairs = [[all(map(near, one, other)) for other in rows] for one in gold]
        return all(map(any, pairs)) and all(map(any, zip(*pairs, strict=True)))
    permuted = ([tuple(row[i] for i in order) for row in rows] for order in itertools.permutations(range(width)))
    return any(matched(gold, other) for other in permuted)


def found(gold: list[Row], rows: list[Row], way: str) -> bool:
    numbers = GoldNumbers(gold)
    wanted, given_rows = numbers.canonical(gold), numbers.canonical(rows)
    if way == "list":
        return list_equal(wanted, given_rows)
    return bird_equal(wanted, given_rows) if way == "set" else spider_equal(wanted, given_rows, ordered=False)


def two_tables(cells: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[list[Row], list[Row]]]:
    def of(shape: tuple[int, int]) -> st.SearchStrategy[tuple[list[Row], list[Row]]]:
        table = st.lists(st.tuples(*[cells] * shape[0]), min_size=shape[1], max_size=shape[1])
        return st.tuples(table, table)

    return st.tuples(st.integers(1, 2), st.integers(1, 4)).flatmap(of)


@settings(max_examples=600, deadline=None)
@given(two_tables(CHAIN | APART | ODD) | two_tables(CHAIN), st.sampled_from(["list", "set", "bag"]))
def test_what_is_found_equal_can_be_matched(tables: tuple[list[Row], list[Row]], way: str) -> None:
    """Chains of near numbers too: nothing is paid that the definition refuses."""
    assert by_definition(*tables, way) or not found(*tables, way)


@settings(max_examples=600, deadline=None)
@given(
    two_tables(APART) | two_tables(APART | ODD.filter(lambda cell: cell != 1_700_000_000.5)),
    st.sampled_from(["list", "set", "bag"]),
)
def test_what_can_be_matched_is_found_where_being_near_is_transitive(
    tables: tuple[list[Row], list[Row]], way: str
) -> None:
    assert found(*tables, way) is by_definition(*tables, way)


@settings(max_examples=300, deadline=None)
@given(two_tables(CHAIN | APART | ODD))
def test_a_result_is_equal_to_itself_and_its_stand_ins_are_their_own(tables: tuple[list[Row], list[Row]]) -> None:
    gold, _ = tables
    numbers = GoldNumbers(gold)
    canonical = numbers.canonical(gold)
    assert numbers.canonical(canonical) == canonical
    assert all(map(near, gold[0], canonical[0]))


@pytest.mark.parametrize(
    ("gold", "other", "equal"),
    [
        (0.3, 0.1 + 0.2, True),
        (2, 2.0000000000000004, True),
        (1e300, 1e300 * (1 + 1e-12), True),
        (9_007_199_254_740_993, 9_007_199_254_740_992.0, True),
        (1e17, 1e17 + 16, True),
        (1_700_000_000, 1_700_000_001, False),  # ids, seconds
        (1_700_000_000.0, 1_700_000_001, False),
        (1_700_000_000.5, 1_700_000_001, True),
        (0, 5e-17, False),
        (0.3, 0.300001, False),
        (0.3, -0.3, False),
        (math.inf, 1e308, False),
        (math.inf, math.inf, True),
        (0.3, "0.3", False),
        (None, 0.0, False),
    ],
)
def test_which_numbers_are_near(gold: object, other: object, equal: bool) -> None:
    numbers = GoldNumbers([(gold,)])
    assert (numbers.canonical([(other,)]) == numbers.canonical([(gold,)])) is equal
    assert near(gold, other) is equal


def test_gold_numbers_that_are_near_each_other_count_as_one() -> None:
    """Two groups whose averages differ in the last digit only; the completion finds them equal, or the other order."""
    gold = [("a", 0.3), ("b", 0.1 + 0.2)]
    for rows in ([("a", 0.3), ("b", 0.3)], [("a", 0.1 + 0.2), ("b", 0.3)]):
        assert found(gold, list(rows), "bag") and found(gold, list(rows), "set")
    assert not found(gold, [("a", 0.3), ("a", 0.3)], "bag")


def test_whether_there_are_fractions() -> None:
    assert has_fractions([(1, "a"), (None, 0.5)]) and has_fractions([(1e16,)])
    assert not has_fractions([(1, 2.0, "0.5", None, b"x", 2**60)]) and not has_fractions([])
