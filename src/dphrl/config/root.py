"""Every setting, once: meaning, unit, range and default stand beside each other, and `--help` prints them from here.

Types and ranges are checked by pydantic when a config is built, from Python or from YAML alike; reading YAML, dotted
overrides and the texts of errors live in `config_io`.
"""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from dphrl.config.checks import LOG_U_CAP, check_advantage, check_anchors, check_eta, check_form
from dphrl.config.sources import STRICT, AnchorConfig, LoraConfig, ModelConfig, SamplingConfig, TaskConfig, about

Method = Literal["grpo", "dapo", "rkl", "dph", "replay"]
ANCHOR_METHODS: tuple[Method, ...] = ("dph", "replay")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ObjectiveConfig:
    """What holds the policy near the initial one."""

    divergence: Annotated[
        Literal["forward_kl", "js", "alpha", "reverse_kl", "jeffreys", "squared_hellinger"],
        about("Generator function of the anchor penalty (dph)"),
    ] = "forward_kl"
    alpha: Annotated[float, Field(gt=0, lt=1), about("Order of the alpha-divergence")] = 0.5
    eta: Annotated[float, Field(ge=0), about("Weight of the anchor penalty (dph, replay); 0 = TRL to the bit")] = 0.2
    eta_schedule: Annotated[
        Literal["constant", "linear", "cosine", "target"],
        about("Course of eta: from eta to eta_end over training, or whatever holds the drift at drift_target"),
    ] = "constant"
    eta_end: Annotated[float | None, Field(ge=0), about("linear, cosine: eta of the last optimiser step; null = 0")] = (
        None
    )
    drift_target: Annotated[
        float | None,
        Field(gt=0),
        about("target: forward-KL of the anchors to be held, e.g. 0.05", "nats per token"),
    ] = None
    eta_bounds: Annotated[
        list[float] | None, about("target: [low, high] of eta, 0 < low <= eta <= high; null = [eta/100, 100 eta]")
    ] = None
    log_u_cap: Annotated[
        float, Field(gt=0, le=80), about("Beyond it the generator goes on along its tangent", "nats")
    ] = LOG_U_CAP
    form: Annotated[
        Literal["generator", "definition"],
        about(
            "dph: f(u) on anchors alone; or, to compare with, forward_kl, js and reverse_kl as they are defined: the "
            "last two then read fresh completions, scored by the reference model in memory"
        ),
    ] = "generator"
    anchor_forward: Annotated[
        Literal["separate", "merged"],
        about("Anchors go through the model on their own, or padded together with the rollouts in one forward"),
    ] = "separate"
    anchor_estimator: Annotated[
        Literal["sampled", "topk"],
        about("dph: divergence at the anchors' own tokens, or over the vocabulary from anchor.topk stored entries"),
    ] = "sampled"
    anchors_per_step: Annotated[
        int | None,
        Field(ge=1),
        about("Anchors beside each optimiser step; null = 32, or an eighth of its completions if more", "anchors"),
    ] = None
    anchor_ratio: Annotated[
        float | None,
        Field(gt=0),
        about("Instead of anchors_per_step: anchors of an optimiser step for each of its completions, rounded"),
    ] = None
    beta: Annotated[float, Field(ge=0), about("Weight of the KL to the initial policy (rkl)")] = 0.1
    kl_estimator: Annotated[
        Literal["k3", "k3_corrected", "k2", "k1_reward"],
        about(
            "rkl: k3 in the loss (released code; forward-KL gradient), k3_corrected (times the ratio, TRL now), "
            "k2 in the loss, or k1 as a reward (all three: the reverse-KL gradient)"
        ),
    ] = "k3"

    @model_validator(mode="after")
    def _parts_agree(self) -> ObjectiveConfig:
        check_anchors(self)
        check_eta(self)
        check_form(self)
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TrainConfig:
    """Stage 2: online training. One step = one generation of completions, then `updates` optimiser steps on it."""

    steps: Annotated[int, Field(ge=1), about("Generations", "count")] = 60
    prompts: Annotated[
        Literal["auto", "exploration", "all"],
        about("Prompts trained on; auto: exploration for dph and replay, else all"),
    ] = "auto"
    exploration_filter: Annotated[
        list[float] | None,
        about(
            "Train only on prompts whose share of right presamples is in [low, high], 0..1; needs anchor.full_counts"
        ),
    ] = None
    prompts_per_step: Annotated[int, Field(ge=1), about("Prompts of a generation", "prompts")] = 8
    group_size: Annotated[int, Field(ge=2), about("Completions of each prompt", "completions")] = 8
    updates: Annotated[int, Field(ge=1), about("Optimiser steps of a generation; from 2 on PPO clipping acts")] = 2
    micro_batch: Annotated[int, Field(ge=1), about("Completions in one forward on one process", "completions")] = 32
    learning_rate: Annotated[float, Field(gt=0), about("Peak learning rate of AdamW")] = 1e-6
    lr_schedule: Annotated[Literal["constant", "linear", "cosine"], about("Course of the learning rate")] = "constant"
    warmup_steps: Annotated[int, Field(ge=0), about("Optimiser steps of warm-up", "count")] = 0
    weight_decay: Annotated[float, Field(ge=0), about("Weight decay of AdamW")] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0), about("Gradient norm is clipped to it")] = 1.0
    clip_low: Annotated[float, Field(gt=0, lt=1), about("PPO clip below 1")] = 0.2
    clip_high: Annotated[
        float | None, Field(gt=0), about("PPO clip above 1; null = clip-higher 0.28, but 0.2 for grpo as published")
    ] = None
    advantage: Annotated[
        Literal["group", "maxrl", "passk", "pkpo", "unlikeliness"],
        about(
            "Reward centred in its group, over its deviation (group) or mean (maxrl); baselines: pass@k training "
            "(passk: rewards 0 and 1; pkpo: any), or less reward for likely right completions (unlikeliness)"
        ),
    ] = "group"
    pass_k: Annotated[
        int | None, Field(ge=2), about("passk, pkpo: the k of pass@k, up to group_size; null = 4", "completions")
    ] = None
    rank_penalty: Annotated[
        float | None, Field(ge=0, le=1), about("unlikeliness: share of reward the likeliest loses; null = 0.25")
    ] = None
    max_resample: Annotated[int, Field(ge=0), about("dapo: rounds that replace groups without spread", "count")] = 3
    save_every: Annotated[int, Field(ge=1), about("Generations between checkpoints", "count")] = 50
    log_every: Annotated[int, Field(ge=1), about("Optimiser steps between lines of metrics.jsonl", "count")] = 2
    max_bad_steps: Annotated[
        int, Field(ge=1), about("Optimiser steps in a row with a loss or gradient that is not finite, which end it")
    ] = 3
    gradient_checkpointing: Annotated[bool, about("Less memory, more time")] = False
    trl: Annotated[dict[str, Any], about("Further settings of TRL's GRPOConfig, by their own names")] = field(
        default_factory=dict
    )

    @model_validator(mode="after")
    def _band_in_order(self) -> TrainConfig:
        band = self.exploration_filter
        if band is not None and not (len(band) == 2 and 0 <= band[0] <= band[1] <= 1):
            raise ValueError(
                f"train.exploration_filter={band} must be [low, high], shares of right presamples with "
                "0 <= low <= high <= 1; e.g. [0.01, 1] drops the prompts that were never solved"
            )
        return self

    @model_validator(mode="after")
    def _settings_of_this_advantage(self) -> TrainConfig:
        check_advantage(self, self.group_size)
        return self

    @model_validator(mode="after")
    def _batches_fit(self) -> TrainConfig:
        total = self.prompts_per_step * self.group_size
        if total % self.updates:
            raise ValueError(
                f"train.updates={self.updates} must divide prompts_per_step*group_size={total} completions"
            )
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EvalConfig:
    """What is measured after training."""

    n: Annotated[int, Field(ge=1), about("Completions drawn per prompt", "count")] = 16
    resamples: Annotated[int, Field(ge=100), about("Bootstrap resamples over prompts", "count")] = 10_000
    base: Annotated[bool, about("Measure the initial policy too; keep and explore need it")] = True
    drift: Annotated[
        int,
        Field(ge=0),
        about("Draws of each prompt whose entropy and KL to the base are measured, by a forward of both; 0 = none"),
    ] = 0

    @model_validator(mode="after")
    def _drift_is_drawn(self) -> EvalConfig:
        if self.drift > self.n:
            raise ValueError(
                f"eval.drift={self.drift} draws cannot be scored of eval.n={self.n}; lower eval.drift or draw more"
            )
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Config:
    """One run: a model, a task, a method."""

    out: Annotated[str, about("Run directory; everything the run makes lies in it")] = ""
    seed: Annotated[int, Field(ge=0), about("Seed of every draw and shuffle")] = 0
    method: Annotated[Method, about("grpo, dapo, rkl, dph, or replay (plain NLL on anchors, the control)")] = "dph"
    base_run: Annotated[
        str | None,
        about("Another run whose presamples, anchors and base evaluation are used: same model, task, seed"),
    ] = None
    threads: Annotated[int | None, Field(ge=1), about("CPU threads of torch; null = torch's own choice", "count")] = (
        None
    )
    model: Annotated[ModelConfig, about("The initial policy")] = field(default_factory=ModelConfig)
    lora: Annotated[LoraConfig, about("An adapter instead of all weights")] = field(default_factory=LoraConfig)
    task: Annotated[TaskConfig, about("What is trained")] = field(default_factory=TaskConfig)
    eval_tasks: Annotated[dict[str, TaskConfig], about("What is measured, by name")] = field(default_factory=dict)
    sampling: Annotated[SamplingConfig, about("How completions are drawn")] = field(default_factory=SamplingConfig)
    anchor: Annotated[AnchorConfig, about("Stage 1")] = field(default_factory=AnchorConfig)
    objective: Annotated[ObjectiveConfig, about("What holds the policy")] = field(default_factory=ObjectiveConfig)
    train: Annotated[TrainConfig, about("Stage 2")] = field(default_factory=TrainConfig)
    eval: Annotated[EvalConfig, about("What is measured")] = field(default_factory=EvalConfig)

    @model_validator(mode="after")
    def _no_dropout_beside_anchors(self) -> Config:
        if self.method in ANCHOR_METHODS and self.lora.dropout:
            raise ValueError(
                f"lora.dropout={self.lora.dropout} and method {self.method}: anchors were scored without dropout, with "
                "it u differs from 1 for the unchanged policy; leave lora.dropout at 0"
            )
        return self

    @model_validator(mode="after")
    def _form_is_of_dph(self) -> Config:
        if self.method != "dph" and self.objective.form != "generator":
            raise ValueError(
                f"objective.form={self.objective.form} is a form of the divergence of method dph, and method "
                f"{self.method} has none; use method dph, or leave form out"
            )
        return self

    @property
    def loads_reference(self) -> bool:
        """Whether training holds the initial policy in memory, beside the one that is trained."""
        fresh = self.objective.form == "definition" and self.objective.divergence in ("js", "reverse_kl")
        return self.method == "rkl" or (self.method == "dph" and fresh)

    @model_validator(mode="after")
    def _topk_is_stored(self) -> Config:
        if self.method == "dph" and self.objective.anchor_estimator == "topk" and self.anchor.topk == 0:
            raise ValueError(
                "objective.anchor_estimator=topk reads the likeliest tokens that pre-sampling stores, and anchor.topk=0"
                " stores none; set anchor.topk, e.g. 16"
            )
        return self
