"""Positions of padded rows: left to the model, some models count the padding."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor

FOLLOW_THE_LONGEST_ROW = {"dynamic", "longrope"}
"""Kinds of rotary positions that change for all rows once one is longer than in pre-training."""


def row_positions(attention_mask_BL: Tensor) -> Tensor:
    """Positions that count from each row's first token, 0 on the padding to its left."""
    return (attention_mask_BL.cumsum(1) - 1).clamp(min=0)


def takes_positions(body: Any) -> bool:
    """Whether a model's body can be given positions."""
    return "position_ids" in inspect.signature(body.forward).parameters


def needs_positions(model: Any) -> bool:
    """Whether a row's log-probabilities may change with the padding to its left unless positions are given.

    Most rotary models (`rope_parameters` in their config) see only distances; the frequencies of some follow the
    longest position, which padding moves. Those with learned positions (GPT-2) count from the left edge, and a state
    may begin where the position is 0 (RecurrentGemma). `generate` gives positions to all of them, so that without them
    another policy would be trained than the one that is sampled.

    Args:
        model: a causal LM of transformers, or a PEFT model around one.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = base.config.get_text_config()
    rotary = getattr(config, "rope_parameters", None) is not None
    distances = rotary and not follows_longest_row(config) and not base._is_stateful
    return not distances and takes_positions(base.base_model)


def follows_longest_row(config: Any) -> bool:
    """Whether rotary frequencies follow the longest position of a forward, in some of a model's layers."""
    parameters = getattr(config, "rope_parameters", None) or {}
    parts = (parameters, *parameters.values())  # one for all layers, or one for each kind of them
    return bool({part.get("rope_type") for part in parts if isinstance(part, dict)} & FOLLOW_THE_LONGEST_ROW)


def with_positions(model: Any) -> Callable[..., Any]:
    """`model`, called with positions that count from each row's first token, as `dphrl.models.scoring` does."""

    def forward(*, attention_mask: Tensor, **kwargs: Any) -> Any:
        return model(attention_mask=attention_mask, position_ids=row_positions(attention_mask), **kwargs)

    return forward
