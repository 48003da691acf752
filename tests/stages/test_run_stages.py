"""`dphrl run`: what training or evaluation would refuse is refused before anything is drawn."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from dphrl.cli.main import main
from dphrl.config.load import build_config
from dphrl.errors import DphrlError
from dphrl.stages.run_stages import run_stages


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": {"micro_batch": 3}}, "do not divide into micro-batches of 3"),
        ({"train": {"trl": {"use_vlm": True}}}, "did you mean 'use_vllm'"),
        ({"eval_tasks": {}}, "eval_tasks is empty"),
        ({"eval_tasks": {"t": {"data": "missing.csv"}}}, "must be a .jsonl, .json, .parquet file"),
        ({"eval_tasks": {"t": {"data": "missing.jsonl"}}}, "'missing.jsonl' does not exist"),
        ({"eval_tasks": {"t": {"data": "rows.jsonl.gz"}}}, "unpack or convert "),
    ],
)
def test_late_mistakes_come_first(demo_values: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    for key, value in changes.items():
        demo_values[key] = {**demo_values[key], **value} if key == "train" else value
    with pytest.raises(DphrlError, match=re.escape(message)):
        run_stages(build_config(demo_values), base_dir=Path())
    assert not (Path(demo_values["out"]) / "presample").exists()


def test_what_cannot_be_a_run_directory_is_refused_in_one_message(
    demo_values: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    for out in ("file", "file/run", "nowhere", "x" * 300, "a\0b"):
        config = tmp_path / "c.yaml"
        config.write_text(yaml.safe_dump({**demo_values, "out": str(tmp_path / out)}))
        for command in ("run", "presample", "train", "eval"):
            assert main([command, "--config", str(config)]) == 2, (command, out)
            said = capsys.readouterr().err
            assert said.startswith("dphrl: ") and "give another --out" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.yaml", "file", "nowhere"]
