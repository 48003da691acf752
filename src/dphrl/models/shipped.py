"""Models that are shipped with the package, by the name that stands in `model.path`."""

from __future__ import annotations

import importlib
from pathlib import Path

SHIPPED: dict[str, str] = {"demo": "dphrl.demo.task:model_folder"}
"""Name -> "module:function"; the function gives the model's folder."""


def shipped_model(name: str) -> Path | None:
    """The folder of a shipped model; None where no shipped model has this name."""
    if name not in SHIPPED:
        return None
    module, _, function = SHIPPED[name].partition(":")
    folder: Path = getattr(importlib.import_module(module), function)()
    return folder
