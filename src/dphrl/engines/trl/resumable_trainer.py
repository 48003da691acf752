"""TRL's trainer with checkpoints, at any optimiser step, from which a run goes on as one that was never stopped."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel
from trl import GRPOTrainer

from dphrl.engines.common.anchor_term import AnchorTerm
from dphrl.engines.common.checkpoint_extras import GivenSettings, InFlight, pass_over
from dphrl.engines.common.processes import Processes
from dphrl.engines.common.step_guard import StepGuard
from dphrl.engines.common.weights_check import check_weights, weight_digests
from dphrl.runs.checkpoints import Seal, checksums, remove_old_checkpoints


class ResumableTrainer(GRPOTrainer):  # type: ignore[misc]
    """Saves and loads what transformers and TRL leave out; `DPHTrainer` makes the attributes."""

    step_guard: StepGuard
    _processes: Processes
    _anchors: AnchorTerm | None
    _buffered_inputs: Any
    _sampler: Any = None

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """transformers: writes output_dir/checkpoint-STEP; when it returns, this process's files are whole.

        It would also remove older ones, by their times and before this one is marked whole.
        """
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        self.accelerator.wait_for_everyone()
        folder = Path(self.args.output_dir)
        self._seal(folder / f"checkpoint-{self.state.global_step}")
        if self._processes.is_main and limit and limit > 0:
            best = self.state.best_model_checkpoint
            remove_old_checkpoints(folder, limit, also=Path(best) if best else None)

    def _seal(self, checkpoint: Path) -> None:
        """Write down what the checkpoint holds, each process having read a share of its files; marks it whole."""
        mine = self._processes
        compared = not self.is_deepspeed_enabled and (mine.is_main or self.is_fsdp_enabled)
        own = weight_digests(self.accelerator.unwrap_model(self.model)) if compared else {}
        files = checksums(checkpoint, rank=mine.rank, count=mine.count)
        shares = mine.gather_objects([(files, own)])
        if mine.is_main:
            whole = {name: written for part, _ in shares for name, written in part.items()}
            Seal(dict(sorted(whole.items())), [weights for _, weights in shares if weights]).write(checkpoint)
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """transformers: reads the weights, passing over names that the model in memory does not have.

        Those of mixtures of experts and of GPT-NeoX are saved under other names than in memory; `from_pretrained`
        knows both.
        """
        if model is None and isinstance(self.model, PreTrainedModel):
            as_saved = type(self.model).from_pretrained(
                resume_from_checkpoint, config=deepcopy(self.model.config), dtype=self.model.dtype
            )
            self.model.load_state_dict(as_saved.state_dict())
            del as_saved
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        checkpoint, mine = Path(resume_from_checkpoint), self._processes
        found = weight_digests(self.accelerator.unwrap_model(self.model))
        part = (mine.rank, mine.count) if self.is_fsdp_enabled else (0, 1)
        check_weights(found, Seal.read(checkpoint).weights, checkpoint, part)

    def _save_rng_state(self, output_dir: str) -> None:
        """transformers: writes into the checkpoint on every process, at a step's end."""
        super()._save_rng_state(output_dir)
        micro_step = self._step % self._generation_steps()
        InFlight(
            loss=self._tr_loss,
            last_logged=self._globalstep_last_logged,
            metrics=self._metrics["train"],
            anchor_stats=() if self._anchors is None else self._anchors.stats,
            batches=[tensors_of(batch) for batch in self._buffered_inputs] if micro_step else [],
            micro_step=micro_step,
            bad_in_a_row=self.step_guard.in_a_row,
        ).save(output_dir, self._processes)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """transformers: called when the data before the checkpoint's step are skipped, the last before training."""
        super()._load_rng_state(checkpoint)
        if checkpoint is None:
            return
        micro_steps = self.state.global_step * self.args.gradient_accumulation_steps
        sizes = {"micro_batches": self.args.steps_per_generation, "rows": self.args.per_device_train_batch_size}
        within = micro_steps % self._generation_steps() != 0
        held = InFlight.load(checkpoint, self._processes, **sizes, within=within)
        if held is None:
            return
        self._tr_loss, self._globalstep_last_logged, self._step = held.loss, held.last_logged, held.micro_step
        self._metrics["train"].update(held.metrics)
        self.step_guard.in_a_row = held.bad_in_a_row
        if self._anchors is not None:
            self._anchors.stats = list(held.anchor_stats)
        if held.micro_step:
            self._buffered_inputs = [dict(batch) for batch in held.batches]

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """transformers: loads settings with the state, after `state`; given ones win. TRL's sampler starts anew."""
        given = GivenSettings(self.optimizer, self.lr_scheduler)
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self.state.compute_steps(self.args, self.state.max_steps)  # log_every, save_every
            given.put_back(self.optimizer, self.lr_scheduler)
            pass_over(self._sampler, int(self.state.epoch))

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        """TRL: a sampler that draws one permutation of the prompts a pass, with a generator of its own."""
        self._sampler = super()._get_train_sampler(*args, **kwargs)
        return self._sampler

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
        """transformers: asked for each optimiser step's data; a run at its last step would train one step too many."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return [], None
        batches: tuple[list[Any], Any] = super().get_batch_samples(*args, **kwargs)
        return batches

    def _generation_steps(self) -> int:
        """Micro-batches that one generation is used for."""
        return int(self.args.steps_per_generation * self.num_iterations)


def tensors_of(batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """Those entries of a batch that are tensors."""
    return {name: value for name, value in batch.items() if isinstance(value, Tensor)}
