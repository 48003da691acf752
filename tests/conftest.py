"""Shared by all tests: the shipped model, a small config on it, and where the real data lies."""

from __future__ import annotations

import os
import signal
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may ask a hub
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs in the background with Ctrl-C ignored, and so would every process that a test interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)

NEEDED = {"trl": "engines/trl", "httpx2": "sampling/test_openai.py"}
"""Package -> tests that cannot even be imported without it: the environment of `make test-verl` has neither."""
collect_ignore = [path for package, path in NEEDED.items() if find_spec(package) is None]

LONGEST_FIRST = (
    "stages/train/test_launch.py",
    "verifiers/math/test_benchmarks.py",
    "e2e/test_commands.py",
    "stages/train/test_resume_ranks.py",
    "engines/trl/test_ranks.py",
    "stages/train/test_resume.py",
    "docs/test_commands.py",
)
"""Files that take longest come first, so that no process waits for another one's long test at the end."""
SHARED = Path(__file__).parents[2] / "shared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files of LONGEST_FIRST before all others; nothing else changes its order."""
    here = Path(__file__).parent
    place = {here / file: number for number, file in enumerate(LONGEST_FIRST)}
    assert all(path.is_file() for path in place), "a file of LONGEST_FIRST has moved: write its new path there"
    items.sort(key=lambda item: place.get(item.path, len(place)))


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
        "objective": {"eta": 0.2, "anchors_per_step": 8},
        "train": {"steps": 2, "prompts_per_step": 4, "group_size": 4, "learning_rate": 1e-3, "save_every": 1},
        "eval": {"n": 4, "resamples": 200},
    }
