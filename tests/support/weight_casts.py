"""How often a weight is copied into another type."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class WeightCasts(TorchDispatchMode):
    """Within it, `count` is the number of copies of tensors of one shape into another type."""

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.shape, self.count = shape, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name in ("aten::to", "aten::_to_copy") and args[0].shape == self.shape:
            self.count += 1
        return func(*args, **(kwargs or {}))
