"""Stage 2, online training: batches, the optimiser, and what the trainer does beside TRL's own settings."""

from __future__ import annotations

from dataclasses import field, fields
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic.dataclasses import dataclass

from dphrl.config.setting import STRICT, About, ByChoice, Section, empty_mapping

CLIP_HIGHER = 0.28
"""DAPO's upper clip (arXiv:2503.14476), also of DPH-RL; plain GRPO clips at `clip_low` on both sides."""


def _word(value: Any) -> Any:
    """YAML reads the words on and off as true and false."""
    return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TrainerSettings(Section):
    """Settings of `TrainConfig` that the trainer reads itself, beside TRL's; `DPHConfig` has them too."""

    section: ClassVar[str] = "train"

    group_size: Annotated[int, Field(ge=2), About("Completions of each prompt", "completions", common=True)] = 8
    advantage: Annotated[
        Literal["group", "maxrl", "passk", "pkpo", "unlikeliness"],
        About(
            "Reward centred in its group, over its deviation (group) or mean (maxrl); baselines: pass@k training "
            "(passk: rewards 0 and 1; pkpo: any), or less reward for likely right completions (unlikeliness)"
        ),
    ] = "group"
    pass_k: Annotated[
        int | None,
        Field(ge=2),
        About("The k of pass@k, up to group_size", "completions"),
        ByChoice("advantage", {"passk": 4, "pkpo": 4}),
    ] = None
    rank_penalty: Annotated[
        float | None,
        Field(ge=0, le=1),
        About("Share of its reward that the likeliest right completion loses"),  # our choice, a mild one
        ByChoice("advantage", {"unlikeliness": 0.25}),
    ] = None
    share_prompts: Annotated[
        Literal["auto", "on", "off"],
        BeforeValidator(_word),
        About(
            "Read a prompt once for all its completions, in drawing and in training; auto: where the model and the "
            "options allow it"
        ),
    ] = "auto"
    max_bad_steps: Annotated[
        int, Field(ge=1), About("Optimiser steps in a row with a loss or gradient that is not finite, which end it")
    ] = 3

    @model_validator(mode="after")
    def _a_group_has_k(self) -> TrainerSettings:
        if self.pass_k is not None and self.pass_k > self.group_size:
            raise ValueError(
                f"train.advantage={self.advantage} with pass_k={self.pass_k} needs 2 <= pass_k <= group_size="
                f"{self.group_size}; change one of them"
            )
        return self


TRAINER_SETTINGS = tuple(f.name for f in fields(TrainerSettings) if f.name != "group_size")
"""Those that `DPHConfig` has by the same names; the group's size is TRL's num_generations there."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TrainConfig(TrainerSettings):
    """Stage 2: online training. One step = one generation of completions, then `updates` optimiser steps on it."""

    steps: Annotated[int, Field(ge=1), About("Generations", "count", common=True)] = 60
    prompts: Annotated[
        Literal["auto", "exploration", "all"],
        About("Prompts trained on; auto: exploration for dph and replay, else all"),
    ] = "auto"
    exploration_filter: Annotated[
        list[float] | None,
        About(
            "Train only on prompts whose share of right presamples is in [low, high], 0..1; needs anchor.full_counts"
        ),
    ] = None
    prompts_per_step: Annotated[int, Field(ge=1), About("Prompts of a generation", "prompts", common=True)] = 8
    updates: Annotated[int, Field(ge=1), About("Optimiser steps of a generation; from 2 on PPO clipping acts")] = 2
    micro_batch: Annotated[int, Field(ge=1), About("Completions in one forward on one process", "completions")] = 32
    learning_rate: Annotated[float, Field(gt=0), About("Peak learning rate of AdamW", common=True)] = 1e-6
    lr_schedule: Annotated[Literal["constant", "linear", "cosine"], About("Course of the learning rate")] = "constant"
    warmup_steps: Annotated[int, Field(ge=0), About("Optimiser steps of warm-up", "count")] = 0
    weight_decay: Annotated[float, Field(ge=0), About("Weight decay of AdamW")] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0), About("Gradient norm is clipped to it")] = 1.0
    clip_low: Annotated[float, Field(gt=0, lt=1), About("PPO clip below 1")] = 0.2
    clip_high: Annotated[
        float | None, Field(gt=0), About("PPO clip above 1; null = clip-higher 0.28, but 0.2 for grpo as published")
    ] = None
    save_every: Annotated[int, Field(ge=1), About("Generations between checkpoints", "count")] = 50
    log_every: Annotated[int, Field(ge=1), About("Optimiser steps between lines of metrics.jsonl", "count")] = 2
    gradient_checkpointing: Annotated[bool, About("Less memory, more time")] = False
    trl: Annotated[
        dict[str, Any],
        BeforeValidator(empty_mapping),
        About("Further settings of TRL's GRPOConfig, by their own names"),
    ] = field(default_factory=dict)

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
    def _batches_fit(self) -> TrainConfig:
        total = self.prompts_per_step * self.group_size
        if total % self.updates:
            raise ValueError(
                f"train.updates={self.updates} must divide prompts_per_step*group_size={total} completions"
            )
        return self
