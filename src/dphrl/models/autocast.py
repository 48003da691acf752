"""The context in which a model of float32 weights computes in 16 bits."""

from __future__ import annotations

from typing import Any


def computed_type(model: Any, autocast: str | None) -> Any:
    """The type of torch that a model's products are rounded to in `computing_in(model, autocast)`."""
    import torch

    return model.dtype if autocast is None else getattr(torch, autocast)


def computing_in(model: Any, autocast: str | None) -> Any:
    """torch's context in which a model's products are rounded to `autocast`; None = its weights' own type, also in
    another such context.

    Entering it is free; within it, and outside `torch.inference_mode`, each weight is cast once.
    """
    import torch

    dtype = torch.bfloat16 if autocast is None else computed_type(model, autocast)
    return torch.autocast(model.device.type, dtype, enabled=autocast is not None)
