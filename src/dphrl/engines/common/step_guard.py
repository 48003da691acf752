"""What watches each optimiser step: a loss or gradient that is not finite changes nothing and is kept for replay; a
signal to stop, whichever process it reached, stops all of them at one step."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from dphrl.engines.common.bad_step import BadStep, MicroBatch, NamePrompts, keep_share
from dphrl.engines.common.processes import Processes
from dphrl.errors import TrainingError

_LOG = logging.getLogger(__name__)


class StepGuard:
    """Judges each step before the optimiser acts, with one exchange among processes and one read from the device.

    Args:
        folder: where bad steps are kept.
        most: bad steps in a row that end the training (count).
    """

    def __init__(self, folder: Path, most: int, processes: Processes) -> None:
        self._folder, self._most, self._processes = folder, most, processes
        self.losses: list[Tensor] = []
        """Losses of the micro-batches of the running optimiser step, on this process."""
        self.asked: Callable[[], int] = lambda: 0
        """Number of the signal that asked this process to stop, 0 = none; set by who catches signals."""
        self.report: Callable[[BadStep, str], None] = lambda bad, line: _LOG.warning(line)
        """Called on the main process for each bad step, with a line for the screen."""
        self.stopped = 0
        """Number of the signal after which all processes stop; a checkpoint of that step is saved."""
        self.in_a_row = 0
        """Number of bad steps in a row up to the last step; checkpoints store it."""
        self.applied_in_backward = False
        """Whether the optimiser has acted before a step can be judged, as with DeepSpeed."""
        self._failed = ""

    def begin(self) -> None:
        """Start a training."""
        self.losses.clear()
        self.stopped, self.in_a_row, self._failed = 0, 0, ""

    def judge(
        self,
        step: int,
        grad_norm: Tensor | float | None,
        batches: Callable[[int], Sequence[MicroBatch]],
        names: NamePrompts,
    ) -> bool:
        """Whether a step is bad, so that its gradients must be dropped; all processes agree.

        Args:
            step: from 1.
            grad_norm: over all processes, before clipping; None where there is none.
            batches: number of micro-batches of the step -> what they were given; asked for a bad step alone.
        Raises:
            TrainingError: the step is bad and applied already.
        """
        losses = torch.stack(self.losses)
        self.losses.clear()
        norm = torch.as_tensor(0.0 if grad_norm is None else grad_norm, device=losses.device)
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        bad = ~(losses.isfinite().all() & norm.isfinite())
        flags = torch.stack([bad.float(), torch.tensor(float(self.asked()), device=losses.device)])
        is_bad, stop = self._processes.gather(flags[None]).amax(0).tolist()
        self.stopped = int(stop)
        if not is_bad:
            self.in_a_row = 0
            return False
        self.in_a_row += 1
        self._keep(step, losses.tolist(), float(norm), batches(len(losses)), names)
        if self.applied_in_backward:
            raise TrainingError(
                f"the loss or gradient of step {step} was not finite, and DeepSpeed has applied it already; look at "
                f"{self._folder}, then run the same command: it goes on from the last checkpoint"
            )
        if self.in_a_row >= self._most:
            self._failed = _failure(step, self.in_a_row, self._folder)
            self.in_a_row = 0
        return True

    def check_weights(self, step: int, weights: Iterable[Tensor]) -> None:
        """Look at what the optimiser made of finite gradients; before anything of it is saved, on all processes.

        Args:
            step: from 1. weights: of the model; sharded ones count with their own part.
        Raises:
            TrainingError: a trained weight is not finite.
        """
        trained = [p.detach() for p in weights if p.requires_grad]
        own = [p.to_local() if hasattr(p, "to_local") else p for p in trained]
        # A sum is not finite where a part is not; it costs a read of the weights, which AdamW reads and writes.
        sums = [p.sum(dtype=torch.float32).to(self._processes.device) for p in own]
        bad = ~torch.stack([*sums, torch.zeros((), device=self._processes.device)]).isfinite().all()
        if self._processes.gather(bad.float()[None]).amax() > 0:
            raise TrainingError(
                f"optimiser step {step} left weights that are not finite, though its loss and gradient were: the "
                "numbers are too large for their type. Train float32 weights (model.dtype float32 or bfloat16), lower "
                "train.learning_rate (with --allow-change); the same command goes on from the last checkpoint"
            )

    @property
    def ends_training(self) -> bool:
        """Whether training ends with this step, which must then be saved."""
        return bool(self.stopped or self._failed)

    def raise_failure(self) -> None:
        """End a training that failed once its checkpoint is there: it holds the weights of before its bad steps."""
        if self._failed:
            raise TrainingError(self._failed)

    def _keep(
        self, step: int, losses: list[float], norm: float, batches: Sequence[MicroBatch], names: NamePrompts
    ) -> None:
        share = keep_share(self._folder, step, self._processes.rank, losses, batches, names)
        bad = BadStep(step, norm, self.in_a_row, tuple(self._processes.gather_objects([share])))
        if self._processes.is_main:
            bad.write(self._folder)
            self.report(bad, bad.line(self._folder))


def _failure(step: int, in_a_row: int, folder: Path) -> str:
    """Why the training ends."""
    files = ", ".join(f"step-{n}.json" for n in range(step - in_a_row + 1, step + 1))
    return (
        f"loss or gradient of {in_a_row} optimiser steps in a row (train.max_bad_steps) was not finite, so training "
        f"ends with the weights it had before them; {folder} holds their batches ({files}). Look at the prompts and "
        "anchors they name, or lower train.learning_rate (with --allow-change); the same command goes on behind them, "
        f"from checkpoint-{step}"
    )
