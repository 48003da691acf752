"""The settings with which verl reads an export as dphrl pre-sampled it, and what the command prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dphrl.config.root import Config
from dphrl.engines.verl.hydra_words import override
from dphrl.engines.verl.reward_settings import reward_settings


def settings_for_verl(config: Config, files: Sequence[Path], longest: int, template: str | None) -> tuple[str, ...]:
    """Words for verl's command line.

    Args:
        files: of training first, then of each evaluation; absolute.
        longest: longest prompt of all (tokens).
        template: chat template of prompts that are texts; None = the tokenizer's own.
    """
    return tuple(override(key, value) for key, value in _settings(config, files, longest, template))


def _settings(config: Config, files: Sequence[Path], longest: int, template: str | None) -> Iterator[tuple[str, Any]]:
    train, *validation = map(str, files)
    yield "data.train_files", train
    if validation:
        yield "data.val_files", validation
    else:  # verl wants a file, and reads it if only to count its rows
        yield "data.val_files", train
        yield "trainer.val_before_train", False
        yield "trainer.test_freq", -1
    yield "data.max_prompt_length", longest
    yield "data.max_response_length", config.sampling.max_new_tokens
    if template is not None:
        yield "actor_rollout_ref.model.custom_chat_template", template
    for key, value in config.model.chat_template_args.items():
        yield f"+data.apply_chat_template_kwargs.{key}", value
    yield "actor_rollout_ref.rollout.temperature", config.sampling.temperature
    yield "actor_rollout_ref.rollout.top_p", config.sampling.top_p
    yield from reward_settings(config).items()
