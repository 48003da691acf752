"""What watches each optimiser step: a loss or gradient that is not finite changes nothing and is kept for replay; a
signal to stop, whichever rank it reached, stops all of them at one step."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedType, gather_object
from safetensors.torch import save_file
from torch import Tensor
from transformers import TrainerCallback

from dphrl.engines.trl.exact_resume import ExactResume
from dphrl.errors import TrainingError, listed
from dphrl.files import write_json
from dphrl.method.anchor_order import share, step_anchors
from dphrl.types import Anchor

_LOG = logging.getLogger(__name__)

NAMED = 8
"""Prompts and anchors that the line about a bad step names; its file names all."""

BAD_STEPS = "bad-steps"
"""Folder in the trainer's output that keeps their batches."""


class StepGuard(ExactResume):
    """Trainer whose steps are watched by `StepWatch`; the numbers of a step that is finite stay as they are."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.watch = StepWatch(self)
        self.add_callback(self.watch)

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        loss: Tensor = super().training_step(*args, **kwargs)
        self.watch.losses.append(loss)
        return loss

    def _get_grad_norm(self, *args: Any, **kwargs: Any) -> Any:
        self.watch.grad_norm = norm = super()._get_grad_norm(*args, **kwargs)
        return norm

    def _facts(self) -> dict[str, int]:
        return {**super()._facts(), "bad_in_a_row": self.watch.in_a_row}

    def _take_facts(self, facts: Mapping[str, int]) -> None:
        super()._take_facts(facts)
        self.watch.in_a_row = facts["bad_in_a_row"]


class StepWatch(TrainerCallback):  # type: ignore[misc]
    """Judges each step before the optimiser acts, with one exchange among ranks and one read from the device.

    Args:
        trainer: whose steps; `trainer.args.max_bad_steps` in a row end the training.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self.losses: list[Tensor] = []
        """Of the micro-batches of the running optimiser step, on this rank."""
        self.grad_norm: Any = None
        self.asked: Callable[[], int] = lambda: 0
        """Number of the signal that asked this rank to stop, 0 = none; set by who catches signals."""
        self.report: Callable[[int, str, dict[str, Any]], None] = lambda step, text, facts: _LOG.warning(text)
        """Told of a bad step by the main process: step, a line, the facts of its file."""
        self.stopped = 0
        """Number of the signal after which all ranks stop; a checkpoint of that step is saved."""
        self.in_a_row = 0
        """Bad steps up to the last one; a checkpoint carries it."""
        self._failed = ""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.losses.clear()
        self.stopped, self.in_a_row, self._failed = 0, 0, ""

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        trainer = self._trainer
        losses = torch.stack(self.losses)
        self.losses.clear()
        norm = torch.as_tensor(0.0 if self.grad_norm is None else self.grad_norm, device=losses.device)
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        bad = ~(losses.isfinite().all() & norm.isfinite())
        flags = torch.stack([bad.float(), torch.tensor(float(self.asked()), device=losses.device)])
        is_bad, stop = trainer.accelerator.gather(flags[None]).amax(0).tolist()
        self.stopped = int(stop)
        if not is_bad:
            self.in_a_row = 0
            return
        self.in_a_row += 1
        facts = keep_bad_step(trainer, losses, float(norm), self.in_a_row)
        folder = Path(trainer.args.output_dir) / BAD_STEPS
        if trainer.accelerator.is_main_process:
            self.report(facts["step"], bad_step_line(facts, folder), facts)
        if trainer.accelerator.distributed_type == DistributedType.DEEPSPEED:  # it steps within backward
            raise TrainingError(
                f"the loss or gradient of step {facts['step']} was not finite, and DeepSpeed has applied it already; "
                f"look at {folder}, then run the same command: it goes on from the last checkpoint"
            )
        trainer.model.zero_grad(set_to_none=True)  # an optimiser passes over parameters without a gradient
        if self.in_a_row >= args.max_bad_steps:
            self._failed = failed_text(facts["step"], self.in_a_row, folder)
            self.in_a_row = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.stopped or self._failed:
            control.should_save = control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ends a training that failed once its checkpoint is there: those are the weights of its bad steps."""
        if self._failed:
            raise TrainingError(self._failed)


def keep_bad_step(trainer: Any, losses: Tensor, grad_norm: float, in_a_row: int) -> dict[str, Any]:
    """Write bad-steps/step-N.json and each rank's step-N-rank-R.safetensors; called by all ranks.

    Args:
        trainer: a `DPHTrainer` whose gradients of the step are there and not yet applied.
        losses: of this rank's micro-batches.
        grad_norm: over all ranks, before clipping.
        in_a_row: bad steps that end with this one (count).
    Returns:
        What the JSON file holds: step (from 1, as metrics.jsonl counts), and of each rank its micro-batches with loss,
        ids of their prompts and their anchors.
    """
    folder, step = Path(trainer.args.output_dir) / BAD_STEPS, int(trainer.state.global_step) + 1
    rank, micros = trainer.accelerator.process_index, len(losses)
    place = trainer._step - micros  # TRL has counted them already
    batches = [trainer._buffered_inputs[(place + m) % trainer.args.steps_per_generation] for m in range(micros)]
    tensors = {f"micro-{m}/{k}": v for m, b in enumerate(batches) for k, v in b.items() if isinstance(v, Tensor)}
    tensors["rng_state"] = torch.random.get_rng_state()
    folder.mkdir(parents=True, exist_ok=True)
    name = f"step-{step}-rank-{rank}.safetensors"
    save_file({k: v.detach().cpu().clone() for k, v in tensors.items()}, folder / name)
    found = [(_prompt_tokens(batch), _anchors_of(trainer, m, micros)) for m, batch in enumerate(batches)]
    ids = _ids_of(trainer, {tokens for prompts, _ in found for tokens in prompts})
    mine = {
        "rank": rank,
        "file": name,
        "micro_batches": [
            {
                "loss": repr(loss),  # JSON has no nan
                "prompts": sorted({i for tokens in prompts for i in ids[tokens]}),
                "anchors": [_record(a) for a in anchors],
            }
            for loss, (prompts, anchors) in zip(losses.tolist(), found, strict=True)
        ],
    }
    facts = {"step": step, "grad_norm": repr(grad_norm), "in_a_row": in_a_row, "ranks": gather_object([mine])}
    if trainer.accelerator.is_main_process:
        write_json(folder / f"step-{step}.json", facts)
    return facts


def bad_step_line(facts: dict[str, Any], folder: Path) -> str:
    """One line for the screen: the micro-batches whose own loss is not finite are named, or else all."""
    micro = [m for rank in facts["ranks"] for m in rank["micro_batches"]]
    guilty = [m for m in micro if m["loss"] in ("nan", "inf", "-inf")] or micro
    prompts = sorted({i for m in guilty for i in m["prompts"]})
    anchors = sorted({f"{a['task']}/{a['prompt_id']}/{a['draw']}" for m in guilty for a in m["anchors"]})
    beside = f"; anchors {listed(anchors, NAMED)}" if anchors else ""
    step, losses = facts["step"], ", ".join(sorted({m["loss"] for m in guilty}))
    return (
        f"step {step} is left out: loss {losses}, gradient norm {facts['grad_norm']}; "
        f"prompts {listed(prompts, NAMED)}{beside}; kept in {folder / f'step-{step}.json'}"
    )


def failed_text(step: int, in_a_row: int, folder: Path) -> str:
    """Why the training ends."""
    files = ", ".join(f"step-{n}.json" for n in range(step - in_a_row + 1, step + 1))
    return (
        f"loss or gradient of {in_a_row} optimiser steps in a row (train.max_bad_steps) was not finite, so training "
        f"ends with the weights it had before them; {folder} holds their batches ({files}). Look at the prompts and "
        "anchors they name, or lower train.learning_rate (with --allow-change); the same command goes on behind them, "
        f"from checkpoint-{step}"
    )


def _prompt_tokens(batch: dict[str, Any]) -> list[tuple[int, ...]]:
    rows = zip(batch["prompt_ids"].tolist(), batch["prompt_mask"].tolist(), strict=True)
    return [tuple(t for t, seen in zip(ids, mask, strict=True) if seen) for ids, mask in rows]


def _ids_of(trainer: Any, wanted: set[tuple[int, ...]]) -> dict[tuple[int, ...], list[str]]:
    """Token ids of a prompt -> ids of the prompts that are written so; batches hold tokens only, so that a step that is
    finite carries nothing more. A dataset without `prompt_id` is named by its rows."""
    found: dict[tuple[int, ...], list[str]] = {tokens: [] for tokens in wanted}
    for number, row in enumerate(trainer.train_dataset):
        tokens = tuple(trainer._tokenize_prompts([row["prompt"]])[0][0])
        if tokens in found:
            found[tokens].append(str(row.get("prompt_id", number)))
    return found


def _anchors_of(trainer: Any, micro: int, micros: int) -> list[Anchor]:
    """The anchors of a micro-batch of the running step on this rank; they follow from seed and step."""
    if not trainer._anchors:
        return []
    args, accelerator = trainer.args, trainer.accelerator
    step = step_anchors(
        len(trainer._anchors), args.anchors_per_step, seed=args.seed, step=int(trainer.state.global_step)
    )
    mine = share(step, micro=micro, micros=micros, rank=accelerator.process_index, ranks=int(accelerator.num_processes))
    return [trainer._anchors[int(i)] for i in mine]


def _record(anchor: Anchor) -> dict[str, Any]:
    names = ("task", "prompt_id", "draw", "prompt_ids", "completion_ids", "ref_logps")
    return {name: getattr(anchor, name) for name in names}
