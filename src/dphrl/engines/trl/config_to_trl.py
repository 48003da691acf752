"""Config -> arguments of `DPHConfig`: names and defaults of TRL, batches divided over processes."""

from __future__ import annotations

import math
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from dphrl.config.objective import AnchoredObjective
from dphrl.config.root import Config
from dphrl.config.train import TRAINER_SETTINGS
from dphrl.engines.common.generation.rollouts import check_sharing
from dphrl.engines.trl.refused_options import SET_BY_THE_STAGE
from dphrl.engines.trl.tried_options import try_options, typed_options
from dphrl.engines.trl.vllm_options import check_vllm
from dphrl.errors import ConfigError, nearest


def trainer_settings(config: Config, output_dir: Path, *, processes: int = 1) -> dict[str, Any]:
    """Arguments of `DPHConfig` for a config.

    Raises:
        ConfigError: batches that do not divide over updates, micro-batches and processes; a wrong key of `train.trl`;
            one that train.share_prompts=on rules out; a `model.dtype` that is not trained in.
    """
    _check_dtype(config)
    return _settings(config, output_dir, *_micro_batches(config, processes))


def _settings(config: Config, output_dir: Path, micro: int, accumulation: int) -> dict[str, Any]:
    """As `trainer_settings`, with `accumulation` forwards of `micro` completions on each process an optimiser step."""
    train, sampling = config.train, config.sampling
    ours = {
        "output_dir": str(output_dir),
        "method": config.method,
        "beta": 0.0,
        **asdict(config.objective),
        "anchors_per_step": anchors_per_step(config) or None,
        "anchor_ratio": None,
        **{name: getattr(train, name) for name in TRAINER_SETTINGS},
        "epsilon": train.clip_low,
        "epsilon_high": config.clip_high,
        "loss_type": "dapo",  # token-mean over the optimiser step
        "scale_rewards": "group",
        "num_generations": train.group_size,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": accumulation,
        "steps_per_generation": accumulation * train.updates,
        "max_steps": train.steps * train.updates,
        "max_completion_length": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "learning_rate": train.learning_rate,
        "lr_scheduler_type": train.lr_schedule if train.warmup_steps == 0 else _with_warmup(train.lr_schedule),
        "warmup_steps": train.warmup_steps,
        "weight_decay": train.weight_decay,
        "max_grad_norm": train.max_grad_norm,
        "save_steps": train.save_every * train.updates,  # at the end of a generation, so that resuming draws anew
        "save_total_limit": 2,
        "logging_steps": train.log_every,
        "logging_first_step": False,
        "seed": config.seed,
        "bf16": config.trained_precision.autocast == "bfloat16",
        "fp16": False,
        _checkpointing_name(): train.gradient_checkpointing,
        "use_cpu": config.model.device == "cpu",
        "trust_remote_code": config.model.trust_remote_code,
        # Only the reference model that rkl needs is loaded by TRL; it must be of the same revision.
        "model_init_kwargs": {"revision": config.model.revision} if config.model.revision else None,
        "chat_template_kwargs": dict(config.model.chat_template_args) or None,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    check_vllm(config)
    settings = ours | _extra_settings(config, ours)
    check_sharing(settings)
    return settings


def check_options_of_trl(config: Config) -> None:
    """Refuse options of `train.trl` before anything is drawn, whatever number of processes will train.

    Raises:
        ConfigError: an option that TRL does not know, takes or could honour; by name.
    """
    try_options(config, _settings(config, Path(config.out, "train"), 1, _completions(config)), alone=False)


def _check_dtype(config: Config) -> None:
    if config.model.dtype == "float16":
        raise ConfigError(
            "model.dtype=float16 can be drawn from and measured, not trained: small gradients become 0 in it, large "
            "ones infinite; use bfloat16 (float32 weights, computed with in 16 bits) or float32"
        )
    if config.model.dtype == "pure_bfloat16" and config.lora.r is not None:
        raise ConfigError(
            f"model.dtype=pure_bfloat16 and lora.r={config.lora.r}: the adapter is float32 in any case; use bfloat16, "
            "which keeps the weights beside it in 16 bits"
        )


def anchors_per_step(config: Config) -> int:
    """Anchors beside each optimiser step; 0 for a method without anchors."""
    objective, completions = config.objective, _completions(config)
    if not isinstance(objective, AnchoredObjective):
        return 0
    return objective.anchors_beside(completions, math.ceil(completions / config.train.micro_batch))


def _completions(config: Config) -> int:
    """Completions of an optimiser step, over all processes."""
    return config.train.prompts_per_step * config.train.group_size // config.train.updates


def _micro_batches(config: Config, processes: int) -> tuple[int, int]:
    """Completions in one forward on one process, and such forwards an optimiser step."""
    train = config.train
    per_update = _completions(config)
    micro = min(train.micro_batch, per_update // processes)
    if micro == 0 or per_update % (micro * processes):
        raise ConfigError(
            f"{per_update} completions an update do not divide into micro-batches of {micro} on {processes} processes; "
            "change train.micro_batch, train.prompts_per_step or train.updates"
        )
    parts = per_update // micro
    anchors = anchors_per_step(config)
    if 0 < anchors < parts and getattr(config.objective, "anchor_forward", None) == "separate":
        ratio = getattr(config.objective, "anchor_ratio", None)
        name = "objective.anchors_per_step" if ratio is None else f"objective.anchor_ratio={ratio}, anchors_per_step"
        raise ConfigError(
            f"{name}={anchors} leaves some of the {parts} micro-batches of an update without an anchor; "
            "raise it or train.micro_batch, or leave objective.anchor_forward at auto"
        )
    return micro, parts // processes


def _checkpointing_name() -> str:
    """transformers 5.20 renamed the setting and warns at the old name."""
    from transformers import TrainingArguments

    new = "activation_checkpointing"
    return new if new in {f.name for f in fields(TrainingArguments)} else "gradient_checkpointing"


def _with_warmup(schedule: str) -> str:
    return "constant_with_warmup" if schedule == "constant" else schedule


def _extra_settings(config: Config, ours: dict[str, Any]) -> dict[str, Any]:
    from trl import GRPOConfig

    extra = config.train.trl
    free = {
        "report_to",
        "loss_type",
        "scale_rewards",
        "logging_first_step",
        "save_total_limit",
        "dataloader_pin_memory",
    }
    known = {f.name for f in fields(GRPOConfig)}
    for key in extra:
        if key not in known:
            raise ConfigError(f"train.trl.{key} is no setting of TRL's GRPOConfig{nearest(key, known)}")
        if key in SET_BY_THE_STAGE:
            raise ConfigError(f"train.trl.{key} would not do what it says here: {SET_BY_THE_STAGE[key]}")
        if key in ours and key not in free:
            raise ConfigError(
                f"train.trl.{key} is set by dphrl itself; use the setting of dphrl (`dphrl train --help`)"
            )
    extra = typed_options(extra)
    _check_trackers(extra.get("report_to") or "none")
    return _check_push(config, extra)


def _check_trackers(report_to: Any) -> None:
    """Refuse a tracker that does not exist or is not installed; transformers would end with a traceback."""
    from transformers.integrations.integration_utils import (
        INTEGRATION_TO_CALLBACK,
        get_available_reporting_integrations,
    )

    wanted = [report_to] if isinstance(report_to, str) else list(report_to)
    known = {*INTEGRATION_TO_CALLBACK, "none", "all"}
    for name in wanted:
        if name not in known:
            raise ConfigError(f"train.trl.report_to={name!r} is no tracker of transformers{nearest(str(name), known)}")
        if name not in ("none", "all") and name not in get_available_reporting_integrations():
            raise ConfigError(
                f"train.trl.report_to={name!r} needs that package: pip install {name}; or leave it out, metrics.jsonl "
                "is always written"
            )


def _check_push(config: Config, extra: dict[str, Any]) -> dict[str, Any]:
    """A merged model and an adapter in one repository would be read as the adapter on top of the merged model."""
    if not extra.get("push_to_hub") or config.lora.r is None:
        return extra
    if extra.get("hub_strategy", "end") != "end":
        raise ConfigError(
            f"train.trl.hub_strategy={extra['hub_strategy']!r} would push adapters beside the merged model of lora.r="
            f"{config.lora.r}, and a reader would add one to the other; use end"
        )
    return {**extra, "hub_strategy": "end"}
