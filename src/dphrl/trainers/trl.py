"""TRL's GRPO trainer, extended: `DPHConfig(GRPOConfig)` and `DPHTrainer(GRPOTrainer)`.

One trainer for every method: `grpo`, `dapo`, `rkl`, `dph`, `replay`. Wiring only; formulas live in the pure core, and
TRL's own loss is always reached through `super()`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial, reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from trl import GRPOConfig, GRPOTrainer

from dphrl.anchors import anchor_lengths
from dphrl.anchors.stream import share, step_anchors
from dphrl.config import ANCHOR_METHODS
from dphrl.config_checks import PASS_K, RANK_PENALTY
from dphrl.divergences import Generator, generator
from dphrl.errors import ConfigError, EmptyAnchorStore
from dphrl.objective import AnchorStats, anchor_nll, anchor_penalty, k1, k2, topk_penalty
from dphrl.scoring import pad_sequences
from dphrl.trainers.advantages import ADVANTAGES, advantage
from dphrl.trainers.arguments import check_arguments
from dphrl.trainers.dynamic import flat_groups, merge_generations, put_rows
from dphrl.trainers.eta import EtaControl
from dphrl.trainers.options import check_options, check_ranks
from dphrl.trainers.positions import needs_positions, with_positions
from dphrl.trainers.topk import add_topk_head, check_topk, topk_logps
from dphrl.types import Anchor, Prompt

CHECKPOINT_DONE = "dphrl-complete"
"""A file in each whole checkpoint: a run that is killed while it saves must not resume from the torn one."""


@dataclass
class DPHConfig(GRPOConfig):  # type: ignore[misc]
    """TRL's settings and ours; see `dphrl.config.ObjectiveConfig` and `TrainConfig` for meaning, unit and range."""

    method: str = field(default="dph", metadata={"help": "grpo, dapo, rkl, dph or replay"})
    divergence: str = field(default="forward_kl", metadata={"help": "Generator function of the anchor penalty"})
    alpha: float = field(default=0.5, metadata={"help": "Order of the alpha-divergence, in (0, 1)"})
    eta: float = field(default=0.2, metadata={"help": "Weight of the anchor penalty, >= 0"})
    eta_schedule: str = field(default="constant", metadata={"help": "constant, linear, cosine or target"})
    eta_end: float | None = field(default=None, metadata={"help": "linear, cosine: eta of the last step; None = 0"})
    drift_target: float | None = field(default=None, metadata={"help": "target: anchor/forward_kl, nats a token"})
    eta_bounds: list[float] | None = field(default=None, metadata={"help": "target: None = [eta / 100, 100 eta]"})
    log_u_cap: float = field(default=5.0, metadata={"help": "Tangent continuation beyond it, in nats"})
    anchor_estimator: str = field(default="sampled", metadata={"help": "dph: sampled, or topk over the vocabulary"})
    anchors_per_step: int = field(default=32, metadata={"help": "Anchors beside each optimiser step"})
    kl_estimator: str = field(default="k3", metadata={"help": "rkl: k3, k3_corrected, k2, k1_reward; weight `beta`"})
    advantage: str = field(default="group", metadata={"help": f"one of {', '.join(ADVANTAGES)}"})
    pass_k: int | None = field(default=None, metadata={"help": f"passk, pkpo: completions; None = {PASS_K}"})
    rank_penalty: float | None = field(default=None, metadata={"help": f"unlikeliness: None = {RANK_PENALTY}"})
    max_resample: int = field(default=3, metadata={"help": "dapo: rounds that replace groups without spread"})

    # TRL's, without its default: one that contradicts the method is refused, not overwritten.
    disable_dropout: bool | None = field(default=None, metadata={"help": "Always on beside anchors, else off"})
    use_bias_correction_kl: bool | None = field(default=None, metadata={"help": "What `kl_estimator` says"})

    def __post_init__(self) -> None:
        check_arguments(self)
        if self.method == "rkl" and self.beta <= 0:
            raise ConfigError(f"method rkl with beta={self.beta}; give beta > 0, or use method grpo")
        if self.method != "rkl" and self.beta != 0:
            raise ConfigError(f"beta={self.beta} acts only with method rkl; method {self.method} needs beta=0")
        check_options(self)
        # Unless told otherwise TRL multiplies k3 by the differentiable ratio: its gradient becomes reverse KL's.
        self.use_bias_correction_kl = self.kl_estimator == "k3_corrected"
        # Reference logps are scored without dropout: with it, u would differ from 1 for the unchanged policy.
        self.disable_dropout = bool(self.disable_dropout) or self.method in ANCHOR_METHODS
        super().__post_init__()


class DPHTrainer(GRPOTrainer):  # type: ignore[misc]
    """GRPO, DAPO, reverse-KL, DPH-RL or replay on one loop: L = L_exp + eta * sum f(log u) / N over the step's anchors.

    Args:
        anchors: for `dph` and `replay`, at least one, scored by the initial policy; read when a step needs them
            (`anchors.open_store`).
        encode: prompt -> token ids; None leaves tokenization to TRL. The stages pass `Policy.encode`, so that training
            sees the very tokens that were pre-sampled.
        The rest: as `trl.GRPOTrainer`.
    Raises:
        EmptyAnchorStore: `dph` or `replay` without anchors. ConfigError: anchors for a method that has no use for them.
    Source: DPH-RL, arXiv:2509.07430.
    """

    beta: float
    """TRL's weight of the KL."""

    def __init__(
        self,
        *args: Any,
        anchors: Sequence[Anchor] | None = None,
        encode: Callable[[Prompt], list[int]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        wants = self.args.method in ANCHOR_METHODS
        if wants and not anchors:
            raise EmptyAnchorStore(f"method {self.args.method} needs anchors; run `dphrl presample` or use method grpo")
        if anchors and not wants:
            raise ConfigError(f"method {self.args.method} has no use for anchors; leave them out or use method dph")
        self._anchors: Sequence[Anchor] = anchors or ()
        self._anchor_lengths = anchor_lengths(self._anchors)
        self._encode = encode
        self._anchor_stats: list[AnchorStats] = []
        self._micro = (-1, -1)  # (optimiser step, micro-batch in it)
        self._logps: Tensor | None = None
        self._rewards: Tensor | None = None
        self._penalty = self._anchor_loss() if wants else None
        self._eta = EtaControl(self.args, self._step_drift)
        self._advantage = advantage(
            self.args.advantage,
            pass_k=self.args.pass_k or PASS_K,
            rank_penalty=RANK_PENALTY if self.args.rank_penalty is None else self.args.rank_penalty,
        )
        self._gives_positions = needs_positions(self.model)
        if wants:
            check_ranks(self.args, int(self.accelerator.num_processes), fsdp=self.is_fsdp_enabled)
            self.add_callback(self._eta)
        if wants and self.args.anchor_estimator == "topk":
            check_topk(self._anchors)
            add_topk_head(self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model)

    # -- anchors ------------------------------------------------------------------------------------------------------

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        inputs: dict[str, Any] = super()._prepare_inputs(generation_batch)
        if self._anchors and self.model.training:
            inputs = {**inputs, "anchors": self._next_anchors()}  # a copy: TRL reuses its buffered batches
        return inputs

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        anchors = inputs.get("anchors")
        exploration = {k: v for k, v in inputs.items() if k != "anchors"}
        with self._tokenwise_kl_off():
            loss: Tensor = super().compute_loss(model, exploration, *args, **kwargs)
        if self.args.method == "rkl" and self.args.kl_estimator == "k2":
            loss = loss + self.beta * self._k2_penalty(exploration)
        self._logps = None
        if anchors is None:
            return loss
        penalty = self._anchor_penalty(model, *anchors)
        return loss if self._eta.eta == 0 else loss + self._eta.eta * penalty

    def _next_anchors(self) -> tuple[list[Anchor], int]:
        """The anchors of this micro-batch on this rank, and the tokens of all anchors of the optimiser step."""
        step = self.state.global_step
        self._micro = (step, self._micro[1] + 1 if self._micro[0] == step else 0)
        indices = step_anchors(len(self._anchors), self.args.anchors_per_step, seed=self.args.seed, step=step)
        mine = share(
            indices,
            micro=self._micro[1],
            micros=self.current_gradient_accumulation_steps,
            rank=self.accelerator.process_index,
            ranks=self.accelerator.num_processes,
        )
        return [self._anchors[int(i)] for i in mine], int(self._anchor_lengths[indices].sum())

    def _anchor_penalty(self, model: Any, anchors: list[Anchor], step_tokens: int) -> Tensor:
        """This rank's share of the penalty; ranks' gradients are averaged afterwards, hence their number."""
        device = self.accelerator.device
        input_ids, attention_mask, completion_mask = pad_sequences(
            [a.prompt_ids for a in anchors],
            [a.completion_ids for a in anchors],
            self.processing_class.pad_token_id,
            device,
        )
        ref_logp_BT = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(a.ref_logps, device=device) for a in anchors], batch_first=True
        )
        mask_BT = completion_mask.bool()
        rows = {"input_ids": input_ids, "attention_mask": attention_mask}
        with torch.set_grad_enabled(torch.is_grad_enabled() and self._eta.eta != 0):  # eta = 0 is only measured
            if self.args.anchor_estimator == "topk":
                called = with_positions(model) if self._gives_positions else model
                with self.accelerator.autocast():
                    logp_BT, logp_NK, ref_logp_NK = topk_logps(called, rows, mask_BT, anchors)
                penalty = topk_penalty(logp_NK, ref_logp_NK, self._generator(), step_tokens)
            else:
                logp_BT = self._get_per_token_logps_and_entropies(model, **rows, logits_to_keep=mask_BT.shape[1])[0]
                assert self._penalty is not None
                penalty = self._penalty(logp_BT, ref_logp_BT, mask_BT, step_tokens)
        self._anchor_stats.append(AnchorStats.measure(logp_BT, ref_logp_BT, mask_BT, penalty, step_tokens))
        return penalty * int(self.accelerator.num_processes)

    def initial_log_u(self, most: int = 64) -> float:
        """Mean |log u| (nats) of up to `most` anchors under the policy as it stands; about 0 before the first step.

        They are spread over the whole store, where keep sets stand behind the task's own, and read in train mode, where
        a model that adds noise of its own shows it.
        """
        count = min(most, len(self._anchors))
        anchors = [self._anchors[int(i)] for i in np.linspace(0, len(self._anchors) - 1, count).round()]
        size, training = self.args.per_device_train_batch_size, self.model.training
        self.model.train()
        try:
            with torch.no_grad():
                for start in range(0, len(anchors), size):
                    part = anchors[start : start + size]
                    self._anchor_penalty(self.model, part, sum(len(a.completion_ids) for a in part))
        finally:
            self.model.train(training)
        merged = reduce(add, self._anchor_stats)
        self._anchor_stats.clear()
        return float(merged.metrics()["anchor/log_u_abs_mean"])

    def _anchor_loss(self) -> Callable[[Tensor, Tensor, Tensor, int], Tensor]:
        if self.args.method == "replay":
            return lambda logp, ref_logp, mask, tokens: anchor_nll(logp, mask, tokens)
        f = self._generator()
        return lambda logp, ref_logp, mask, tokens: anchor_penalty(logp, ref_logp, mask, f, tokens)

    def _generator(self) -> Generator:
        return generator(self.args.divergence, alpha=self.args.alpha, log_u_cap=self.args.log_u_cap)

    def _step_drift(self) -> float:
        """anchor/forward_kl of the optimiser step that has just ended, over all ranks (nats a token)."""
        micro_batches = self._micro[1] + 1
        rows = torch.stack([stats.pack() for stats in self._anchor_stats[-micro_batches:]])
        return AnchorStats.unpack(self.accelerator.gather(rows)).metrics()["anchor/forward_kl"].item()

    # -- reverse KL ---------------------------------------------------------------------------------------------------

    @contextmanager
    def _tokenwise_kl_off(self) -> Iterator[None]:
        """TRL adds k3 whenever beta is not 0; for the other estimators it must only bring the reference logps."""
        beta = self.beta
        if self.args.kl_estimator in ("k2", "k1_reward"):
            self.beta = 0.0
        try:
            yield
        finally:
            self.beta = beta

    def _get_per_token_logps_and_entropies(self, model: Any, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        called = with_positions(model) if self._gives_positions else model
        output: tuple[Any, ...] = super()._get_per_token_logps_and_entropies(called, *args, **kwargs)
        self._logps = output[0]
        return output

    def _k2_penalty(self, inputs: dict[str, Any]) -> Tensor:
        """Token-mean of k2 over the optimiser step, with TRL's own token-mean denominator."""
        assert self._logps is not None
        mask = inputs["completion_mask"]
        terms = k2(self._logps, inputs["ref_per_token_logps"]) * mask
        self._metrics["train"]["kl"].append((terms.detach().sum() / mask.sum().clamp(min=1)).item())
        share_of_generation = self.current_gradient_accumulation_steps / self.args.steps_per_generation
        tokens = inputs["num_items_in_batch"].clamp(min=1.0) / self.accelerator.num_processes * share_of_generation
        mean: Tensor = terms.sum() / tokens
        return mean

    def _k1_reward(self, batch: dict[str, Any]) -> Tensor:
        """-beta * (sum of k1 over a completion), centred in its group: a reward that no group deviation scales.

        Divided by the deviation it would be blown up to unit size wherever all completions are right.
        """
        kl = (k1(self._old_logps(batch), batch["ref_per_token_logps"]) * batch["completion_mask"]).sum(1)
        gathered = self.accelerator.gather(kl)
        self._metrics["train"]["kl"].append((gathered.mean()).item())
        centred = gathered - gathered.view(-1, self.num_generations).mean(1).repeat_interleave(self.num_generations)
        return -self.beta * self._local(centred, len(kl))

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

    # -- rollouts -----------------------------------------------------------------------------------------------------

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
        if not self.model.training:
            output: dict[str, Any] = super()._generate_and_score_completions(inputs)
            return output
        batch = self._generation(inputs)
        if self.args.method == "dapo":
            batch = self._replace_flat_groups(batch, inputs)
        return batch

    def _generation(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """TRL's generation with each completion's reward beside it, and the advantages that the method asks for."""
        batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
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
        if self.args.method == "rkl" and self.args.kl_estimator == "k1_reward":
            batch["advantages"] = batch["advantages"] + self._k1_reward(batch)
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
            fresh = self._generation(self._fresh_prompts(wanted, rounds))
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

    def _local(self, gathered: Tensor, rows: int) -> Tensor:
        start = self.accelerator.process_index * rows
        return gathered[start : start + rows]

    # -- metrics and checkpoints --------------------------------------------------------------------------------------

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if self._anchor_stats:
            rows = torch.stack([stats.pack() for stats in self._anchor_stats])
            merged = AnchorStats.unpack(self.accelerator.gather(rows))
            self._anchor_stats.clear()
            logs = {
                **logs,
                "anchor/eta": self._eta.eta,
                **{name: value.item() for name, value in merged.metrics().items()},
            }
        super().log(logs, start_time)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            (Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}" / CHECKPOINT_DONE).touch()
