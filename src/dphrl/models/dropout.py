"""Dropout off, also where a model reads it from a number instead of a module."""

from __future__ import annotations

from typing import Any

from torch import nn


def turn_off_dropout(model: nn.Module) -> None:
    """Set every dropout of a model to 0, in place; its config, which is saved with it, stays as it is.

    `nn.Dropout` modules, and numbers that modules keep by a name with "drop" in it and hand to
    `nn.functional.dropout` or an attention kernel: OPT, XGLM, BioGPT, GPT-BigCode, `attention_dropout`, `layerdrop`.
    What a module reads from its config in the forward itself is not reached.
    """
    for module in model.modules():
        numbers: dict[str, Any] = vars(module)
        for name, value in numbers.items():
            dropped = name == "p" if isinstance(module, nn.modules.dropout._DropoutNd) else "drop" in name.lower()
            if dropped and isinstance(value, float):
                setattr(module, name, 0.0)
