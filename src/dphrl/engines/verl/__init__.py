"""Training by verl, into which dphrl goes as a plug-in. verl is an extra: only what `PLUGIN` loads imports it."""

from __future__ import annotations

from importlib.util import find_spec

from dphrl.errors import ConfigError

MODULES = {
    "verl": "verl",
    "fastapi": "fastapi",
    "uvicorn": "uvicorn",
    "cachetools": "cachetools",
    "TransferQueue": "transfer_queue",
}
"""Package -> module. verl 0.9 imports the last four where its trainers begin, but does not ask pip for them."""
PACKAGES = tuple(MODULES)
INSTALL = "pip install 'dphrl[verl]'"
KNOWN_VERSION = "0.9"
"""The minor version of verl whose hooks the plug-in knows."""
PLUGIN = "dphrl.engines.verl.plugin"
"""What verl's entry point group `verl.plugins` loads under the name dphrl: registers the trainers of `MODES`."""
REWARD = "pkg://dphrl.engines.verl.reward"
"""verl's `reward.custom_reward_function.path` for our verifiers."""
MODES = ("dph", "dph_colocate_async", "dph_separate_async")
"""Words for verl's `trainer.v1.trainer_mode`; they go with verl's sync, colocate_async and separate_async."""


def missing_packages() -> tuple[str, ...]:
    """What training by verl needs and this installation lacks."""
    return tuple(name for name, module in MODULES.items() if find_spec(module) is None)


def check_installed() -> None:
    """Raises:
    ConfigError: training by verl cannot begin here; says what to install.
    """
    if missing := missing_packages():
        raise ConfigError(f"verl's trainers need {', '.join(missing)}; install what is missing with {INSTALL}")
