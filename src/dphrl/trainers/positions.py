"""Positions of padded rows: TRL leaves them to the model, and some models then count the padding."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


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
    return not rotary and "position_ids" in inspect.signature(base.base_model.forward).parameters


def with_positions(model: Any) -> Callable[..., Any]:
    """`model`, called with positions that count from each row's first token; the rule of `dphrl.scoring`."""

    def forward(*, attention_mask: Any, **kwargs: Any) -> Any:
        position_ids = (attention_mask.cumsum(1) - 1).clamp(min=0)
        return model(attention_mask=attention_mask, position_ids=position_ids, **kwargs)

    return forward
