"""The distinct tokens of several rows: common beginnings stand once, each token behind the one before it.

Rows that begin alike (completions of one prompt, prompts with the same schema or examples) share a node of the tree;
a path from the root is a row. Numbers of tokens and positions alone; no model is known here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Int64

TokenArray = Int64[np.ndarray, " _"]
"""Token ids of one row, or places of its tokens."""

MIN_SAVED = 16
"""Tokens that a node of its own must save: a shared beginning costs one more part of the attention."""
PADDED_SHARE = 1.25
"""Attention of a block, padding included, over what its nodes need, at most."""
BLOCK_KEYS = 1 << 16
"""Keys of a block at most, unless one node alone has more: each node has a copy of those on its path."""
SMALL_AREA = 1 << 15
"""Pairs of query and key below which a block may be padded freely: one call costs more than they do."""


@dataclass(frozen=True, slots=True)
class Node:
    """Consecutive tokens that the same rows share."""

    row: int
    """A row that they are read from."""
    begin: int
    """Their place in that row, which is the position of the first one."""
    end: int
    parent: int | None
    """Number of the node before it."""

    def __len__(self) -> int:
        return self.end - self.begin


@dataclass(frozen=True, slots=True)
class PrefixTree:
    """Nodes, parents before children, and the last node of each row."""

    nodes: tuple[Node, ...]
    last: tuple[int | None, ...]
    """For each row; None for a row without tokens."""


def prefix_tree(rows: Sequence[TokenArray], min_saved: int = MIN_SAVED) -> PrefixTree:
    """The tree of rows (token ids, >= 0).

    Args:
        min_saved: a common beginning becomes a node where it saves at least so many tokens; else it is repeated.
    """
    order = sorted(range(len(rows)), key=lambda i: rows[i].astype(">u4").tobytes())
    common = [0, *(_common(rows[a], rows[b]) for a, b in pairwise(order))]
    nodes: list[Node] = []
    last: list[int | None] = [None] * len(rows)
    stack: list[tuple[int, int, int, int | None]] = [(0, len(rows), 0, None)]  # rows of `order`, depth, parent
    while stack:
        low, high, depth, parent = stack.pop()
        row = order[low] if low < high else -1
        shared = len(rows[row]) if high - low == 1 else min(common[low + 1 : high], default=depth)
        alone = high - low == 1
        if shared > depth and (alone or (shared - depth) * (high - low - 1) >= min_saved):
            nodes.append(Node(row, depth, shared, parent))
            parent, depth = len(nodes) - 1, shared
        if alone:
            last[row] = parent
            continue
        stack.extend((*part, depth, parent) for part in reversed(list(_apart(common, low, high, shared))))
    return PrefixTree(tuple(nodes), tuple(last))


def _common(first: TokenArray, second: TokenArray) -> int:
    """Length of the beginning that two rows share."""
    size = min(len(first), len(second))
    different = np.flatnonzero(first[:size] != second[:size])
    return int(different[0]) if len(different) else size


def _apart(common: list[int], low: int, high: int, shared: int) -> Iterator[tuple[int, int]]:
    """Ranges of sorted rows that share more than all of them do."""
    begin = low
    for i in range(low + 1, high):
        if common[i] == shared:
            yield begin, i
            begin = i
    if begin < high:
        yield begin, high


def blocks_of(before: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
    """Nodes whose attention is computed together, padded to one another.

    Args:
        before: tokens before each node on its path. lengths: its own tokens, >= 1.
    Returns:
        Numbers of nodes; those without anything before them are among themselves, for their attention is plainly
        causal.
    """
    order = sorted(range(len(lengths)), key=lambda i: (before[i] > 0, before[i] + lengths[i], lengths[i]))
    blocks: list[list[int]] = []
    wide = tall = needed = 0
    for i in order:
        width, height = before[i] + lengths[i], lengths[i]
        if blocks and (before[blocks[-1][0]] > 0) == (before[i] > 0):
            keys = (len(blocks[-1]) + 1) * max(wide, width)
            area = keys * max(tall, height)
            if keys <= BLOCK_KEYS and area <= max(PADDED_SHARE * (needed + width * height), SMALL_AREA):
                blocks[-1].append(i)
                wide, tall, needed = max(wide, width), max(tall, height), needed + width * height
                continue
        blocks.append([i])
        wide, tall, needed = width, height, width * height
    return blocks
