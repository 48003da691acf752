"""Training by TRL's GRPOTrainer. TRL is an extra: nothing but training imports these modules."""

from __future__ import annotations

from importlib.util import find_spec

from dphrl.errors import ConfigError

PACKAGES = ("trl", "accelerate")
INSTALL = "pip install 'dphrl[trl]'"


def missing_packages() -> tuple[str, ...]:
    """What training needs and this installation lacks."""
    return tuple(name for name in PACKAGES if find_spec(name) is None)


def check_installed() -> None:
    """Raises:
    ConfigError: training cannot begin here; says what to install.
    """
    if missing := missing_packages():
        raise ConfigError(f"training needs {' and '.join(missing)}; install what is missing with {INSTALL}")
