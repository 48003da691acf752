"""Positions of padded rows: TRL leaves them to the model, and some models then count the padding."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from trl import GRPOTrainer


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
    """`model`, called with positions that count from each row's first token; the rule of `dphrl.models.scoring`."""

    def forward(*, attention_mask: Any, **kwargs: Any) -> Any:
        position_ids = (attention_mask.cumsum(1) - 1).clamp(min=0)
        return model(attention_mask=attention_mask, position_ids=position_ids, **kwargs)

    return forward


class GivesPositions(GRPOTrainer):  # type: ignore[misc]
    """TRL's trainer, scoring with positions wherever the model needs them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._gives_positions = needs_positions(self.model)

    def _get_per_token_logps_and_entropies(self, model: Any, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        output: tuple[Any, ...] = super()._get_per_token_logps_and_entropies(self._called(model), *args, **kwargs)
        return output

    def _called(self, model: Any) -> Any:
        """What to call in the model's place."""
        return with_positions(model) if self._gives_positions else model
