"""The context in which a model of float32 weights computes in 16 bits."""

from __future__ import annotations

from typing import Any


def computing_in(model: Any, dtype: str | None) -> Any:
    """torch's context in which a model's products are rounded to `dtype`; None = its weights' own type, also in another
    such context.

    Entering it is free; within it each weight is cast once.
    """
    import torch

    return torch.autocast(model.device.type, getattr(torch, dtype or "bfloat16"), enabled=dtype is not None)
