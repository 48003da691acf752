"""Post-train a language model with verifiable rewards without losing its Pass@k or its other skills (DPH-RL)."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["DPHConfig", "DPHTrainer", "__version__"]


def __getattr__(name: str) -> Any:
    """The trainer pulls in torch and TRL, so it is loaded only when it is asked for."""
    if name == "DPHConfig":
        from dphrl.engines.trl.config import DPHConfig

        return DPHConfig
    if name == "DPHTrainer":
        from dphrl.engines.trl.trainer import DPHTrainer

        return DPHTrainer
    raise AttributeError(f"module 'dphrl' has no attribute {name!r}")
