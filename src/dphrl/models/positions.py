"""Positions of padded rows: left to the model, some models count the padding."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor


def row_positions(attention_mask_BL: Tensor) -> Tensor:
    """Positions that count from each row's first token, 0 on the padding to its left."""
    return (attention_mask_BL.cumsum(1) - 1).clamp(min=0)


def takes_positions(body: Any) -> bool:
    """Whether a model's body can be given positions."""
    return "position_ids" in inspect.signature(body.forward).parameters


def needs_positions(model: Any) -> bool:
    """Whether a row's log-probabilities may change with the padding to its left unless positions are given.

    Rotary models (`rope_parameters` in their config) see only distances. Of the others, those with learned positions
    (GPT-2) count from the left edge; `generate` gives them positions, so that without them another policy would be
    trained than the one that is sampled.

    Args:
        model: a causal LM of transformers, or a PEFT model around one.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    rotary = getattr(base.config.get_text_config(), "rope_parameters", None) is not None
    return not rotary and takes_positions(base.base_model)


def with_positions(model: Any) -> Callable[..., Any]:
    """`model`, called with positions that count from each row's first token, as `dphrl.models.scoring` does."""

    def forward(*, attention_mask: Tensor, **kwargs: Any) -> Any:
        return model(attention_mask=attention_mask, position_ids=row_positions(attention_mask), **kwargs)

    return forward
