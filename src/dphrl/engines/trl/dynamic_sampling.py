"""Dynamic sampling (dapo) on padded batches: which groups teach nothing, and how fresh ones take their place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from trl import GRPOTrainer

from dphrl.errors import ConfigError

_LEFT_PADDED = frozenset({"prompt_ids", "prompt_mask"})
_TOKENS = frozenset({"prompt_ids", "completion_ids"})

Put = Callable[[Tensor, Tensor], Tensor]


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


def merge_generations(old: dict[str, Any], new: dict[str, Any], pad_id: int, put: Put) -> dict[str, Any]:
    """Row-wise merge of two padded generations: prompts padded on the left, everything else on the right.

    Args:
        old, new: batches of TRL's trainer with the same keys; 0-dim entries (a step's token count) are kept from `old`.
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


class DynamicSampling(GRPOTrainer):  # type: ignore[misc]
    """Replaces groups without spread, for method dapo."""

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        if self.model.training and self.args.method == "dapo":
            batch = self._replace_flat_groups(batch, inputs)
        return batch

    def _replace_flat_groups(self, batch: dict[str, Any], inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Dynamic sampling (DAPO, arXiv:2503.14476): groups whose rewards are all equal teach nothing; draw others.

        Each round draws as many fresh prompts as are needed; what is still flat after `max_resample` rounds stays, with
        zero advantage.
        """
        size = self.num_generations
        if len(inputs) % size:
            raise ConfigError(
                f"dapo needs whole groups on each process: {len(inputs)} completions a process is no multiple of "
                f"group_size={size}; change train.prompts_per_step or the number of processes"
            )
        rounds = 0
        while rounds < self.args.max_resample:
            flat = flat_groups(batch["rewards"], size)
            wanted = int(self.accelerator.gather(torch.tensor([len(flat)], device=self.accelerator.device)).max())
            if wanted == 0:
                break
            rounds += 1
            fresh = super()._generate_and_score_completions(self._fresh_prompts(wanted, rounds))
            good = [g for g in range(wanted) if g not in flat_groups(fresh["rewards"], size)]
            pairs = list(zip(flat, good, strict=False))
            batch = merge_generations(batch, fresh, self.processing_class.pad_token_id, partial(put_rows, pairs, size))
        batch["num_items_in_batch"] = self.accelerator.gather(batch["completion_mask"].sum()).sum()
        left = len(flat_groups(batch["rewards"], size)) * size / len(inputs)
        self._metrics["train"]["dapo/resample_rounds"].append(float(rounds))
        self._metrics["train"]["dapo/flat_groups_left"].append(left)
        return batch

    def _fresh_prompts(self, groups: int, attempt: int) -> list[dict[str, Any]]:
        """Prompts drawn anew, a pure function of (seed, step, round, rank); each stands once for each completion."""
        generator = torch.Generator().manual_seed(
            hash((self.args.seed, self.state.global_step, attempt, self.accelerator.process_index)) % 2**63
        )
        picked = torch.randint(len(self.train_dataset), (groups,), generator=generator).tolist()
        return [self.train_dataset[i] for i in picked for _ in range(self.num_generations)]
