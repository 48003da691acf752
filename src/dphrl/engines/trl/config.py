"""`DPHConfig(GRPOConfig)`: TRL's settings and ours."""

from __future__ import annotations

from dataclasses import dataclass, field

from trl import GRPOConfig

from dphrl.config.checks import LOG_U_CAP, PASS_K, RANK_PENALTY
from dphrl.config.root import ANCHOR_METHODS
from dphrl.engines.trl.arguments import check_arguments
from dphrl.engines.trl.refused_options import check_options
from dphrl.errors import ConfigError
from dphrl.method.advantages import ADVANTAGES
from dphrl.method.definition import definition

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
