"""Rollouts: the prompts' own tokens go in, and each completion's reward and advantage come out beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from trl import GRPOTrainer

from dphrl.config.checks import PASS_K, RANK_PENALTY
from dphrl.method.advantages import advantage
from dphrl.types import Prompt


class Rollouts(GRPOTrainer):  # type: ignore[misc]
    """TRL's generation, with our tokens, rewards kept and the advantage that is asked for."""

    def __init__(self, *args: Any, encode: Callable[[Prompt], list[int]] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._encode = encode
        self._rewards: Tensor | None = None
        self._advantage = advantage(
            self.args.advantage,
            pass_k=self.args.pass_k or PASS_K,
            rank_penalty=RANK_PENALTY if self.args.rank_penalty is None else self.args.rank_penalty,
        )

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[Any, ...]:
        if self._encode is None:
            output: tuple[Any, ...] = super()._tokenize_prompts(prompts)
            return output
        records = [Prompt("", p if isinstance(p, str) else tuple(p)) for p in prompts]
        return [self._encode(record) for record in records], None, {}

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Tensor:
        self._rewards = rewards = super()._calculate_rewards(*args, **kwargs)
        return rewards  # type: ignore[no-any-return]

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """TRL's batch with each completion's reward beside it, and the advantages that were asked for."""
        batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        if not self.model.training:
            return batch
        assert self._rewards is not None
        rewards = (self._rewards * self.reward_weights.to(self._rewards.device)).nansum(1)
        rewards[self._rewards.isnan().all(1)] = torch.nan
        batch["rewards"] = self._local(rewards, len(inputs))
        if self._advantage is not None:
            logp = torch.zeros_like(rewards)
            if self._advantage.reads_logps:
                mask = batch["completion_mask"]
                logp = self.accelerator.gather((self._old_logps(batch) * mask).sum(1) / mask.sum(1).clamp(min=1))
            groups = [x.view(-1, self.num_generations) for x in (rewards, logp)]
            batch["advantages"] = self._local(self._advantage.of(*groups).flatten(), len(inputs))
        return batch

    def _old_logps(self, batch: dict[str, Any]) -> Tensor:
        old: Tensor | None = batch.get("old_per_token_logps")
        if old is None:  # one optimiser step a generation: TRL has no need of them
            with torch.no_grad():
                old = self._get_per_token_logps_and_entropies(
                    self.model,
                    input_ids=torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1),
                    attention_mask=torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1),
                    logits_to_keep=batch["completion_ids"].shape[1],
                    batch_size=self.args.per_device_train_batch_size,
                )[0]
        return old

    def _local(self, gathered: Tensor, rows: int) -> Tensor:
        start = self.accelerator.process_index * rows
        return gathered[start : start + rows]
