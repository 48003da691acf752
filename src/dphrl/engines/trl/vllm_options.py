"""Rollouts by vLLM through TRL's own settings: what must be set, what cannot be honoured, and which tokens end one."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

from dphrl.config.root import Config
from dphrl.errors import ConfigError, nearest

CORRECTION = "vllm_importance_sampling_correction"
CHOICES: dict[str, tuple[str, ...]] = {
    "vllm_mode": ("colocate", "server"),
    "vllm_importance_sampling_mode": ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask"),
}
"""TRL looks at these only once an engine is asked for, or at the first generation."""


def check_vllm(config: Config) -> None:
    """Refuse settings of vLLM in `train.trl` that are unsaid, unknown or would not be honoured.

    Raises:
        ConfigError: by name, with what to do.
    """
    extra = config.train.trl
    if not extra.get("use_vllm"):
        return
    if extra.get(CORRECTION) not in (True, False):
        raise ConfigError(
            f"train.trl.use_vllm needs train.trl.{CORRECTION}: true or false. vLLM's log-probabilities differ a little "
            "from the trainer's: true weighs each token by their ratio (TRL's default, one more forward pass), false "
            "takes the tokens for the trainer's own (as published)"
        )
    for name, allowed in CHOICES.items():
        value = extra.get(name, allowed[0])
        if value not in allowed:
            raise ConfigError(
                f"train.trl.{name}={value!r} is not one of {', '.join(allowed)}{nearest(str(value), allowed)}"
            )
    if "stop_token_ids" in (extra.get("generation_kwargs") or {}):
        raise ConfigError(
            "train.trl.generation_kwargs.stop_token_ids would differ from what ends a completion everywhere else; use "
            "sampling.stop_tokens"
        )
    if config.model.revision is not None and extra.get("vllm_mode", "colocate") == "colocate":
        raise ConfigError(
            f"model.revision={config.model.revision}, but TRL starts vLLM with the newest revision; download yours and "
            "give its folder as model.path"
        )


def engine_settings(settings: Mapping[str, Any], stop_ids: Sequence[int]) -> dict[str, Any]:
    """Settings in which vLLM ends a completion at the policy's own stop tokens; without vLLM, the settings as they are.

    TRL tells its engine none, and the engine knows those of the model's files only: not `sampling.stop_tokens`.

    Raises:
        ConfigError: vLLM is not installed.
    """
    if not settings.get("use_vllm"):
        return dict(settings)
    if importlib.util.find_spec("vllm") is None:
        raise ConfigError("train.trl.use_vllm needs vLLM: pip install 'dphrl[vllm]'; or leave it out: the model draws")
    kwargs = {**(settings.get("generation_kwargs") or {}), "stop_token_ids": list(stop_ids)}
    return {**settings, "generation_kwargs": kwargs}
