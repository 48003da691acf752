"""What is measured is what was trained and what training began with, to the bit."""

from __future__ import annotations

import shutil
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
from made_once import made_once

from dphrl.config.load import build_config
from dphrl.demo.task import model_folder
from dphrl.errors import RunDirError
from dphrl.files import read_json
from dphrl.runs.checkpoints import CHECKPOINT_DONE as SEAL
from dphrl.runs.run_dir import RunDir
from dphrl.stages.evaluate.evaluate import evaluate
from dphrl.stages.train.train import train


def config_of() -> Any:
    return build_config(
        {
            "out": "run",
            "method": "grpo",
            "threads": 1,
            "model": {"path": "model", "device": "cpu", "dtype": "bfloat16"},
            "task": {"data": "demo:in_domain", "limit": 8},
            "eval_tasks": {"t": {"data": "demo:in_domain", "split": "eval", "limit": 2}},
            "sampling": {"max_new_tokens": 16},
            "train": {"steps": 1, "prompts_per_step": 2, "group_size": 4, "learning_rate": 1e-3},
            "eval": {"n": 2, "resamples": 100},
        }
    )


def make(folder: Path) -> None:
    shutil.copytree(model_folder(), folder / "model")
    with chdir(folder):
        train(config_of())


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A trained run and its initial model, to be spoilt."""
    shutil.copytree(made_once(tmp_path_factory, "same-weights", make), tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.slow
def test_a_base_that_was_replaced_is_refused(folder: Path) -> None:
    flip(folder / "model" / "model.safetensors", -9)
    with pytest.raises(RunDirError, match=r"the weights of .*model .* are not those that the run began with .*started"):
        evaluate(config_of(), models=("base",))
    assert not (folder / "run" / "eval" / "base" / "summary.json").exists()
    flip(folder / "model" / "model.safetensors", -9)
    evaluate(config_of())


@pytest.mark.slow
def test_a_bit_of_the_trained_model_that_flipped_is_found(folder: Path) -> None:
    run = RunDir(Path("run"))
    evaluate(config_of(), models=("base",))
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= set(read_json(run.final / SEAL)["files"])
    for name in ("model.safetensors", SEAL):
        flip(run.final / name, 200)
        with pytest.raises(RunDirError, match=f"{name}.*copy the model back, or remove .*final and run `dphrl train`"):
            evaluate(config_of(), models=("final",))
        flip(run.final / name, 200)
    evaluate(config_of(), models=("final",))
