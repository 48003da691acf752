"""The balancing loss that TRL adds for a mixture of experts: its weight, and whether TRL can compute it."""

from __future__ import annotations

from typing import Any

from dphrl.errors import ConfigError


def balancing_weight(config: Any, asked: float | None) -> float:
    """What TRL multiplies a model's balancing loss with; 0 = none is added.

    Args:
        config: of a causal LM of transformers.
        asked: `train.trl.router_aux_loss_coef`; None = the model's own.
    """
    text = config.get_text_config()
    own = getattr(text, "router_aux_loss_coef", 0.0) if asked is None else asked
    return float(own or 0.0) if hasattr(text, "output_router_logits") else 0.0


def check_balancing_loss(config: Any, asked: float | None) -> None:
    """Refuse a mixture whose balancing loss TRL would fail to compute at the first step.

    Args:
        As `balancing_weight`.
    Raises:
        ConfigError: with what leaves it out.
    """
    weight, text = balancing_weight(config, asked), config.get_text_config()
    lacking = [name for name in ("num_experts", "num_experts_per_tok") if not getattr(text, name, None)]
    if weight and lacking:
        raise ConfigError(
            f"TRL adds {weight:g} times a mixture's balancing loss, and reads {' and '.join(lacking)} of the model's "
            f"config for it, which {type(text).__name__} does not give; set train.trl.router_aux_loss_coef to 0"
        )
