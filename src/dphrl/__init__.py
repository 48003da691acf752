"""Post-train a language model with verifiable rewards without losing its Pass@k or its other skills (DPH-RL).

The names below are loaded when they are first used, so that `import dphrl` is quick and needs no TRL.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dphrl.errors import ConfigError

if TYPE_CHECKING:
    from dphrl.config.load import load_config
    from dphrl.engines.trl.dph_config import DPHConfig
    from dphrl.engines.trl.trainer import DPHTrainer
    from dphrl.stages.evaluate.evaluate import evaluate
    from dphrl.stages.presample.presample import presample
    from dphrl.stages.report.write_report import write_report as write_report
    from dphrl.stages.train.train import train

__version__ = "0.1.0"
__all__ = [
    "DPHConfig",
    "DPHTrainer",
    "__version__",
    "evaluate",
    "load_config",
    "presample",
    "train",
    "write_report",
]

_PLACES = {
    "DPHConfig": "dphrl.engines.trl.dph_config:DPHConfig",
    "DPHTrainer": "dphrl.engines.trl.trainer:DPHTrainer",
    "load_config": "dphrl.config.load:load_config",
    "presample": "dphrl.stages.presample.presample:presample",
    "train": "dphrl.stages.train.train:train",
    "evaluate": "dphrl.stages.evaluate.evaluate:evaluate",
    "write_report": "dphrl.stages.report.write_report:write_report",
}
"""Public name -> where it is defined."""


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'dphrl' has no attribute {name!r}")
    module, _, attribute = _PLACES[name].partition(":")
    if module.startswith("dphrl.engines.trl"):
        from dphrl.engines.trl import check_installed

        try:
            check_installed()
        except ConfigError as error:
            raise ImportError(f"dphrl.{name}: {error}") from None
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
