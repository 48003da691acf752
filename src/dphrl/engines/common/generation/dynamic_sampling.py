"""Dynamic sampling (dapo) on padded batches: which groups teach nothing, and how fresh ones take their place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dphrl.engines.common.generation.policy_tokens import policy_mask
from dphrl.engines.common.processes import Processes
from dphrl.errors import ConfigError

Batch = dict[str, Any]
"""A generation as TRL makes it: padded tensors of one row for each completion, and numbers of the whole step."""
Put = Callable[[Tensor, Tensor], Tensor]

_LEFT_PADDED = frozenset({"prompt_ids", "prompt_mask"})
_TOKENS = frozenset({"prompt_ids", "completion_ids"})


@dataclass(frozen=True, slots=True)
class Resampled:
    """A generation after dynamic sampling."""

    batch: Batch
    rounds: int
    """Rounds that were drawn (count)."""
    flat_left: float
    """Share of this process's groups that are still flat."""


def replace_flat_groups(
    batch: Batch, draw: Callable[[int, int], Batch], *, size: int, most: int, pad_id: int, processes: Processes
) -> Resampled:
    """Replace groups whose rewards are all equal, which teach nothing, by newly drawn ones.

    Each round draws as many fresh prompts as the process that lacks most needs; what is still flat after the last round
    stays, with zero advantage.

    Args:
        batch: with `rewards`, nan where a completion was not judged.
        draw: (groups, round from 1) -> a generation of that many fresh groups; a collective.
        size: completions of a group. most: rounds at most. pad_id: as in `merge_generations`.
    Raises:
        ConfigError: a group lies on two processes.
    Source: DAPO, arXiv:2503.14476.
    """
    rows = len(batch["rewards"])
    if rows % size:
        raise ConfigError(
            f"dapo needs whole groups on each process: {rows} completions a process is no multiple of "
            f"group_size={size}; change train.prompts_per_step or the number of processes"
        )
    rounds = 0
    while rounds < most:
        flat = flat_groups(batch["rewards"], size)
        wanted = int(processes.gather(torch.tensor([len(flat)], device=processes.device)).max())
        if wanted == 0:
            break
        rounds += 1
        fresh = draw(wanted, rounds)
        still_flat = flat_groups(fresh["rewards"], size)
        good = [group for group in range(wanted) if group not in still_flat]
        pairs = list(zip(flat, good, strict=False))
        batch = merge_generations(batch, fresh, pad_id, partial(put_rows, pairs, size))
    batch["num_items_in_batch"] = processes.gather(policy_mask(batch).sum()).sum()
    return Resampled(batch, rounds, len(flat_groups(batch["rewards"], size)) * size / rows)


def fresh_prompts(groups: int, prompts: int, place: tuple[int, int, int, int]) -> list[int]:
    """A new prompt number in 0..prompts-1 for each group: a pure function of (seed, step, round, rank)."""
    generator = torch.Generator().manual_seed(hash(place) % 2**63)
    return torch.randint(prompts, (groups,), generator=generator).tolist()


def flat_groups(rewards: Float[Tensor, rows], size: int) -> list[int]:
    """Numbers of the groups of `size` neighbouring rows whose judged rewards do not differ (nan = not judged)."""
    grouped = rewards.view(-1, size)
    low = grouped.nan_to_num(nan=torch.inf).amin(1)
    high = grouped.nan_to_num(nan=-torch.inf).amax(1)
    return torch.nonzero(~(high > low)).flatten().tolist()


def put_rows(pairs: Sequence[tuple[int, int]], size: int, old: Tensor, new: Tensor) -> Tensor:
    """`old` with the rows of its group i replaced by the rows of group j of `new`, for each pair (i, j)."""
    result = old.clone()
    for i, j in pairs:
        result[i * size : (i + 1) * size] = new[j * size : (j + 1) * size]
    return result


def merge_generations(old: Batch, new: Batch, pad_id: int, put: Put) -> Batch:
    """Row-wise merge of two padded generations: prompts padded on the left, everything else on the right.

    Args:
        old, new: with the same keys; 0-dim entries (a step's token count) are kept from `old`.
        pad_id: token that pads prompts and completions; all else is padded with 0.
        put: (rows of old, rows of new), of equal width -> merged rows.
    """
    merged = dict(old)
    for key, value in old.items():
        if not isinstance(value, Tensor) or value.dim() == 0:
            continue
        other = new[key]
        if value.dim() == 2:
            width = max(value.shape[1], other.shape[1])
            fill = pad_id if key in _TOKENS else 0
            value, other = (_widen(t, width, fill, left=key in _LEFT_PADDED) for t in (value, other))
        merged[key] = put(value, other)
    return merged


def _widen(rows: Tensor, width: int, fill: int, *, left: bool) -> Tensor:
    missing = width - rows.shape[1]
    return torch.nn.functional.pad(rows, (missing, 0) if left else (0, missing), value=fill)
