"""Whether completions of one prompt are scored with the prompt read once; decided by looking at what the model gives.

Rotary or learned positions, windows, soft caps, grouped heads and mixtures of experts are read along paths; a state
that runs over all tokens (linear attention, Mamba) or dropout is not. No list of models says so: two short rows are
scored both ways before the first use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dphrl.errors import ConfigError
from dphrl.models.packed_rows import pack_rows
from dphrl.models.positions import takes_positions
from dphrl.models.shared_attention import share_attention
from dphrl.models.token_head import Read, head_is_sharded

PROMPT, COMPLETIONS = 8, (4, 3)
"""Tokens of the rows that are compared."""


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
        self._compared: set[int] = set()

    def prepare(self, model: Any) -> None:
        """Exchange the attention of a causal LM of transformers, or find that it cannot be done.

        Raises:
            ConfigError: as `leave`.
        """
        if not self.active:
            return
        if head_is_sharded():
            self.leave("ZeRO-3 holds the head's weight, which is whole only within its own forward")
        elif not takes_positions(model.base_model):
            self.leave(f"{type(model).__name__} cannot be given positions")
        else:
            try:
                share_attention(model)
            except ValueError as error:
                self.leave(f"{type(model).__name__}: {error}")

    def leave(self, why: str) -> None:
        """Share no prompts from here on.

        Raises:
            ConfigError: sharing was asked for by name.
        """
        if self.active and self._wish == "on":
            raise ConfigError(f"share_prompts='on' (train.share_prompts) cannot be: {why}; use auto or off")
        if self.active:
            self.active = False
            self._tell(why)

    def compare(self, model: Any, vocabulary: int, temperature: float, eps: float) -> None:
        """Leave where a model's log-probabilities are others when a prompt is read once; once for each model.

        Args:
            model: a causal LM with `add_token_head`, wrapped or not, as it is called in training.
            vocabulary: tokens it knows (count).
            temperature: of its head.
            eps: relative rounding of what it computes in.
        """
        if not self.active or id(model) in self._compared:
            return
        self._compared.add(id(model))
        try:
            apart, largest = _apart(model, vocabulary, temperature)
        except (TypeError, AttributeError, ValueError, RuntimeError, IndexError, KeyError) as error:
            self.leave(f"its forward does not take a packed sequence ({type(error).__name__}: {error})")
            return
        allowed = 1e-4 + eps * largest
        if not apart <= allowed:
            self.leave(
                f"log-probabilities would change by {apart:.2g} nats (rounding explains {allowed:.1g}): the model "
                "keeps a state that runs over all tokens, or its dropout acts"
            )


@torch.no_grad()
def _apart(model: Any, vocabulary: int, temperature: float) -> tuple[float, float]:
    """Mean difference of the log-probabilities of two rows, shared and alone, and the largest of their sizes (nats)."""
    device = next(model.parameters()).device
    tokens = np.arange(3, 3 + PROMPT + sum(COMPLETIONS)) * 7919 % vocabulary
    prompt = tokens[:PROMPT]
    completions = np.split(tokens[PROMPT:], np.cumsum(COMPLETIONS)[:-1])
    packed = pack_rows([prompt] * len(completions), completions, min_saved=1, device=device)
    ((logps_M1, _),) = model(reads=(Read(packed.state_M, packed.target_M[:, None]),), packed=packed)
    shared_BT = packed.to_rows(logps_M1[:, 0])
    alone = [_alone(model, prompt, completion, temperature, device) for completion in completions]
    alone_BT = torch.nn.utils.rnn.pad_sequence(alone, batch_first=True)
    apart = (shared_BT.cpu() - alone_BT.cpu()).abs().sum() / sum(COMPLETIONS)
    return float(apart), float(alone_BT.abs().max())


def _alone(model: Any, prompt: Any, completion: Any, temperature: float, device: torch.device) -> Tensor:
    ids_1L = torch.from_numpy(np.concatenate([prompt, completion])[None]).to(device)
    logits_LV = model(input_ids=ids_1L, attention_mask=torch.ones_like(ids_1L), use_cache=False).logits[0].float()
    logps_TV = (logits_LV[len(prompt) - 1 : -1] / temperature).log_softmax(-1)
    logps_T: Tensor = logps_TV.gather(1, ids_1L[0, len(prompt) :, None].to(logps_TV.device))[:, 0]
    return logps_T
