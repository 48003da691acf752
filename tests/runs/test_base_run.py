"""A run that takes its anchors from another one agrees with it in what they depend on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dphrl.config.load import build_config
from dphrl.errors import RunDirError
from dphrl.runs.run_dir import RunDir, base_of, open_run


def test_a_base_run_agrees_in_what_its_draws_depend_on(tmp_path: Path) -> None:
    values: dict[str, Any] = {"model": {"path": "demo"}, "task": {"data": "demo:in_domain"}}
    open_run(build_config({**values, "out": str(tmp_path / "base")}))
    values |= {"out": str(tmp_path / "run"), "base_run": str(tmp_path / "base")}
    run = RunDir(tmp_path / "run")
    assert base_of(build_config({**values, "method": "grpo"}), run).root == tmp_path / "base"
    seeded = build_config({**values, "seed": 1, "anchor": {"threshold": 3}})
    changed = r"(?s)anchor.threshold: there 6, now 3\n  seed: there 0, now 1\ngive the values"
    with pytest.raises(RunDirError, match=changed):
        base_of(seeded, run)
