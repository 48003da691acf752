"""The setting `share_prompts`: whether completions of one prompt are scored with the prompt read once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from dphrl.errors import ConfigError
from dphrl.models.shared_attention import unshare_attention
from dphrl.models.sharing_check import prepare_sharing, why_unshared


class PromptSharing:
    """The setting `share_prompts`, and what has been found out about it.

    Args:
        wish: auto, on or off.
        tell: called once, with why each completion reads its own prompt, where `auto` finds that it must.
    """

    def __init__(self, wish: str, tell: Callable[[str], None]) -> None:
        self.active = wish != "off"
        """Whether prompts are shared, as far as is known by now."""
        self._wish, self._tell = wish, tell
        self._prepared: list[Any] = []
        self._compared: set[tuple[int, bool]] = set()

    def prepare(self, model: Any) -> None:
        """Exchange the attention of a causal LM of transformers, or find that it cannot be done.

        Raises:
            ConfigError: as `leave`.
        """
        if not self.active:
            return
        why = prepare_sharing(model)
        self._prepared.append(model)
        if why is not None:
            self.leave(why)

    def leave(self, why: str) -> None:
        """Share no prompts from here on; the models have their own attention again.

        Raises:
            ConfigError: sharing was asked for by name.
        """
        if self.active and self._wish == "on":
            raise ConfigError(f"share_prompts='on' (train.share_prompts) cannot be: {why}; use auto or off")
        if self.active:
            self.active = False
            for model in self._prepared:
                unshare_attention(model)
            self._tell(f"each completion reads its own prompt (train.share_prompts): {why}")

    def compare(self, model: Any, vocabulary: int, temperature: float, dtype: torch.dtype) -> None:
        """Leave where a model's log-probabilities are others when a prompt is read once; once for each model
        and mode.

        Args:
            model: a causal LM with `add_token_head`, wrapped or not, as it is called in training.
            The rest: as `why_unshared`.
        """
        looked_at = (id(model), model.training)
        if not self.active or looked_at in self._compared:
            return
        self._compared.add(looked_at)
        why = why_unshared(model, model, vocabulary, temperature, dtype)
        if why is not None:
            self.leave(why)
