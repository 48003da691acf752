"""Rows of prompts and completions as one packed sequence of their distinct tokens, and the way back to rows.

Axes: B rows, T completion tokens, N packed tokens, M scored tokens; R nodes of a block, Q their own tokens, K the
tokens that they see.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from dphrl.models.prefix_tree import MIN_SAVED, PrefixTree, TokenArray, blocks_of, prefix_tree


@dataclass(frozen=True, slots=True)
class AttentionBlock:
    """Nodes whose attention is computed together; padding among their own tokens repeats the last one."""

    query_RQ: Int64[Tensor, "nodes own"]
    """Packed places of their own tokens."""
    key_RK: Int64[Tensor, "nodes seen"]
    """Packed places of the tokens on their path, their own included."""
    seen_RK: Bool[Tensor, "nodes seen"]
    """False where a key is padding."""
    kept: Int64[Tensor, " kept"] | None
    """Which of the R * Q results are of real tokens, in packed order; None for all."""
    causal: bool
    """Whether the nodes see their own tokens alone, so that no mask but the plain causal one is needed."""


@dataclass(frozen=True, slots=True)
class PackedRows:
    """One sequence for a model's body, [1, N], and where its states answer what is asked of each row."""

    input_ids_1N: Int64[Tensor, "1 tokens"]
    position_ids_1N: Int64[Tensor, "1 tokens"]
    """As if each row stood alone: from 0, along its path."""
    blocks: tuple[AttentionBlock, ...]
    """In packed order."""
    state_M: Int64[Tensor, " scored"]
    """Packed places whose states predict the scored tokens."""
    target_M: Int64[Tensor, " scored"]
    """The scored tokens."""
    scored_BT: Int64[Tensor, "rows time"]
    """Number of each completion token among the scored ones; M behind a completion's end."""

    def to_rows(self, values_M: Float[Tensor, " scored"]) -> Float[Tensor, "rows time"]:
        """One number for each completion token, 0 behind a completion's end; equal tokens share theirs."""
        return torch.cat([values_M, values_M.new_zeros(1)])[self.scored_BT.to(values_M.device)]


def pack_rows(
    prompts: Sequence[TokenArray],
    completions: Sequence[TokenArray],
    *,
    time: int | None = None,
    min_saved: int = MIN_SAVED,
    device: torch.device | None = None,
) -> PackedRows:
    """The packed sequence of some rows; a completion may be empty, a prompt may not.

    The last token of a row predicts nothing that is asked for, so it is not read.

    Args:
        time: width of `scored_BT`; None = the longest completion.
        min_saved: as `prefix_tree`.
    """
    inputs = [np.concatenate([p, c])[:-1] if len(c) else p[:0] for p, c in zip(prompts, completions, strict=True)]
    if not any(map(len, inputs)):  # nothing is asked for: read something, so that the result has a graph
        inputs[0] = prompts[0][:1]
    tree = prefix_tree(inputs, min_saved)
    blocks = blocks_of([node.begin for node in tree.nodes], [len(node) for node in tree.nodes])
    packed = [tree.nodes[n] for block in blocks for n in block]
    paths = _paths(tree, blocks)
    pairs_2M, scored_BT = _scored(prompts, completions, [_path_of(paths, last) for last in tree.last], time)

    def tensor(array: Int64[np.ndarray, "*shape"]) -> Int64[Tensor, "*shape"]:
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64)).to(device)

    return PackedRows(
        input_ids_1N=tensor(np.concatenate([inputs[n.row][n.begin : n.end] for n in packed]))[None],
        position_ids_1N=tensor(np.concatenate([np.arange(n.begin, n.end) for n in packed]))[None],
        blocks=tuple(
            _block([paths[n] for n in block], [len(tree.nodes[n]) for n in block], tensor) for block in blocks
        ),
        state_M=tensor(pairs_2M[0]),
        target_M=tensor(pairs_2M[1]),
        scored_BT=tensor(scored_BT),
    )


def _paths(tree: PrefixTree, blocks: Sequence[Sequence[int]]) -> list[TokenArray]:
    """Packed places of the tokens on each node's path, its own included, where blocks are packed in their order."""
    begin, place = {}, 0
    for n in (n for block in blocks for n in block):
        begin[n], place = place, place + len(tree.nodes[n])
    paths: list[TokenArray] = []
    for n, node in enumerate(tree.nodes):
        own = np.arange(begin[n], begin[n] + len(node))
        paths.append(own if node.parent is None else np.concatenate([paths[node.parent], own]))
    return paths


def _path_of(paths: Sequence[TokenArray], node: int | None) -> TokenArray:
    return np.zeros(0, dtype=np.int64) if node is None else paths[node]


def _scored(
    prompts: Sequence[TokenArray], completions: Sequence[TokenArray], paths: Sequence[TokenArray], time: int | None
) -> tuple[Int64[np.ndarray, "2 scored"], Int64[np.ndarray, "rows time"]]:
    """Distinct pairs of a state and the token it predicts, and the number of its pair for each completion token."""
    states = [path[len(p) - 1 :] for p, c, path in zip(prompts, completions, paths, strict=True) if len(c)]
    none = np.zeros(0, dtype=np.int64)
    # One number for both: token ids are below 2^32.
    pairs = (np.concatenate([*states, none]) << 32) | np.concatenate([*completions, none]).astype(np.int64)
    distinct, number = np.unique(pairs, return_inverse=True)
    distinct_2M = np.stack([distinct >> 32, distinct & 0xFFFFFFFF])
    lengths = np.array([len(c) for c in completions])
    scored_BT = np.full((len(lengths), lengths.max() if time is None else time), distinct_2M.shape[1])
    scored_BT[np.arange(scored_BT.shape[1]) < lengths[:, None]] = number
    return distinct_2M, scored_BT


def _block(paths: Sequence[TokenArray], own: Sequence[int], tensor: Callable[[TokenArray], Tensor]) -> AttentionBlock:
    """Padded to one another: queries repeat their last one, which is dropped again, keys repeat their first one."""
    tall, wide = max(own), max(map(len, paths))
    query_RQ, key_RK = (np.empty((len(paths), size), dtype=np.int64) for size in (tall, wide))
    for i, (path, n) in enumerate(zip(paths, own, strict=True)):
        query_RQ[i, :n], query_RQ[i, n:] = path[len(path) - n :], path[-1]
        key_RK[i, : len(path)], key_RK[i, len(path) :] = path, path[0]
    seen_RK = np.arange(wide) < np.array(list(map(len, paths)))[:, None]
    real_RQ = np.arange(tall) < np.array(own)[:, None]
    return AttentionBlock(
        query_RQ=tensor(query_RQ),
        key_RK=tensor(key_RK),
        seen_RK=tensor(seen_RK).bool(),
        kept=None if real_RQ.all() else tensor(np.flatnonzero(real_RQ)),
        causal=wide == tall,
    )
