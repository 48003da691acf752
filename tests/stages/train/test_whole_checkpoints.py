"""Checkpoints: every weight is loaded, damage is noticed, steps and not clocks order them, one training at a time."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from made_once import made_once
from tiny_models import tiny

from dphrl.cli.main import main
from dphrl.config.load import build_config, read_stored_config, write_stored_config
from dphrl.engines.common.weights_check import weight_digests
from dphrl.errors import RunDirError
from dphrl.models.policy import load_tokenizer
from dphrl.runs.checkpoints import (
    CHECKPOINT_DONE,
    Seal,
    Written,
    checksums,
    damage,
    last_checkpoint,
    marked_checkpoints,
    remove_old_checkpoints,
)
from dphrl.runs.lock import exclusive
from dphrl.runs.run_dir import RunDir
from dphrl.stages.train.launch import is_first
from dphrl.stages.train.train import train

FAMILIES = ("neox", "mixtral-router", "gpt-oss-sinks", "deepseek-v3-latent", "llama")
"""Without gpt-oss and llama, models that are saved under other names than they have in memory."""

TASK = {"data": "d.jsonl", "template": "{q}", "verifier": "lengths_modulo:f"}


def values_of(out: Path, **train_settings: Any) -> dict[str, Any]:
    """4 optimiser steps, a checkpoint after each generation of 2."""
    return {
        "out": str(out),
        "threads": 1,
        "method": "grpo",
        "model": {"path": "demo", "device": "cpu"},
        "task": {"data": "demo:in_domain", "limit": 12},
        "sampling": {"max_new_tokens": 8},
        "train": {"steps": 3, "prompts_per_step": 4, "group_size": 4, "learning_rate": 1e-2, **train_settings}
        | {"save_every": 1},
    }


def final_weights(run: RunDir) -> bytes:
    return (run.final / "model.safetensors").read_bytes()


def as_if_killed(whole: Path, out: Path, *steps: int) -> RunDir:
    """A copy of a finished run without its final model and the checkpoints of these steps."""
    shutil.copytree(whole, out)
    moved = replace(read_stored_config(out / "config.yaml"), out=str(out))
    write_stored_config(out / "config.yaml", moved)
    shutil.rmtree(out / "train/final")
    for step in steps:
        shutil.rmtree(out / f"train/checkpoint-{step}")
    return RunDir(out)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_that_is_saved_under_other_names_goes_on_to_the_bit(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Experts and GPT-NeoX's head once went on from the initial weights, and nothing was said."""
    values = values_of(tmp_path / "whole")
    tokenizer = load_tokenizer(build_config(values).model)
    model = tiny(family, vocabulary=len(tokenizer))
    if hasattr(model.config, "output_router_logits"):  # with a loss of its own, which cannot be drawn with
        model.config.output_router_logits = False
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "model")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "lengths_modulo.py").write_text(
        "def f(completions, **_): return [len(t) % 3 / 2 for t in completions]\n"
    )
    (tmp_path / "d.jsonl").write_text(
        "".join(json.dumps({"id": str(i), "q": "count of orders ;"}) + "\n" for i in range(12))
    )
    values |= {"model": {"path": str(tmp_path / "model"), "device": "cpu"}, "task": TASK}
    whole = train(build_config(values), base_dir=tmp_path)
    cut = as_if_killed(whole.root, tmp_path / "cut", 6)
    saved = Seal.read(cut.train / "checkpoint-4").weights
    initial = weight_digests(model)
    assert len(saved) == 1 and saved[0].keys() == initial.keys()
    changed = {name for name, digest in saved[0].items() if digest != initial[name]}
    for part in ("experts", "lm_head"):
        assert not [n for n in initial if part in n] or [n for n in changed if part in n]
    train(build_config({**values, "out": str(cut.root)}), base_dir=tmp_path)
    assert final_weights(cut) == final_weights(whole)


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A finished run with checkpoints of steps 4 and 6."""
    root = made_once(
        tmp_path_factory, "whole-checkpoints", lambda folder: train(build_config(values_of(folder / "run")))
    )
    return RunDir(root / "run")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 64
    path.write_bytes(content)


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


HARMS: dict[str, Callable[[Path], None]] = {
    "flip": flip,
    "short": shorten,
    "empty": lambda path: path.write_bytes(b""),
    "gone": Path.unlink,
}


@pytest.mark.slow
@pytest.mark.parametrize("harm", HARMS)
def test_damage_of_any_file_is_named(harm: str, whole: RunDir, tmp_path: Path) -> None:
    original = whole.train / "checkpoint-6"
    assert damage(original) == []
    names = sorted(p.name for p in original.iterdir())
    assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"} <= set(names)
    for name in names:
        checkpoint = shutil.copytree(original, tmp_path / name / "checkpoint-6")
        HARMS[harm](checkpoint / name)
        if (harm, name) == ("gone", CHECKPOINT_DONE):
            assert last_checkpoint(checkpoint.parent) is None  # as one that was torn by a kill
            continue
        (text,) = damage(checkpoint)
        assert f"checkpoint-6/{name} " in text
        for rank in range(3):
            share = damage(checkpoint, rank=rank, count=3)
            assert share in ([text], [])
        (checkpoint / "a-file-of-the-user").touch()
        assert damage(checkpoint) == [text]


@pytest.mark.slow
def test_the_checkpoint_before_a_damaged_one_is_gone_on_from(whole: RunDir, tmp_path: Path) -> None:
    run = as_if_killed(whole.root, tmp_path / "cut")
    flip(run.train / "checkpoint-6/optimizer.pt")
    said: list[str] = []
    train(build_config(values_of(run.root)), progress=lambda *told: said.append(told[3]))
    assert [text for text in said if "checkpoint-6/optimizer.pt has the checksum" in text and "checkpoint-4" in text]
    assert sorted(p.name for p in run.train.glob("*checkpoint-*")) == [
        "checkpoint-4",
        "checkpoint-6",
        "damaged-checkpoint-6",
    ]
    assert final_weights(run) == final_weights(whole)


@pytest.mark.slow
def test_no_training_begins_anew_in_silence(whole: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = as_if_killed(whole.root, tmp_path / "cut")
    flip(run.train / "checkpoint-6/model.safetensors")
    (run.train / "checkpoint-4" / CHECKPOINT_DONE).write_bytes(b"")
    before = run.metrics.read_bytes()
    config = tmp_path / "run.yaml"
    config.write_text(json.dumps(values_of(run.root)))
    assert main(["train", "--config", str(config)]) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "checkpoint-6/model.safetensors has the checksum" in said and "dphrl-complete is empty" in said
    assert run.metrics.read_bytes() == before and not run.final.exists()
    assert sorted(p.name for p in run.train.glob("*checkpoint-*")) == ["checkpoint-4", "checkpoint-6"]


@pytest.mark.slow
def test_weights_that_are_not_those_that_were_saved_are_refused(
    whole: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if a new version of transformers read a name otherwise."""
    run = as_if_killed(whole.root, tmp_path / "cut")
    original = torch.nn.Module.load_state_dict

    def forgetful(self: Any, state: Any, *args: Any, **kwargs: Any) -> Any:
        lacking = {name: x for name, x in state.items() if "layers.0" not in name}
        return original(self, lacking, strict=False)

    monkeypatch.setattr(torch.nn.Module, "load_state_dict", forgetful)
    with pytest.raises(RunDirError, match=r"checkpoint-6 was read, but \d+ of \d+ weights are not .*layers\.0"):
        train(build_config(values_of(run.root)))


@pytest.mark.slow
def test_a_clock_that_is_set_back_keeps_the_newest_steps(whole: RunDir, tmp_path: Path) -> None:
    run = as_if_killed(whole.root, tmp_path / "cut")
    for step in (4, 6):
        os.utime(run.train / f"checkpoint-{step}", (2**32, 2**32))
    longer = values_of(run.root)
    longer["train"]["steps"] = 4
    train(build_config(longer), allow_change=True)
    assert sorted(p.name for p in run.train.glob("*checkpoint-*")) == ["checkpoint-6", "checkpoint-8"]
    assert (run.final / "model.safetensors").exists()


def test_steps_are_numbers(tmp_path: Path) -> None:
    for step in (8, 9, 10, 11):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / CHECKPOINT_DONE).touch()
    (tmp_path / "checkpoint-of-mine").mkdir()
    remove_old_checkpoints(tmp_path, 2, also=tmp_path / "checkpoint-8")
    left = ["checkpoint-10", "checkpoint-11", "checkpoint-8", "checkpoint-of-mine"]
    assert sorted(p.name for p in tmp_path.iterdir()) == left
    assert [p.name for p in marked_checkpoints(tmp_path)] == ["checkpoint-11", "checkpoint-10", "checkpoint-8"]


def test_a_seal_is_read_as_it_was_written_or_refused(tmp_path: Path) -> None:
    (tmp_path / "of-rank").mkdir()
    (tmp_path / "of-rank" / "a").write_bytes(b"123456789")
    seal = Seal(checksums(tmp_path), [{"w": "00000001"}])
    assert seal.files == {"of-rank/a": Written(9, "cbf43926")}  # the check value of CRC-32
    seal.write(tmp_path)
    assert Seal.read(tmp_path) == seal and checksums(tmp_path) == seal.files and damage(tmp_path) == []
    path = tmp_path / CHECKPOINT_DONE
    path.write_text(path.read_text().replace("00000001", "00000002"))
    with pytest.raises(RunDirError, match="dphrl-complete is not as it was written"):
        Seal.read(tmp_path)


def test_a_second_training_in_a_run_is_refused_before_it_writes(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    run.root.mkdir()
    with exclusive(run.root), pytest.raises(RunDirError, match=r"another process is at work in .*run"):
        train(build_config(values_of(run.root)), allow_change=True)
    assert list(run.root.iterdir()) == []


HOLD = "import sys, time\nfrom pathlib import Path\nfrom dphrl.runs.lock import exclusive\n"
HOLD += "with exclusive(Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()"


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stdout.readline() == "held\n"
        with pytest.raises(RunDirError, match="another process"), exclusive(tmp_path):
            pass
        child.send_signal(signal.SIGKILL)
    with exclusive(tmp_path):
        assert child.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("environment", "first"),
    [({}, True), ({"RANK": "0"}, True), ({"RANK": "10"}, False), ({"OMPI_COMM_WORLD_RANK": "1"}, False)],
)
def test_the_first_process_of_a_launch_is_known_before_they_meet(environment: dict[str, str], first: bool) -> None:
    assert is_first(environment) is first
