"""Config -> settings of verl 0.9 (`verl.trainer.main_ppo`): the same prompts, completions and optimiser steps.

Nothing of verl is imported: the command is written where verl need not be installed. What each setting means there was
read in verl 0.9.1; tests/verl_real lays all of this over verl's own settings and has verl check them.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dphrl.config.objective import AnchoredObjective, DapoObjective, RklObjective
from dphrl.config.root import Config
from dphrl.engines.verl.carried import check_refused, left_out
from dphrl.engines.verl.cluster import (
    SEPARATE,
    WITH_ANCHORS,
    Cluster,
    check_batches,
    check_tensor_parallel,
    rounded_up,
)
from dphrl.engines.verl.differences import anchors_of_step, differences
from dphrl.engines.verl.reward_settings import reward_settings
from dphrl.engines.verl.trl_options import settings_of_trl
from dphrl.errors import ConfigError
from dphrl.tasks.ready import resolved

Settings = dict[str, Any]

PACKED_TOKENS = 16_384
"""Tokens of a micro-batch on one GPU, unless one row may be longer: verl's own default."""
PROMPT_TOKENS = 4_096
"""Longest prompt where nothing in the config bounds it."""
NEVER_CLIPS = 1e9
"""verl's third clip (`clip_ratio_c`) switched off: its ratios stay below exp(20), and dphrl's loss has none."""
KL_TYPES = {"k3": "low_var_kl", "k2": "mse"}
"""`kl_estimator` -> verl's `kl_loss_type` of the same formula."""
MODEL_DTYPES = {"float32": "fp32", "bfloat16": "fp32", "pure_bfloat16": "bf16"}
"""`model.dtype` -> verl's name of the type that weights are trained in."""

_ACTOR = "actor_rollout_ref.actor"
_MODEL = "actor_rollout_ref.model"
_REF = "actor_rollout_ref.ref"
_ROLLOUT = "actor_rollout_ref.rollout"
_SECTIONS = (
    "algorithm",
    "data",
    _MODEL,
    _ACTOR,
    _REF,
    _ROLLOUT,
    "reward",
    "dph",
    "trainer",
    "ray_kwargs",
    "transfer_queue",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Places:
    """Files of a training on verl; absolute, since its processes run in folders of their own."""

    data: Path
    """Where `dphrl export verl` has written train.parquet and a file for each task that is measured."""
    anchors: Path
    """The sealed store."""
    out: Path
    """verl's checkpoints, validations and metrics are written into it."""
    model: str
    """Folder or name of the initial policy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Translation:
    """A config on verl."""

    settings: Settings
    """verl's setting -> value, with a + before what verl's own settings have no place for."""
    differs: tuple[str, ...]
    """What is computed differently there, in words."""
    left_out: tuple[str, ...]
    """Settings that are given and change no result there, and why."""


def verl_settings(config: Config, cluster: Cluster, places: Places, *, template: str | None = None) -> Translation:
    """What verl is told, so that it trains as the config says.

    Args:
        template: chat template of prompts that are texts (`prompt_ids`); None = the tokenizer's own.
    Raises:
        ConfigError: settings that verl cannot follow, or batches that do not divide over the GPUs; names the remedy.
    """
    check_refused(config)
    check_batches(config.train, cluster)
    of_trl, trl_left_out = settings_of_trl(config)
    check_tensor_parallel(of_trl[f"{_ROLLOUT}.tensor_model_parallel_size"], cluster)
    length = _longest_prompt(config)
    measured, unmeasured = _measured(config)
    settings: Settings = {
        **_algorithm(config),
        **_data(config, places, length, measured),
        **_model(config, places, template),
        **_actor(config, length, cluster),
        **_rollout(config, cluster),
        **of_trl,
        **reward_settings(config),
        **_trainer(config, cluster, places, measured),
        **_method(config, cluster, places),
    }
    return Translation(
        settings=dict(sorted(settings.items(), key=lambda item: _place(item[0]))),
        differs=(*differences(config, cluster, length), *unmeasured),
        left_out=(*left_out(config), *trl_left_out),
    )


def _place(key: str) -> int:
    """Where a setting is printed: by section, in the order of `_SECTIONS`."""
    return next(i for i, section in enumerate(_SECTIONS) if key.lstrip("+").startswith(section))


def _algorithm(config: Config) -> Settings:
    found: Settings = {"algorithm.adv_estimator": "grpo", "algorithm.use_kl_in_reward": False}
    if isinstance(config.objective, DapoObjective) and config.objective.max_resample > 0:
        found |= {"algorithm.filter_groups.enable": True, "algorithm.filter_groups.metric": "reward"}
    return found


def _data(config: Config, places: Places, length: int, measured: list[str]) -> Settings:
    found: Settings = {
        "data.train_files": str(places.data / "train.parquet"),
        "data.val_files": [str(places.data / f"{name}.parquet") for name in measured or ["train"]],
        "data.train_batch_size": config.train.prompts_per_step,
        "data.max_prompt_length": length,
        "data.max_response_length": config.sampling.max_new_tokens,
        "data.filter_overlong_prompts": True,
        "data.seed": config.seed,
    }
    arguments = config.model.chat_template_args
    return found | {f"+data.apply_chat_template_kwargs.{key}": value for key, value in arguments.items()}


def _model(config: Config, places: Places, template: str | None) -> Settings:
    found: Settings = {
        f"{_MODEL}.path": places.model,
        f"{_MODEL}.enable_gradient_checkpointing": config.train.gradient_checkpointing,
    }
    if config.model.trust_remote_code:
        found |= {f"{_MODEL}.trust_remote_code": True, "data.trust_remote_code": True}
    if template is not None:
        found[f"{_MODEL}.custom_chat_template"] = template
    if config.model.dtype == "float32":  # flash attention, and so packed rows, are there for 16 bits alone
        found |= {
            f"{_MODEL}.use_remove_padding": False,
            f"+{_MODEL}.override_config.attn_implementation": "sdpa",
        }
    if config.lora.r is not None:
        found |= {
            f"{_MODEL}.lora_rank": config.lora.r,
            f"{_MODEL}.lora_alpha": config.lora.scale,
            f"{_MODEL}.target_modules": config.lora.target_modules or "all-linear",
            f"{_ROLLOUT}.load_format": "safetensors",  # an engine that draws gets the adapter alone
        }
    return found


def _actor(config: Config, length: int, cluster: Cluster) -> Settings:
    train = config.train
    return {
        f"{_ACTOR}.strategy": "fsdp2",
        **_precision(config),
        f"{_ACTOR}.ppo_mini_batch_size": train.prompts_per_step // train.updates,
        f"{_ACTOR}.ppo_epochs": 1,
        f"{_ACTOR}.shuffle": False,
        f"{_ACTOR}.use_dynamic_bsz": True,
        f"{_ACTOR}.ppo_max_token_len_per_gpu": max(PACKED_TOKENS, length + config.sampling.max_new_tokens),
        f"{_ACTOR}.clip_ratio_low": train.clip_low,
        f"{_ACTOR}.clip_ratio_high": config.clip_high,
        f"{_ACTOR}.clip_ratio_c": NEVER_CLIPS,
        f"{_ACTOR}.entropy_coeff": 0.0,
        **_kl(config),
        f"{_ACTOR}.optim.lr": train.learning_rate,
        f"{_ACTOR}.optim.lr_scheduler_type": _schedule(config),
        f"{_ACTOR}.optim.lr_warmup_steps": math.ceil(train.warmup_steps / cluster.steps_a_tick(train.updates)),
        f"{_ACTOR}.optim.weight_decay": train.weight_decay,
        f"{_ACTOR}.optim.clip_grad": train.max_grad_norm,
    }


def _precision(config: Config) -> Settings:
    dtype = config.model.dtype
    if dtype not in MODEL_DTYPES:
        raise ConfigError(
            f"model.dtype={dtype} can be drawn from and measured, not trained; use bfloat16 (float32 weights, computed "
            "with in 16 bits) or float32"
        )
    if dtype == "pure_bfloat16" and config.lora.r is not None:
        raise ConfigError(f"model.dtype={dtype} and lora.r={config.lora.r}: use bfloat16, as for a training with TRL")
    found: Settings = {}
    for part in (_ACTOR, *([_REF] if config.objective.loads_reference else [])):
        found[f"{part}.fsdp_config.model_dtype"] = MODEL_DTYPES[dtype]
        if dtype == "float32":
            found |= {
                f"+{part}.fsdp_config.mixed_precision.{name}_dtype": "fp32" for name in ("param", "reduce", "buffer")
            }
    return found


def _kl(config: Config) -> Settings:
    objective = config.objective
    if not isinstance(objective, RklObjective):
        return {f"{_ACTOR}.use_kl_loss": False}
    if objective.kl_estimator not in KL_TYPES:
        why = {
            "k3_corrected": "verl has k3 without the ratio; k2 has the same gradient on fresh completions",
            "k1_reward": "verl divides a KL in the reward by its group's deviation; k2 has the same gradient",
        }
        raise ConfigError(
            f"objective.kl_estimator={objective.kl_estimator}: {why[objective.kl_estimator]}; use k2, or k3 (as "
            "published)"
        )
    return {
        f"{_ACTOR}.use_kl_loss": True,
        f"{_ACTOR}.kl_loss_coef": objective.beta,
        f"{_ACTOR}.kl_loss_type": KL_TYPES[objective.kl_estimator],
    }


def _schedule(config: Config) -> str:
    if config.train.lr_schedule == "linear":
        raise ConfigError("train.lr_schedule=linear: verl's FSDP engine has constant and cosine; use one of them")
    return config.train.lr_schedule


def _rollout(config: Config, cluster: Cluster) -> Settings:
    sampling = config.sampling
    found: Settings = {
        f"{_ROLLOUT}.name": cluster.engine,
        f"{_ROLLOUT}.dtype": config.stored_dtype,
        f"{_ROLLOUT}.n": config.train.group_size,
        f"{_ROLLOUT}.temperature": sampling.temperature,
        f"{_ROLLOUT}.top_p": sampling.top_p,
        f"{_ROLLOUT}.seed": config.seed,
        f"{_ROLLOUT}.val_kwargs.n": config.eval.n,
        f"{_ROLLOUT}.val_kwargs.do_sample": True,
        f"{_ROLLOUT}.val_kwargs.temperature": sampling.temperature,
        f"{_ROLLOUT}.val_kwargs.top_p": sampling.top_p,
    }
    if cluster.mode == SEPARATE:
        found |= {
            f"{_ROLLOUT}.nnodes": cluster.rollout_nodes,
            f"{_ROLLOUT}.n_gpus_per_node": cluster.gpus,
            f"{_ROLLOUT}.checkpoint_engine.backend": "nccl",
            "trainer.v1.separate_async.parameter_sync_step": config.train.updates,
        }
    return found


def _trainer(config: Config, cluster: Cluster, places: Places, measured: list[str]) -> Settings:
    train = config.train
    found: Settings = {
        "trainer.nnodes": cluster.nodes,
        "trainer.n_gpus_per_node": cluster.gpus,
        "trainer.total_training_steps": train.steps,
        "trainer.total_epochs": train.steps,  # never the first of the two to end: a pass has a step at least
        "trainer.save_freq": train.save_every,
        "trainer.test_freq": train.steps if measured else -1,
        "trainer.val_before_train": bool(measured) and config.eval.base and config.base_run is None,
        "trainer.project_name": "dphrl",
        "trainer.default_local_dir": str(places.out / "checkpoints"),
        "trainer.validation_data_dir": str(places.out / "validation"),
        "+ray_kwargs.ray_init.runtime_env.env_vars.VERL_FILE_LOGGER_PATH": str(places.out / "metrics.jsonl"),
    }
    if "run_name" not in train.trl:
        found["trainer.experiment_name"] = Path(config.out).name
    if measured:  # all samples of a validation at once, of which there may be more than verl's 100,000 rows
        found["transfer_queue.backend.SimpleStorage.total_storage_size"] = None
    return found


def _method(config: Config, cluster: Cluster, places: Places) -> Settings:
    objective = config.objective
    if not isinstance(objective, AnchoredObjective):
        return {"trainer.v1.trainer_mode": cluster.mode}
    if objective.loads_reference:
        raise ConfigError(
            "objective.form=definition of this divergence scores fresh completions by a reference model, which "
            "trainer_mode=dph does not load; use form=generator"
        )
    own = {key: value for key, value in asdict(objective).items() if value is not None}
    for key in ("anchor_ratio", "anchor_forward", "anchor_estimator"):
        own.pop(key, None)  # said by anchors_per_step, or refused unless they have their default
    own["anchors_per_step"] = rounded_up(anchors_of_step(config, objective), cluster.ranks)
    block = {"anchors": str(places.anchors), "method": config.method, "seed": config.seed, **own}
    return {
        "trainer.v1.trainer_mode": WITH_ANCHORS[cluster.mode],
        **{f"+dph.{key}": value for key, value in block.items()},
    }


def _longest_prompt(config: Config) -> int:
    """The bound on prompts (tokens): the task's own, and what the engine's context leaves beside a completion."""
    context = config.train.trl.get("vllm_max_model_length")
    room = None if context is None else int(context) - config.sampling.max_new_tokens
    if room is not None and room < 1:
        raise ConfigError(
            f"train.trl.vllm_max_model_length={context} leaves no room for a prompt beside sampling.max_new_tokens="
            f"{config.sampling.max_new_tokens}; raise it"
        )
    bounds = [bound for bound in (config.task.prompt_tokens, room) if bound is not None]
    return min(bounds, default=PROMPT_TOKENS)


def _measured(config: Config) -> tuple[list[str], list[str]]:
    """The tasks that verl can measure, since it has one chat template; and a line for those that it cannot."""
    chat = resolved(config.task).chat
    fits = {name: resolved(task).chat == chat for name, task in config.eval_tasks.items()}
    others = [name for name, same in fits.items() if not same]
    lines = [
        f"not validated there: {', '.join(others)}, whose task.chat is another than the training task's, and verl has "
        "one chat template; `dphrl eval` measures them"
    ]
    return [name for name, same in fits.items() if same], lines if others else []
