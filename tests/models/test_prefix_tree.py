"""The prefix tree: a path is a row, common beginnings stand once, blocks hold every node within their bounds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dphrl.models.prefix_tree import PADDED_SHARE, SMALL_AREA, PrefixTree, TokenArray, blocks_of, prefix_tree

ROWS = st.lists(st.lists(st.sampled_from([0, 1, 300, 2**31]), max_size=9), max_size=9)
"""Few different tokens, so that beginnings are shared; two of them share their last byte, one needs 32 bits."""


def arrays(rows: Sequence[Sequence[int]]) -> list[TokenArray]:
    return [np.array(row, dtype=np.int64) for row in rows]


def path(tree: PrefixTree, rows: Sequence[TokenArray], node: int | None) -> list[int]:
    tokens: list[int] = []
    while node is not None:
        place = tree.nodes[node]
        tokens, node = [*rows[place.row][place.begin : place.end].tolist(), *tokens], place.parent
    return tokens


@settings(max_examples=60)
@given(ROWS, st.integers(1, 40))
@example([[]], 1)
@example([[], [1], [1]], 1)
@example([[1, 300], [1, 300], [1]], 1)
def test_each_row_is_its_path(rows: list[list[int]], min_saved: int) -> None:
    tree = prefix_tree(arrays(rows), min_saved)
    assert len(tree.last) == len(rows)
    for row, last in zip(rows, tree.last, strict=True):
        assert path(tree, arrays(rows), last) == row and (last is None) == (not row)
    for number, node in enumerate(tree.nodes):
        assert node.end > node.begin
        if node.parent is None:
            assert node.begin == 0
        else:
            assert node.parent < number and node.begin == tree.nodes[node.parent].end
    assert {n.parent for n in tree.nodes} | set(tree.last) >= set(range(len(tree.nodes)))  # none is of no use


@settings(max_examples=60)
@given(ROWS)
def test_with_every_beginning_shared_a_token_stands_once_for_each_distinct_prefix(rows: list[list[int]]) -> None:
    prefixes = {tuple(row[:end]) for row in rows for end in range(1, len(row) + 1)}
    assert sum(map(len, prefix_tree(arrays(rows), min_saved=1).nodes)) == len(prefixes)


@settings(max_examples=60)
@given(ROWS, st.integers(1, 40))
def test_a_shared_node_saves_what_is_asked(rows: list[list[int]], min_saved: int) -> None:
    """Of a node that n rows go through, n - 1 copies are saved."""
    tree = prefix_tree(arrays(rows), min_saved)
    below: list[list[int]] = [[] for _ in tree.nodes]
    for row, last in enumerate(tree.last):
        node = last
        while node is not None:
            below[node].append(row)
            node = tree.nodes[node].parent
    for node, own in zip(tree.nodes, below, strict=True):
        assert len(own) == 1 or len(node) * (len(own) - 1) >= min_saved
    saved = sum(map(len, rows)) - sum(map(len, tree.nodes))
    assert saved == sum(len(node) * (len(own) - 1) for node, own in zip(tree.nodes, below, strict=True))


def test_a_tree_worked_by_hand() -> None:
    """Two prompts with the same examples (1 2), three completions of the first (3) and two of the second (4)."""
    rows = arrays([[1, 2, 3, 5], [1, 2, 3, 6, 6], [1, 2, 4], [1, 2, 4, 7], [1, 2, 3]])
    tree = prefix_tree(rows, min_saved=1)
    parts = {
        tuple(rows[n.row][n.begin : n.end].tolist()): (n.begin, n.parent is not None and n.parent) for n in tree.nodes
    }
    assert parts == {(1, 2): (0, False), (3,): (2, 0), (5,): (3, 1), (6, 6): (3, 1), (4,): (2, 0), (7,): (3, 4)}
    assert [len(path(tree, rows, last)) for last in tree.last] == [4, 5, 3, 4, 3]
    nothing = prefix_tree(rows, min_saved=100)
    assert [node.parent for node in nothing.nodes] == [None] * 5 and sum(map(len, nothing.nodes)) == 19


@pytest.mark.parametrize(("min_saved", "parents"), [(9, [None, 0, 0, 0, 0]), (10, [None] * 4), (5, [None, 0, 0, 0, 0])])
def test_a_beginning_of_three_tokens_saves_nine_for_four_rows(min_saved: int, parents: list[int | None]) -> None:
    rows = arrays([[1, 1, 1, k] for k in range(2, 6)])
    assert [node.parent for node in prefix_tree(rows, min_saved).nodes] == parents


SIZES = st.lists(st.tuples(st.integers(0, 900) | st.just(0), st.integers(1, 700)), max_size=30)


@settings(max_examples=60)
@given(SIZES)
def test_blocks_are_a_partition_within_their_bounds(sizes: list[tuple[int, int]]) -> None:
    before, lengths = [b for b, _ in sizes], [own for _, own in sizes]
    blocks = blocks_of(before, lengths)
    assert sorted(n for block in blocks for n in block) == list(range(len(sizes))) and all(blocks)
    for block in blocks:
        assert len({before[n] > 0 for n in block}) == 1  # plainly causal ones are among themselves
        wide, tall = max(before[n] + lengths[n] for n in block), max(lengths[n] for n in block)
        needed = sum((before[n] + lengths[n]) * lengths[n] for n in block)
        area = len(block) * wide * tall
        assert len(block) == 1 or area <= max(PADDED_SHARE * needed, SMALL_AREA)
