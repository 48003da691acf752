"""`dphrl doctor`: what is installed, which engines work here, what to install."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version

from dphrl.engines.trl import INSTALL, missing_packages

REQUIRED = ("torch", "transformers", "datasets", "pyarrow", "math-verify")
OPTIONAL = {
    "trl": "training: pip install 'dphrl[trl]'",
    "accelerate": "training: pip install 'dphrl[trl]'",
    "gguf": "models stored as GGUF: pip install 'dphrl[gguf]'",
    "lm_eval": "dphrl eval --lm-eval: pip install 'dphrl[lm-eval]'",
    "peft": "LoRA: pip install 'dphrl[lora]'",
}


def doctor() -> None:
    """Print one line a fact, plainly."""
    from dphrl.config.sources import ModelConfig
    from dphrl.models.policy import load_tokenizer
    from dphrl.sampling.backends import BACKENDS

    print(f"python {platform.python_version()} on {platform.system()}, {os.cpu_count()} cores")
    for name in REQUIRED:
        print(f"{name} {_version(name) or 'MISSING: pip install dphrl'}")
    for name, hint in OPTIONAL.items():
        print(f"{name} {_version(name) or f'not installed ({hint})'}")
    print(_accelerator())
    print(f"disk: {shutil.disk_usage('.').free / 1e9:.0f} GB free here")
    for name in BACKENDS:
        print(f"sampling.backend={name}: {_backend(name)}")
    tokenizer = load_tokenizer(ModelConfig(path="demo"))
    print(f"demo model: found, {len(tokenizer)} tokens; try {_first_command()}")


def _first_command() -> str:
    if missing_packages():
        return f"`dphrl tasks`; to train: {INSTALL}"
    return "`dphrl demo --quick`"


def _backend(name: str) -> str:
    """Whether a sampling backend can work here, or what to install."""
    from dphrl.sampling.backends import BACKENDS, missing_modules

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
