"""Overrides methods of TRL's trainer and reads its private attributes, with `resumable_trainer` alone; AGENTS.md lists
them all.

Each override says what it relies on. The work is done by the plain objects of `engines.common`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedType
from torch import Tensor

from dphrl.engines.common.anchor_term import AnchorBatch, AnchorLogps, AnchorRows, anchor_term, check_reference
from dphrl.engines.common.bad_step import BAD_STEPS, MicroBatch, prompt_names
from dphrl.engines.common.eta_control import EtaCourse, EtaSettings
from dphrl.engines.common.forward.padded_rows import PaddedRows, Scores
from dphrl.engines.common.forward.row_scorer import RowScorer
from dphrl.engines.common.generation.dynamic_sampling import Batch, fresh_prompts, replace_flat_groups
from dphrl.engines.common.generation.policy_tokens import policy_mask
from dphrl.engines.common.generation.rollout_rewards import chosen_advantage, group_advantages, weighted_rewards
from dphrl.engines.common.generation.rollouts import rollouts
from dphrl.engines.common.generation.whole_groups import micro_batches
from dphrl.engines.common.reference_term import centred_k1, reference_term, token_mean
from dphrl.engines.common.step_guard import StepGuard
from dphrl.engines.common.stopwatch import Stopwatch, throughput
from dphrl.engines.trl.accelerated import processes_of, surroundings_of
from dphrl.engines.trl.callbacks import BeforeFirstStep, BeforeTraining, EtaControl, GuardSteps, LossOfPrecision, Notes
from dphrl.engines.trl.drawing_model import drawing_model, is_sharded
from dphrl.engines.trl.fsdp_precision import round_products_alone
from dphrl.engines.trl.refused_options import check_anchor_forward
from dphrl.engines.trl.resumable_trainer import ResumableTrainer, tensors_of
from dphrl.models.positions import needs_positions
from dphrl.types import Anchor, Prompt


class DPHTrainer(ResumableTrainer):
    """GRPO, DAPO, reverse-KL, DPH-RL or replay on one loop: L = L_exp + eta * sum f(log u) / N over the step's anchors.

    Args:
        anchors: for `dph` and `replay`, at least one, scored by the initial policy; read when a step needs them
            (`anchors.open_store`).
        encode: prompt -> token ids; None leaves tokenization to TRL. The stages pass `Policy.encode`, so that training
            sees the very tokens that were pre-sampled.
        The rest: as `trl.GRPOTrainer`.
    Raises:
        EmptyAnchorStore: `dph` or `replay` without anchors. ConfigError: anchors for a method that has no use for them.
        AnchorError: from `train`, before the first step: the anchors are not of the model that is trained.
    Source: DPH-RL, arXiv:2509.07430.
    """

    beta: float
    """TRL's weight of the KL; anything but 0 makes it load the reference model and score each generation with it."""

    def __init__(
        self,
        *args: Any,
        anchors: Sequence[Anchor] | None = None,
        encode: Callable[[Prompt], list[int]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._encode = encode
        self._processes = processes_of(self.accelerator)
        self._stopwatch = Stopwatch(self.accelerator.device)
        self._reference = reference_term(self.args)
        self._advantage = chosen_advantage(self.args)
        self._eta = EtaCourse(EtaSettings.of(self.args))
        self._anchors = anchor_term(self.args, anchors, self._processes, self.processing_class.pad_token_id)
        self.step_guard = StepGuard(Path(self.args.output_dir) / BAD_STEPS, self.args.max_bad_steps, self._processes)
        self.step_guard.applied_in_backward = self.accelerator.distributed_type == DistributedType.DEEPSPEED
        self.report_log_u: Callable[[float], None] = lambda log_u: None
        """Told of the anchors' mean |log u| before the first step (nats), on every process."""
        self.notes: list[str] = []
        self.report_note: Callable[[str], None] = lambda note: warnings.warn(note, stacklevel=2)
        """Told, once each, what a user should know of the model and the options; on the main process."""
        self.add_callback(LossOfPrecision(lambda text: self.report_note(text)))  # before a forward gathers weights
        self.scorer = self._prepared_scorer()
        self.add_callback(BeforeTraining(self._look_at_sharing))
        self.add_callback(Notes(self.notes, lambda note: self.report_note(note)))
        self._rollouts = rollouts(
            self.args,
            self.model,
            {} if self.use_vllm else self.generation_kwargs,
            self._processes,
            sharded=is_sharded(self.accelerator, fsdp=self.is_fsdp_enabled),
            tools=bool(self.tools),
            tell=self.notes.append,
        )
        if self._anchors is not None:
            self._check_anchor_forward()
            self.add_callback(BeforeFirstStep(self.check_anchors))
            self.add_callback(EtaControl(self._eta, self._anchors.step_drift))
        self.add_callback(GuardSteps(self.step_guard, self._is_bad))
        self._grad_norm: Any = None  # of the running optimiser step, before clipping
        self._rewards: Tensor | None = None  # of the last generation, one column for each reward function

    def create_accelerator_and_postprocess(self) -> None:
        """transformers: makes `accelerator`, before any model is wrapped."""
        super().create_accelerator_and_postprocess()
        if self.is_fsdp_enabled:
            round_products_alone(self.accelerator.state.fsdp_plugin)

    def _prepared_scorer(self) -> RowScorer:
        """What scores the policy and, where it is a model of its own, the reference."""
        around, positions = surroundings_of(self.accelerator, self.args), needs_positions(self.model)
        scorer = RowScorer(self.args, around, gives_positions=positions, tell=self.notes.append)
        if self.aux_loss_enabled:
            scorer.sharing.leave("the mixture's balancing loss counts a prompt once for each of its completions")
        for model in self._scored_models():
            scorer.prepare(model, self.temperature)
        return scorer

    def _scored_models(self) -> list[Any]:
        return [model for model in (self.model, self.ref_model) if model is not None]

    def _check_anchor_forward(self) -> None:
        """Refuse what the anchors' forward, of their own or joint, does not go together with."""
        assert self._anchors is not None
        check_anchor_forward(
            self.args,
            self._processes.count,
            fsdp=self.is_fsdp_enabled,
            joint=self._anchors_go_along(),
            at_once=self._anchors.at_once(self.args.gradient_accumulation_steps),
            aux_loss=self.aux_loss_enabled,
        )

    def _anchors_go_along(self, *, pull: bool = True) -> bool:
        assert self._anchors is not None
        return self.scorer.anchors_go_along(self._anchors, self.args.gradient_accumulation_steps, pull=pull)

    def _bundled(self) -> bool:
        """Whether anchors of one prompt stay in one micro-batch: where it is read once, and another may have none."""
        return self.scorer.sharing.active and self._anchors_go_along()

    # -- rollouts ------------------------------------------------------------------------------------------------------

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[Any, ...]:
        """TRL: returns (token ids, images, multimodal fields), and takes each prompt as the dataset has it."""
        if self._encode is None:
            return super()._tokenize_prompts(prompts)  # type: ignore[no-any-return]
        records = [Prompt("", p if isinstance(p, str) else tuple(p)) for p in prompts]
        return [self._encode(record) for record in records], None, {}

    def _generate(self, *args: Any, **kwargs: Any) -> Any:
        """TRL: draws a whole generation; entry 1 of what it returns holds the completions' token ids."""
        # Around a whole generation each weight is cast once; an engine in this process has a precision of its own.
        computing = nullcontext() if self.args.use_vllm else self.accelerator.autocast()
        with self._stopwatch.on_host("generation"), computing:
            output = super()._generate(*args, **kwargs)
        self._stopwatch.drawn += sum(len(ids) for ids in output[1])
        return output

    def _generate_single_turn(self, prompt_ids: list[list[int]], images: Any, *args: Any, **kwargs: Any) -> Any:
        """TRL: token ids of each completion's prompt -> (the completions' own, their log-probabilities or None)."""
        if self._rollouts is None or images is not None:
            return super()._generate_single_turn(prompt_ids, images, *args, **kwargs)
        step, training = int(self.state.global_step), self.model.training
        with drawing_model(self.model_wrapped, self.accelerator, self.args) as model:
            return self._rollouts.draw(model, prompt_ids, step=step, training=training), None

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Tensor:
        """TRL: returns rewards of all processes, a column for each function, nan where it gave None."""
        with self._stopwatch.on_host("verification"):
            self._rewards = super()._calculate_rewards(*args, **kwargs)
        return self._rewards

    def _generate_and_score_completions(self, inputs: list[Batch]) -> Batch:
        """TRL: rows of the dataset -> this process's padded generation with its advantages; in evaluation too."""
        batch = self._scored_generation(inputs)
        if not self.model.training or self.args.method != "dapo":
            return batch
        size, most, pad_id = self.num_generations, self.args.max_resample, self.processing_class.pad_token_id
        resampled = replace_flat_groups(
            batch, self._fresh_generation, size=size, most=most, pad_id=pad_id, processes=self._processes
        )
        self._metrics["train"]["dapo/resample_rounds"].append(float(resampled.rounds))
        self._metrics["train"]["dapo/flat_groups_left"].append(resampled.flat_left)
        return resampled.batch

    def _fresh_generation(self, groups: int, attempt: int) -> Batch:
        place = (self.args.seed, self.state.global_step, attempt, self._processes.rank)
        picked = fresh_prompts(groups, len(self.train_dataset), place)
        return self._scored_generation([self.train_dataset[i] for i in picked for _ in range(self.num_generations)])

    def _scored_generation(self, inputs: list[Batch]) -> Batch:
        """TRL's generation with each completion's reward beside it, and the advantages that were asked for."""
        batch: Batch = super()._generate_and_score_completions(inputs)
        if not self.model.training:
            return batch
        assert self._rewards is not None
        rewards, mask = weighted_rewards(self._rewards, self.reward_weights), policy_mask(batch)
        old_logps, size = partial(self._old_logps, batch), self.num_generations
        batch["rewards"] = self._processes.own_rows(rewards, len(inputs))
        if self._advantage is not None:
            chosen = group_advantages(self._advantage, rewards, old_logps, mask, size, self._processes)
            batch["advantages"] = chosen
        if self._reference is not None and self._reference.as_reward:
            kl, mean = centred_k1(old_logps(), batch["ref_per_token_logps"], mask, size, self._processes)
            batch["advantages"] = batch["advantages"] - self.beta * kl
            self._metrics["train"][self._reference.metric].append(mean)
        return batch

    def _old_logps(self, batch: Batch) -> Tensor:
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

    # -- the loss of a micro-batch -------------------------------------------------------------------------------------

    def _prepare_inputs(self, generation_batch: Any) -> Batch:
        """TRL: returns the micro-batch at its place, out of a buffer that is used again; hence the copy."""
        inputs = self._micro_batch(generation_batch)
        if self._anchors is not None and self.model.training:
            micros = self.current_gradient_accumulation_steps
            batch = self._anchors.next_batch(self.state.global_step, micros, bundled=self._bundled())
            inputs = {**inputs, "anchors": batch}
        return inputs

    def _micro_batch(self, generation: Any) -> Batch:
        """TRL's, or where prompts are shared one of whole groups: TRL shuffles completions."""
        if not (self.model.training and self.scorer.sharing.active) or {"image", "images"} & generation[0].keys():
            batch: Batch = super()._prepare_inputs(generation)
            return batch
        if self._step % self._generation_steps() == 0 or self._buffered_inputs is None:
            drawn = self._generate_and_score_completions(generation)
            first = self._processes.rank * len(drawn["advantages"])
            self._buffered_inputs = micro_batches(
                drawn, self.args.steps_per_generation, group_size=self.num_generations, first=first
            )
        buffered: Batch = self._buffered_inputs[self._step % self.args.steps_per_generation]
        return buffered

    def compute_loss(self, model: Any, inputs: Batch, *args: Any, **kwargs: Any) -> Tensor:
        """TRL: a micro-batch's share of the loss, divided already; it scores through the method below, once.

        Terms act in this order: the anchors' forward, where it is separate; TRL's loss, with the anchors' rows in its
        forward where they are merged; eta times the anchors' penalty; the term on the reference. Separate anchors go
        first since backward starts with what was computed last: the exploration forward, the larger one, has given up
        its activations before the anchors' gradients are there.
        """
        batch: AnchorBatch | None = inputs.get("anchors")
        rollouts = {name: value for name, value in inputs.items() if name != "anchors"}
        eta, penalty = self._eta.now, None
        if self.model.training:
            self._stopwatch.trained += inputs["prompt_mask"].sum() + inputs["completion_mask"].sum()
        if self._anchors is not None and batch is not None:
            if not self._anchors_go_along(pull=self._anchors.pulls(eta)):
                penalty = self._anchor_penalty(model, batch)
            elif batch.anchors:
                self.scorer.add(self._anchors.rows(batch.anchors))
        beta = self.beta
        if self._reference is None or not self._reference.by_engine:
            self.beta = 0.0  # or TRL would add k3; it shall only have brought the reference's log-probabilities
        try:
            loss: Tensor = super().compute_loss(model, rollouts, *args, **kwargs)
        finally:
            self.beta = beta
        if batch is not None and penalty is None:
            penalty = self._anchor_penalty(model, batch)
        if penalty is not None and eta != 0:
            loss = loss + eta * penalty
        if self._reference is not None and self._reference.in_loss is not None:
            term = self._reference_loss(inputs)
            weight = self.beta if self.args.method == "rkl" else eta
            loss = loss if weight == 0 else loss + weight * term
        self.scorer.logps = None
        return loss

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Tensor, attention_mask: Tensor, logits_to_keep: int, **kwargs: Any
    ) -> tuple[Any, ...]:
        """TRL: (log-probabilities, entropies, balancing loss) of padded rows; the only way by which it scores."""
        beside = {name: value for name, value in kwargs.items() if name != "batch_size"}
        return self.scorer.rows(
            model,
            PaddedRows(input_ids, attention_mask, logits_to_keep),
            partial(self._score_padded, **kwargs),
            shared=self.scorer.shares(model, self.temperature, beside),
            batch_size=kwargs.get("batch_size"),
            entropy=kwargs.get("compute_entropy", False),
            beside=beside,
        )

    def _score_padded(self, called: Any, rows: PaddedRows, **kwargs: Any) -> Scores:
        """By TRL, with `called` in the model's place."""
        ids, mask = rows.input_ids_BL, rows.attention_mask_BL
        scores: Scores = super()._get_per_token_logps_and_entropies(called, ids, mask, rows.time, **kwargs)
        return scores

    def _look_at_sharing(self) -> None:
        """Before anything is drawn, so that a run that goes on shuffles as one that was never stopped."""
        training = self.model.training
        self.model.train()
        for model in self._scored_models():
            self.scorer.shares(model, self.temperature, {})
        self.model.train(training)
        if self._anchors is not None:
            self._anchors.begin()
            self._check_anchor_forward()

    def _anchor_penalty(self, model: Any, batch: AnchorBatch) -> Tensor:
        assert self._anchors is not None
        with self._stopwatch.on_device("anchor"):
            penalty = self._anchors.penalty(batch, partial(self._anchor_logps, model), self._eta.now)
        self._stopwatch.anchors += sum(len(a.prompt_ids) + len(a.completion_ids) for a in batch.anchors)
        return penalty

    def _anchor_logps(self, model: Any, rows: AnchorRows) -> AnchorLogps:
        return self.scorer.anchors(
            model, rows, self._score_padded, shared=self.scorer.shares(model, self.temperature, {})
        )

    def _reference_loss(self, inputs: Batch) -> Tensor:
        """With the denominator of TRL's token-mean losses: the completion tokens of the optimiser step."""
        assert self._reference is not None and self._reference.in_loss is not None and self.scorer.logps is not None
        steps = self.current_gradient_accumulation_steps / self.args.steps_per_generation
        tokens = inputs["num_items_in_batch"].clamp(min=1.0) / self._processes.count * steps
        terms = self._reference.in_loss(self.scorer.logps, inputs["ref_per_token_logps"])
        loss, mean = token_mean(terms, policy_mask(inputs), tokens)
        self._metrics["train"][self._reference.metric].append(mean)
        return loss

    def check_anchors(self) -> None:
        """Refuse anchors that are not of the model that is trained; `train` asks before its first step, all processes.

        Raises:
            AnchorError: mean |log u| is more than rounding explains.
        """
        log_u = self.initial_log_u()
        precision = "bfloat16" if self.args.bf16 else str(self.model.dtype).removeprefix("torch.")
        check_reference(log_u, "float16" if self.args.fp16 else precision, self.initial_log_u)
        self.report_log_u(log_u)

    def initial_log_u(self) -> float:
        """Mean |log u| (nats) of up to `CHECKED_ANCHORS` under the policy as it stands; about 0 before the first step.

        They are spread over the whole store and read in train mode, where a model that adds noise of its own shows it.
        """
        assert self._anchors is not None
        training = self.model.training
        self.model.train()
        try:
            forward = partial(self._anchor_logps, self.model)
            return self._anchors.mean_abs_log_u(forward, self.args.per_device_train_batch_size)
        finally:
            self.model.train(training)

    # -- optimiser steps -----------------------------------------------------------------------------------------------

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """transformers: forward and backward of one micro-batch, whose loss it returns; TRL counts it in `_step`."""
        self._stopwatch.start()
        loss: Tensor = super().training_step(*args, **kwargs)
        self.step_guard.losses.append(loss)
        return loss

    def _get_grad_norm(self, *args: Any, **kwargs: Any) -> Any:
        """transformers: asked once an optimiser step, behind clipping and before `on_pre_optimizer_step`."""
        self._grad_norm = norm = super()._get_grad_norm(*args, **kwargs)
        return norm

    def _is_bad(self, step: int) -> bool:
        names = partial(prompt_names, self.train_dataset, lambda prompt: self._tokenize_prompts([prompt])[0][0])
        return self.step_guard.judge(step, self._grad_norm, self._micro_batches, names)

    def _micro_batches(self, count: int) -> list[MicroBatch]:
        """What the last `count` micro-batches were given: TRL has counted them in `_step` and keeps its buffer."""
        first, step = self._step - count, int(self.state.global_step)
        buffered = [self._buffered_inputs[(first + m) % self.args.steps_per_generation] for m in range(count)]
        anchors = [self._anchors_of(step, m, count) for m in range(count)]
        return [MicroBatch(tensors_of(batch), chosen) for batch, chosen in zip(buffered, anchors, strict=True)]

    def _anchors_of(self, step: int, micro: int, micros: int) -> tuple[Anchor, ...]:
        term = self._anchors
        return () if term is None else term.batch(step, micro, micros, bundled=self._bundled()).anchors

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """TRL: adds the means of its `_metrics` behind what it is given; transformers' own lines have a loss."""
        if self._stopwatch.running and "loss" in logs:
            logs = {**logs, **throughput(self._processes.gather(self._stopwatch.read()[None]))}
        metrics = {} if self._anchors is None else self._anchors.take_metrics()
        if metrics:
            logs = {**logs, "anchor/eta": self._eta.now, **metrics}
        super().log(logs, start_time)
