"""`train.trl` on verl: the settings of TRL that have a counterpart there, and those that can be left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dphrl.config.root import Config
from dphrl.errors import ConfigError, nearest

Settings = dict[str, Any]

_ACTOR = "actor_rollout_ref.actor"
_ROLLOUT = "actor_rollout_ref.rollout"
_CORRECTION = "algorithm.rollout_correction"

SAME: Mapping[str, str] = {
    "vllm_tensor_parallel_size": f"{_ROLLOUT}.tensor_model_parallel_size",
    "vllm_gpu_memory_utilization": f"{_ROLLOUT}.gpu_memory_utilization",
    "vllm_enable_sleep_mode": f"{_ROLLOUT}.free_cache_engine",
    "vllm_max_model_length": f"{_ROLLOUT}.max_model_len",
    "save_total_limit": "trainer.max_actor_ckpt_to_keep",
    "run_name": "trainer.experiment_name",
}
"""TRL's setting -> verl's, of the same meaning and unit."""

MORE = frozenset(
    {
        *("use_vllm", "loss_type", "scale_rewards", "report_to", "top_k", "adam_beta1", "adam_beta2", "adam_epsilon"),
        *("vllm_importance_sampling_correction", "vllm_importance_sampling_mode"),
        *("vllm_importance_sampling_clip_max", "vllm_importance_sampling_clip_min"),
    }
)
"""TRL's settings that `settings_of_trl` translates otherwise."""

HARMLESS: Mapping[str, str] = {
    "vllm_mode": "--mode says where verl draws",
    "logging_first_step": "verl logs every generation",
    "log_completions": "trainer.rollout_data_dir=FOLDER has verl write them",
    "disable_tqdm": "verl has a bar of its own",
    "dataloader_pin_memory": "it changes no result",
    "dataloader_num_workers": "it changes no result",
    "ddp_find_unused_parameters": "verl's FSDP2 has no such setting",
}
"""TRL's settings that change no result -> why they are left out."""

AGGREGATION: Mapping[str, str] = {
    "dapo": "token-mean",
    "grpo": "seq-mean-token-mean",
    "dr_grpo": "seq-mean-token-sum-norm",
}
"""TRL's `loss_type` -> verl's `loss_agg_mode` that sums up the same tokens with the same weights."""

SCALES: Mapping[Any, bool] = {"group": True, True: True, "none": False, False: False}
TRACKERS = ("wandb", "mlflow", "swanlab", "tensorboard", "clearml", "trackio")
"""Trackers of the same name on both sides."""

_LEAST = "1e-12"
"""Below every ratio that verl knows (its logarithm is kept within 20), so that no ratio is masked for being small."""
_CLIP_MAX = 3.0
"""TRL's own default."""


def settings_of_trl(config: Config) -> tuple[Settings, tuple[str, ...]]:
    """verl's settings for `train.trl`, and a line for each of its settings that is left out.

    Raises:
        ConfigError: one without a counterpart, by name.
    """
    given = config.train.trl
    for key, value in given.items():
        if key not in {*SAME, *MORE, *HARMLESS}:
            raise ConfigError(
                f"train.trl.{key}={value!r} has no counterpart on verl{nearest(key, [*SAME, *MORE])}; leave it out "
                f"(--train.trl '{{}}' leaves out all), and add verl's own settings to the command that is printed"
            )
    settings: Settings = {
        f"{_ROLLOUT}.tensor_model_parallel_size": 1,  # verl's own default is 2
        "trainer.max_actor_ckpt_to_keep": 2,
        **{SAME[key]: value for key, value in given.items() if key in SAME},
        **_loss(given, config.sampling.max_new_tokens),
        **_optimiser(given),
        **_correction(given),
        "trainer.logger": ["console", "file", *_trackers(given.get("report_to", "none"))],
    }
    if given.get("top_k"):
        settings[f"{_ROLLOUT}.top_k"] = given["top_k"]
    return settings, tuple(
        f"train.trl.{key}={value} ({HARMLESS[key]})" for key, value in given.items() if key in HARMLESS
    )


def _loss(given: Mapping[str, Any], max_new_tokens: int) -> Settings:
    loss_type, scale = given.get("loss_type", "dapo"), given.get("scale_rewards", "group")
    if loss_type not in AGGREGATION:
        raise ConfigError(
            f"train.trl.loss_type={loss_type!r} has no counterpart on verl that does the same; use one of "
            f"{', '.join(AGGREGATION)}"
        )
    if scale not in SCALES:
        raise ConfigError(f"train.trl.scale_rewards={scale!r} has no counterpart on verl; use group or none")
    found: Settings = {
        "algorithm.norm_adv_by_std_in_grpo": SCALES[scale],
        f"{_ACTOR}.loss_agg_mode": AGGREGATION[loss_type],
    }
    if loss_type == "dr_grpo":  # TRL divides by it too, whatever the longest completion of a batch is
        found[f"{_ACTOR}.loss_scale_factor"] = max_new_tokens
    return found


def _optimiser(given: Mapping[str, Any]) -> Settings:
    found: Settings = {}
    if "adam_beta1" in given or "adam_beta2" in given:
        found[f"{_ACTOR}.optim.betas"] = [given.get("adam_beta1", 0.9), given.get("adam_beta2", 0.999)]
    if "adam_epsilon" in given:
        found[f"+{_ACTOR}.optim.override_optimizer_config.eps"] = given["adam_epsilon"]
    return found


def _correction(given: Mapping[str, Any]) -> Settings:
    """Weights that make up for the difference between the engine that draws and the one that trains."""
    if not given.get("vllm_importance_sampling_correction"):
        return {}
    mode = str(given.get("vllm_importance_sampling_mode", "sequence_mask"))
    level, _, how = mode.partition("_")
    low, high = (
        given.get("vllm_importance_sampling_clip_min"),
        given.get("vllm_importance_sampling_clip_max", _CLIP_MAX),
    )
    if level not in ("token", "sequence") or how not in ("mask", "truncate"):
        raise ConfigError(
            f"train.trl.vllm_importance_sampling_mode={mode!r} is not one of token_truncate, token_mask, "
            "sequence_truncate, sequence_mask"
        )
    if high is None or (how == "truncate" and low is not None):
        raise ConfigError(
            f"train.trl.vllm_importance_sampling_mode={mode} with clip_min={low} and clip_max={high}: verl needs "
            "vllm_importance_sampling_clip_max, and has vllm_importance_sampling_clip_min for the masks alone"
        )
    threshold = high if how == "truncate" else f"{_LEAST if low is None else low}_{high}"
    return {f"{_CORRECTION}.rollout_is": level, f"{_CORRECTION}.rollout_is_threshold": threshold}


def _trackers(report_to: Any) -> list[str]:
    wanted = [name for name in ([report_to] if isinstance(report_to, str) else list(report_to)) if name != "none"]
    for name in wanted:
        if name not in TRACKERS:
            raise ConfigError(
                f"train.trl.report_to={name!r} is no tracker that verl has under this name; use "
                f"{', '.join(TRACKERS)}, or leave it out{nearest(str(name), TRACKERS)}"
            )
    return wanted
