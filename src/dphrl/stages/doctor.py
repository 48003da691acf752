"""`dphrl doctor`: what is installed, what works with it on this machine, and what to install for the rest."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from dphrl.config.sources import ModelConfig
from dphrl.engines import verl
from dphrl.engines.trl import INSTALL, PACKAGES, missing_packages
from dphrl.engines.verl.probe import verl_ability
from dphrl.models.policy import load_tokenizer
from dphrl.sampling.backends import BACKENDS, missing_modules

REQUIRED = ("torch", "transformers", "datasets", "pyarrow", "math-verify")


@dataclass(frozen=True, slots=True)
class Extra:
    """Something that needs packages beside those that dphrl always installs."""

    what: str
    packages: tuple[str, ...]
    install: str


EXTRAS = (
    Extra("training by TRL", PACKAGES, INSTALL),
    Extra("training an adapter (lora.r)", ("peft",), "pip install 'dphrl[lora]'"),
    Extra("models stored as GGUF", ("gguf",), "pip install 'dphrl[gguf]'"),
    Extra("tasks of reasoning-gym", ("reasoning-gym",), "pip install 'dphrl[gym]'"),
    Extra("dphrl eval --lm-eval", ("lm_eval",), "pip install 'dphrl[lm-eval]'"),
)


def installation_text() -> str:
    """A line for each package, and for each thing that works or does not."""
    return "\n".join((*_machine(), *_packages(), *_abilities()))


def _machine() -> Iterator[str]:
    yield f"python {platform.python_version()} on {platform.system()}, {os.cpu_count()} cores"
    yield _accelerator()
    yield f"disk: {shutil.disk_usage('.').free / 1e9:.0f} GB free here"


def _packages() -> Iterator[str]:
    for name in REQUIRED:
        yield f"{name} {_version(name) or 'MISSING: pip install dphrl'}"


def _abilities() -> Iterator[str]:
    tokenizer = load_tokenizer(ModelConfig(path="demo"))
    yield f"demo model: found, {len(tokenizer)} tokens; try {_first_command()}"
    yield "presample, eval, verify, compare and report: work"
    for extra in EXTRAS:
        absent = [name for name in extra.packages if find_spec(name.replace("-", "_")) is None]
        if absent:
            yield f"{extra.what}: needs {' and '.join(absent)}: {extra.install}"
        else:
            yield f"{extra.what}: works ({', '.join(f'{name} {_version(name)}' for name in extra.packages)})"
    yield f"training by verl: {verl_ability()}"
    for name in BACKENDS:
        yield f"sampling.backend={name}: {_backend(name)}"


def _first_command() -> str:
    if missing_packages():
        return f"`dphrl tasks`; to train: {INSTALL if verl.missing_packages() else '`dphrl docs verl`'}"
    return "`dphrl demo --quick`"


def _backend(name: str) -> str:
    """Whether a sampling backend can work here, or what to install."""
    backend, absent = BACKENDS[name], missing_modules(name)
    if absent:
        return f"needs {' and '.join(absent)}: {backend.install}"
    try:
        for module in backend.modules:
            importlib.import_module(module)
    except (ImportError, OSError) as error:  # built for another CUDA, another torch
        return f"installed, but cannot be loaded ({error}): {backend.install}"
    return f"works{backend.note}"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _accelerator() -> str:
    import torch

    if not torch.cuda.is_available():
        return "no GPU that torch can use: models run on the CPU"
    properties = torch.cuda.get_device_properties(0)
    return f"{torch.cuda.device_count()} GPU: {properties.name}, {properties.total_memory / 1e9:.0f} GB"
