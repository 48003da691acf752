"""What becomes of each setting on verl: translated, read by another command of dphrl, not carried over, or refused.

Every setting of `Config` stands in exactly one of the four tables; settings of a task once, under `task`, and those of
`eval_tasks` go their way.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from dphrl.config.load import to_dict
from dphrl.config.root import Config
from dphrl.errors import ConfigError

TRANSLATED = frozenset(
    {
        *("out", "seed", "method", "base_run", "eval_tasks", "task.chat", "task.prompt_tokens", "eval.n", "eval.base"),
        *("model.path", "model.dtype", "model.trust_remote_code", "model.chat_template_args"),
        *("lora.r", "lora.alpha", "lora.target_modules"),
        *("sampling.temperature", "sampling.top_p", "sampling.max_new_tokens"),
        *("objective.max_resample", "objective.beta", "objective.kl_estimator"),
        *("objective.eta", "objective.eta_schedule", "objective.eta_end", "objective.drift_target"),
        *("objective.eta_bounds", "objective.anchors_per_step", "objective.anchor_ratio"),
        *("objective.anchors_per_prompt", "objective.divergence", "objective.alpha", "objective.form"),
        "objective.log_u_cap",
        *("train.group_size", "train.steps", "train.prompts_per_step", "train.updates", "train.learning_rate"),
        *("train.lr_schedule", "train.warmup_steps", "train.weight_decay", "train.max_grad_norm", "train.clip_low"),
        *("train.clip_high", "train.save_every", "train.gradient_checkpointing", "train.trl"),
    }
)
"""Settings that `verl_settings` reads."""

ELSEWHERE: Mapping[str, tuple[str, ...]] = {
    "dphrl export verl": (
        *("task.name", "task.data", "task.subset", "task.split", "task.columns", "task.template", "task.template_file"),
        *("task.system", "task.verifier", "task.verifier_args", "task.offset", "task.limit"),
        *("train.prompts", "train.exploration_filter"),
    ),
    "dphrl presample": (
        *("anchor.presamples", "anchor.threshold", "anchor.full_counts", "anchor.debias", "anchor.failed_debias"),
        *("anchor.source", "anchor.per_prompt", "anchor.also", "anchor.topk", "anchor.batch_size"),
        *("sampling.batch_size", "sampling.backend", "sampling.tensor_parallel", "sampling.gpu_memory_utilization"),
        *("sampling.base_url", "sampling.api_key_env", "sampling.served_model", "sampling.concurrency"),
        *("sampling.timeout_s", "sampling.retries"),
    ),
    "dphrl eval": ("sampling.served_final", "eval.resamples", "eval.drift"),
}
"""Command of dphrl -> the settings that it reads, before or after verl trains."""

NOT_CARRIED: Mapping[str, str] = {
    "threads": "verl's processes have their own",
    "model.pad_token": "verl pads with its own token; padding is masked everywhere",
    "train.micro_batch": "verl packs as many rows as ppo_max_token_len_per_gpu has room for",
    "train.share_prompts": "verl reads each completion with its prompt",
    "train.max_bad_steps": "verl leaves out a step whose gradient is not finite, and goes on",
    "train.log_every": "verl logs every generation",
}
"""Settings without a counterpart that change no result -> why they are left out, said where they are given."""

REFUSED: Mapping[str, str] = {
    "model.device": "verl trains on GPUs; leave it at auto or cuda",
    "model.revision": "verl loads the newest revision of a name; download yours and give its folder as model.path",
    "lora.dropout": "verl's FSDP engine trains adapters without dropout; leave it at 0",
    "sampling.stop_tokens": (
        "verl's rollouts end at the tokens that the model's files name alone; write the ids of yours into eos_token_id "
        "of its generation_config.json, which dphrl reads too, and leave this empty"
    ),
    "objective.anchor_estimator": "verl's forward keeps no row of the vocabulary; use sampled",
    "objective.anchor_forward": "on verl anchors always go along in the rollouts' mini-batches; leave it at auto",
    "train.advantage": "verl has dphrl's advantage=group alone; use it, or train with TRL",
    "train.pass_k": "only other advantages than verl's read it; leave it out",
    "train.rank_penalty": "only other advantages than verl's read it; leave it out",
}
"""Settings that change results and cannot be carried over -> what to do; refused unless they have their default."""

_FINE = {"model.device": ("auto", "cuda")}
"""Values that are not the default, and fine all the same."""


def places_of(key: str) -> tuple[str, ...]:
    """The tables that a setting stands in, by name; a test holds that it is one."""
    tables: Mapping[str, Collection[str]] = {
        "TRANSLATED": TRANSLATED,
        "ELSEWHERE": [name for names in ELSEWHERE.values() for name in names],
        "NOT_CARRIED": NOT_CARRIED,
        "REFUSED": REFUSED,
    }
    return tuple(name for name, keys in tables.items() if key in keys)


def check_refused(config: Config) -> None:
    """Raises:
    ConfigError: settings that change results and have no counterpart on verl, all of them at once.
    """
    lines = [f"{key}={value!r}: {REFUSED[key]}" for key, value in _given(config, REFUSED)]
    if lines:
        raise ConfigError("verl cannot do what this config asks for:\n" + "\n".join(lines))


def left_out(config: Config) -> tuple[str, ...]:
    """A line for each setting that is given, changes no result and has no counterpart."""
    return tuple(f"{key}={value} ({NOT_CARRIED[key]})" for key, value in _given(config, NOT_CARRIED))


def _given(config: Config, keys: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    """Those of the settings that have another value than their default; those that the method does not have are not."""
    given, plain = to_dict(config), to_dict(Config(method=config.method))
    for key in keys:
        value, default = _at(given, key), _at(plain, key)
        if value != default and value not in _FINE.get(key, ()):
            yield key, value


def _at(values: Mapping[str, Any], key: str) -> Any:
    section, _, name = key.rpartition(".")
    return (values[section] if section else values).get(name)
