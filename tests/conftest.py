"""Shared by all tests: the shipped model, a small config on it, and where the real data lies."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may ask a hub
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the project."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there: real data is not shipped with the project")
    return folder


@pytest.fixture
def demo_values(tmp_path: Path) -> dict[str, Any]:
    """Settings of a run of a few seconds on the shipped model."""
    return {
        "out": str(tmp_path / "run"),
        "threads": 1,
        "model": {"path": "demo", "device": "cpu"},
        "task": {"data": "demo:in_domain", "limit": 48},
        "eval_tasks": {"in_domain": {"data": "demo:in_domain", "split": "eval", "limit": 6}},
        "sampling": {"max_new_tokens": 40, "batch_size": 512},
        "anchor": {"presamples": 4, "threshold": 3},
        "objective": {"anchors_per_step": 8},
        "train": {"steps": 2, "prompts_per_step": 4, "group_size": 4, "learning_rate": 1e-3, "save_every": 1},
        "eval": {"n": 4, "resamples": 200},
    }
