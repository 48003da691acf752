"""A generation as micro-batches of whole groups: completions of one prompt stay together, as in the paper."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

Batch = dict[str, Any]


def micro_batches(batch: Batch, parts: int, *, group_size: int, first: int) -> list[Batch]:
    """One process's generation in equal parts: its groups in a random order, cut between groups where that divides.

    Args:
        batch: what is a tensor or list of as many entries as `advantages` has is a column of rows; the rest belongs to
            all of them.
        parts: micro-batches of a generation.
        first: number of its first row among those of all processes; a group may begin on the process before.
    """
    rows = len(batch["advantages"])
    group_N = (first + torch.arange(rows)) // group_size
    order = torch.randperm(int(group_N[-1] - group_N[0]) + 1)
    shuffled = torch.argsort(order[group_N - group_N[0]], stable=True)
    return [{name: _rows(value, chosen, rows) for name, value in batch.items()} for chosen in shuffled.chunk(parts)]


def _rows(value: Any, chosen: Tensor, rows: int) -> Any:
    if isinstance(value, Tensor) and value.dim() and len(value) == rows:
        return value[chosen.to(value.device)]
    return [value[int(i)] for i in chosen] if isinstance(value, list) and len(value) == rows else value
