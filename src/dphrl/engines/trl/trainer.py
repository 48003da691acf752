"""TRL's GRPO trainer, extended: `DPHConfig(GRPOConfig)` and `DPHTrainer(GRPOTrainer)`.

One trainer for every method: `grpo`, `dapo`, `rkl`, `dph`, `replay`. Wiring only; formulas live in the pure core, and
TRL's own loss is always reached through `super()`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trl import GRPOConfig

from dphrl.config.checks import LOG_U_CAP, PASS_K, RANK_PENALTY
from dphrl.config.root import ANCHOR_METHODS
from dphrl.engines.trl.anchor_term import AnchorForward
from dphrl.engines.trl.arguments import check_arguments
from dphrl.engines.trl.dynamic_sampling import DynamicSampling
from dphrl.engines.trl.reference_term import OnlineReference
from dphrl.engines.trl.refused_options import check_options
from dphrl.engines.trl.rollouts import Rollouts
from dphrl.engines.trl.step_guard import StepGuard
from dphrl.engines.trl.stopwatch import Throughput
from dphrl.errors import ConfigError
from dphrl.method.advantages import ADVANTAGES
from dphrl.method.penalties import definition

CHECKPOINT_DONE = "dphrl-complete"
"""A file in each whole checkpoint: a run that is killed while it saves must not resume from the torn one."""

BRING_REFERENCE = 1.0
"""`beta` of the definition form: not 0, so that TRL brings the reference's logps. Its KL term itself is off there."""


@dataclass
class DPHConfig(GRPOConfig):  # type: ignore[misc]
    """TRL's settings and ours; see `ObjectiveConfig` and `TrainConfig` for meaning, unit and range."""

    method: str = field(default="dph", metadata={"help": "grpo, dapo, rkl, dph or replay"})
    divergence: str = field(default="forward_kl", metadata={"help": "Generator function of the anchor penalty"})
    alpha: float = field(default=0.5, metadata={"help": "Order of the alpha-divergence, in (0, 1)"})
    eta: float = field(default=0.2, metadata={"help": "Weight of the anchor penalty, >= 0"})
    eta_schedule: str = field(default="constant", metadata={"help": "constant, linear, cosine or target"})
    eta_end: float | None = field(default=None, metadata={"help": "linear, cosine: eta of the last step; None = 0"})
    drift_target: float | None = field(default=None, metadata={"help": "target: anchor/forward_kl, nats a token"})
    eta_bounds: list[float] | None = field(default=None, metadata={"help": "target: None = [eta / 100, 100 eta]"})
    log_u_cap: float = field(default=LOG_U_CAP, metadata={"help": "Tangent continuation beyond it, in nats"})
    form: str = field(default="generator", metadata={"help": "dph: generator, or definition (fresh samples too)"})
    anchor_forward: str = field(default="separate", metadata={"help": "separate, or merged with the rollouts' rows"})
    anchor_estimator: str = field(default="sampled", metadata={"help": "dph: sampled, or topk over the vocabulary"})
    anchors_per_step: int = field(default=32, metadata={"help": "Anchors beside each optimiser step"})
    kl_estimator: str = field(default="k3", metadata={"help": "rkl: k3, k3_corrected, k2, k1_reward; weight `beta`"})
    advantage: str = field(default="group", metadata={"help": f"one of {', '.join(ADVANTAGES)}"})
    pass_k: int | None = field(default=None, metadata={"help": f"passk, pkpo: completions; None = {PASS_K}"})
    rank_penalty: float | None = field(default=None, metadata={"help": f"unlikeliness: None = {RANK_PENALTY}"})
    max_resample: int = field(default=3, metadata={"help": "dapo: rounds that replace groups without spread"})
    max_bad_steps: int = field(default=3, metadata={"help": "Steps in a row without a finite loss that end training"})

    beta: float = field(default=0.0, metadata={"help": "rkl: weight of the KL to the initial policy"})
    # TRL's, without its default: one that contradicts the method is refused, not overwritten.
    disable_dropout: bool | None = field(default=None, metadata={"help": "Always on beside anchors, else off"})
    use_bias_correction_kl: bool | None = field(default=None, metadata={"help": "What `kl_estimator` says"})

    def __post_init__(self) -> None:
        check_arguments(self)
        if self.method == "rkl" and self.beta <= 0:
            raise ConfigError(f"method rkl with beta={self.beta}; give beta > 0, or use method grpo")
        brings_reference = self.form == "definition" and definition(self.divergence).fresh is not None
        if self.method != "rkl" and self.beta not in ((0, BRING_REFERENCE) if brings_reference else (0,)):
            raise ConfigError(f"beta={self.beta} acts only with method rkl; method {self.method} needs beta=0")
        check_options(self)
        if brings_reference:
            self.beta = BRING_REFERENCE
        # Unless told otherwise TRL multiplies k3 by the differentiable ratio: its gradient becomes reverse KL's.
        self.use_bias_correction_kl = self.kl_estimator == "k3_corrected"
        # Reference logps are scored without dropout: with it, u would differ from 1 for the unchanged policy.
        self.disable_dropout = bool(self.disable_dropout) or self.method in ANCHOR_METHODS
        super().__post_init__()


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
