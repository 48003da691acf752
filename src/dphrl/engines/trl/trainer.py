"""TRL's GRPO trainer, extended: `DPHTrainer(GRPOTrainer)`.

One trainer for every method: `grpo`, `dapo`, `rkl`, `dph`, `replay`. Wiring only; formulas live in the pure core, and
TRL's own loss is always reached through `super()`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dphrl.engines.trl.anchor_term import AnchorForward
from dphrl.engines.trl.dynamic_sampling import DynamicSampling
from dphrl.engines.trl.reference_term import OnlineReference
from dphrl.engines.trl.rollouts import Rollouts
from dphrl.engines.trl.step_guard import StepGuard
from dphrl.engines.trl.stopwatch import Throughput
from dphrl.runs.checkpoints import CHECKPOINT_DONE


class DPHTrainer(Throughput, StepGuard, DynamicSampling, OnlineReference, AnchorForward, Rollouts):
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

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            (Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}" / CHECKPOINT_DONE).touch()
