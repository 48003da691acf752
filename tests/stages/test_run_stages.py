"""`dphrl run`: what training or evaluation would refuse is refused before anything is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dphrl.config.load import build_config
from dphrl.errors import ConfigError
from dphrl.stages.run_stages import run_stages


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": {"micro_batch": 3}}, "do not divide into micro-batches of 3"),
        ({"train": {"trl": {"use_vlm": True}}}, "did you mean 'use_vllm'"),
        ({"eval_tasks": {}}, "eval_tasks is empty"),
    ],
)
def test_late_mistakes_come_first(demo_values: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    for key, value in changes.items():
        demo_values[key] = {**demo_values[key], **value} if value else value
    with pytest.raises(ConfigError, match=message):
        run_stages(build_config(demo_values), base_dir=Path())
    assert not (Path(demo_values["out"]) / "presample").exists()
