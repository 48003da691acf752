"""A training that a signal or a kill ended goes on as if nothing had happened; one that was changed says so."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from made_once import made_once
from safetensors.torch import load_file

from dphrl.cli.main import main
from dphrl.config.load import build_config
from dphrl.engines.trl.trainer import DPHTrainer
from dphrl.errors import RunDirError, Stopped
from dphrl.files import read_json, without_checksum, write_json
from dphrl.runs.checkpoints import last_checkpoint
from dphrl.runs.run_dir import RunDir
from dphrl.runs.training_log import read_metrics
from dphrl.runs.training_start import Digested, TrainingStart
from dphrl.stages.presample.presample import presample
from dphrl.stages.train.check_resume import Found, changes_between, prepare_to_go_on
from dphrl.stages.train.train import train

VALUES: dict[str, Any] = {
    "threads": 1,
    "model": {"path": "demo", "device": "cpu"},
    "task": {"data": "demo:in_domain", "limit": 24},
    "sampling": {"max_new_tokens": 30, "batch_size": 512},
    "anchor": {"presamples": 4, "threshold": 3},
    "objective": {"eta": 0.2, "anchors_per_step": 8},
    "train": {
        "steps": 7,
        "prompts_per_step": 4,
        "group_size": 4,
        "micro_batch": 4,
        "learning_rate": 1e-3,
        "lr_schedule": "linear",
        "save_every": 3,
        "log_every": 4,
    },
}
"""14 optimiser steps of 2 micro-batches; a pass over the prompts is 2 generations, a log line is of 4 steps."""

TARGET = {"objective": {"eta_schedule": "target", "drift_target": 0.01, "eta_bounds": [0.02, 2.0]}}


@pytest.fixture(scope="session")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was pre-sampled."""
    return made_once(tmp_path_factory, "resume-sets", presample_sets) / "run"


def presample_sets(folder: Path) -> None:
    presample(config_of(folder / "run"), base_dir=Path())


def config_of(out: Path, **sections: Any) -> Any:
    values = {"out": str(out), **VALUES}
    if sections.get("method", "dph") not in ("dph", "replay"):
        values.pop("objective", None)  # of the methods with anchors
    values |= {k: {**values.get(k, {}), **v} if isinstance(v, dict) else v for k, v in sections.items()}
    return build_config(values)


def copied(sets: Path, out: Path) -> Path:
    shutil.copytree(sets, out)
    return out


@pytest.fixture
def at_micro_step(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, Callable[[], None]], None]]:
    """Do something before the n-th forward of the training, counted from 0."""
    original = DPHTrainer.training_step

    def set_up(wanted: int, act: Callable[[], None]) -> None:
        count = iter(range(10**6))

        def step(self: Any, *args: Any, **kwargs: Any) -> Any:
            if next(count) == wanted:
                act()
            return original(self, *args, **kwargs)

        monkeypatch.setattr(DPHTrainer, "training_step", step)

    yield set_up
    monkeypatch.setattr(DPHTrainer, "training_step", original)


def lines(run: RunDir) -> list[dict[str, Any]]:
    """metrics.jsonl without times, keys in their order."""
    rows = read_metrics(run.metrics)
    return [list({k: v for k, v in row.items() if not is_time(k)}.items()) for row in rows]


def is_time(name: str) -> bool:
    return "time" in name or name.startswith("throughput/")


def weights(run: RunDir) -> bytes:
    return (run.final / "model.safetensors").read_bytes()


def assert_same(one: RunDir, other: RunDir) -> None:
    assert lines(one) == lines(other)
    assert weights(one) == weights(other)


def send(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "stops"),
    [
        (
            {"method": "dph", **TARGET},
            ((4, signal.SIGTERM), (5, signal.SIGUSR1), (10, signal.SIGINT), (0, signal.SIGTERM)),
        ),
        ({"method": "dapo"}, ((12, signal.SIGTERM),)),
    ],
    ids=["dph", "dapo"],
)
def test_a_signal_at_any_step_changes_nothing(
    changes: Any, stops: Any, sets: Path, tmp_path: Path, at_micro_step: Any
) -> None:
    """Within a generation and between two, in the first pass over the prompts and the third, several times over."""
    whole = train(config_of(copied(sets, tmp_path / "whole"), **changes), base_dir=Path())
    config = config_of(copied(sets, tmp_path / "cut"), **changes)
    done = 0
    for micro, number in stops:
        at_micro_step(micro, send(number))
        with pytest.raises(Stopped) as stop:
            train(config, base_dir=Path())
        done += micro // 2 + 1
        assert stop.value.number == number and f"step {done} is saved" in str(stop.value)
        assert (RunDir(tmp_path / "cut").train / f"checkpoint-{done}" / "dphrl-complete").exists()
        at_micro_step(-1, lambda: None)
    assert_same(train(config, base_dir=Path()), whole)


@pytest.mark.slow
def test_bfloat16_goes_on_with_its_float32_weights(tmp_path: Path, at_micro_step: Any) -> None:
    """A checkpoint holds all their bits, of which the final model has half."""
    changes: dict[str, Any] = {"method": "grpo", "model": {"dtype": "bfloat16"}, "train": {"steps": 4}}
    whole = train(config_of(tmp_path / "whole", **changes), base_dir=Path())
    config = config_of(tmp_path / "cut", **changes)
    at_micro_step(5, send(signal.SIGTERM))
    with pytest.raises(Stopped):
        train(config, base_dir=Path())
    at_micro_step(-1, lambda: None)
    cut = train(config, base_dir=Path())
    assert_same(cut, whole)
    last = [load_file(run.train / "checkpoint-8/model.safetensors") for run in (cut, whole)]
    assert all(x.dtype == torch.float32 and torch.equal(x, last[1][name]) for name, x in last[0].items())
    final = load_file(cut.final / "model.safetensors")
    assert all(torch.equal(x.to(torch.bfloat16), final[name]) for name, x in last[0].items())
    assert any(not torch.equal(x.to(torch.bfloat16).float(), x) for x in last[0].values())


@pytest.mark.slow
def test_a_kill_in_the_middle_of_a_rollout_changes_nothing(sets: Path, tmp_path: Path, at_micro_step: Any) -> None:
    """SIGKILL while step 9 draws; what a kill while saving leaves behind, and half a line, do no harm."""
    changes = {"method": "dph", "train": {"save_every": 2}}
    whole = train(config_of(copied(sets, tmp_path / "whole"), **changes), base_dir=Path())
    config = config_of(copied(sets, tmp_path / "cut"), **changes)
    run = RunDir(tmp_path / "cut")
    child = os.fork()
    if child == 0:  # pragma: no cover
        try:
            DPHTrainer._generate_single_turn = killed_at(5, DPHTrainer._generate_single_turn)
            train(config, base_dir=Path())
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert last_checkpoint(run.train) == run.train / "checkpoint-8" and not run.final.exists()
    torn = run.train / "checkpoint-12"
    torn.mkdir()
    (torn / "trainer_state.json").write_text("{}")
    with run.metrics.open("a") as file:
        file.write('{"step": 9, "loss"')
    assert_same(train(config, base_dir=Path()), whole)


def killed_at(draw: int, original: Any) -> Any:
    count = iter(range(1, 10**6))

    def draws(self: Any, *args: Any, **kwargs: Any) -> Any:
        if next(count) == draw:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, *args, **kwargs)

    return draws


@pytest.mark.slow
def test_a_run_whose_last_step_is_saved_trains_no_step_more(sets: Path, tmp_path: Path, at_micro_step: Any) -> None:
    """Killed between the last checkpoint and the final model; 7 generations end within a pass over the prompts."""
    config = config_of(copied(sets, tmp_path / "run"), method="grpo")
    run = train(config, base_dir=Path())
    before, rows = weights(run), lines(run)
    shutil.rmtree(run.final)

    def unwanted() -> None:
        raise AssertionError("a step was trained")

    at_micro_step(0, unwanted)
    train(config, base_dir=Path())
    assert weights(run) == before and lines(run) == rows


@pytest.fixture
def begun(sets: Path, tmp_path: Path, at_micro_step: Any) -> Callable[..., Path]:
    """A training that was stopped at a micro-step (6: between two generations, 5: within one)."""

    def make(micro: int = 6, **changes: Any) -> Path:
        out = copied(sets, tmp_path / "run")
        at_micro_step(micro, send(signal.SIGTERM))
        with pytest.raises(Stopped):
            train(config_of(out, **changes), base_dir=Path())
        at_micro_step(-1, lambda: None)
        return out

    return make


def started(run: RunDir) -> dict[str, Any]:
    content: dict[str, Any] = read_json(run.started)
    return content


@pytest.mark.slow
def test_a_changed_setting_is_named_refused_and_allowed(begun: Any) -> None:
    run = RunDir(begun(method="dph"))
    faster = {"method": "dph", "train": {**VALUES["train"], "learning_rate": 2e-3, "log_every": 1}}
    with pytest.raises(RunDirError, match=r"train.learning_rate: there 0.001, now 0.002[\s\S]*--allow-change"):
        train(config_of(run.root, **faster), base_dir=Path())
    other = {**faster, "train": {"updates": 4, "learning_rate": 2e-3}}
    with pytest.raises(RunDirError, match=r"no checkpoint can go on:\n  train.updates: there 2, now 4\ng") as refused:
        train(config_of(run.root, **other), base_dir=Path(), allow_change=True)
    assert "allow-change" not in str(refused.value)
    assert started(run)["settings"]["train"]["learning_rate"] == 1e-3

    train(config_of(run.root, **faster), base_dir=Path(), allow_change=True)
    (line,) = [json.loads(text) for text in run.changes.read_text().splitlines()]
    assert line["step"] == 4 and line["changes"] == {
        "train.learning_rate": {"old": 1e-3, "new": 2e-3},
        "train.log_every": {"old": 4, "new": 1},
    }
    rows = [json.loads(text) for text in run.metrics.read_text().splitlines()]
    assert [row["step"] for row in rows] == [4, *range(5, 15)]
    assert [row["learning_rate"] for row in rows[1:4]] == pytest.approx([2e-3 * (1 - n / 14) for n in (4, 5, 6)])
    assert started(run)["settings"]["train"]["learning_rate"] == 2e-3
    with pytest.raises(RunDirError, match=r"train.learning_rate"):  # it is finished: nothing could go on
        train(config_of(run.root, method="dph"), base_dir=Path(), allow_change=True)


@pytest.mark.slow
def test_changed_anchors_and_prompts_are_named(begun: Any, sets: Path) -> None:
    """The same settings, but files that were made again: fewer prompts in the set, another digest of anchors."""
    run = RunDir(begun(method="dph"))
    partition = read_json(run.partition)
    moved, partition["exploration"] = partition["exploration"][0], partition["exploration"][1:]
    partition["dropped"][moved] = "by hand"
    write_json(run.partition, partition)
    with pytest.raises(RunDirError, match=r"prompts.count: there (\d+), now (\d+)\n  prompts.digest") as refused:
        train(config_of(run.root, method="dph"), base_dir=Path())
    assert "anchors." not in str(refused.value) and "train." not in str(refused.value)
    content = started(run)
    content["anchors"]["digest"] = "0" * 64
    content["ranks"] = 2
    write_json(run.started, content)
    with pytest.raises(RunDirError, match=r"anchors.digest: there '0+', now '[0-9a-f]+'[\s\S]*ranks: there 2, now 1"):
        train(config_of(run.root, method="dph"), base_dir=Path())
    content["policy"]["weights"] = "0" * 32
    write_json(run.started, content)
    with pytest.raises(RunDirError, match=r"no checkpoint survives:\n  policy.weights: there '0+'"):
        train(config_of(run.root, method="dph"), base_dir=Path(), allow_change=True)
    assert not run.changes.exists()


@pytest.mark.slow
def test_nothing_changed_says_nothing_and_free_settings_are_free(begun: Any) -> None:
    run = RunDir(begun(method="grpo"))
    said: list[Any] = []
    values = {**VALUES["train"], "save_every": 1, "max_bad_steps": 9}
    train(
        config_of(run.root, method="grpo", train=values),
        base_dir=Path(),
        allow_change=True,
        progress=lambda *told: said.append(told),
    )
    assert not run.changes.exists() and not [told for told in said if "chang" in told[0]]


@pytest.mark.slow
def test_a_checkpoint_within_a_generation_needs_the_same_batches(begun: Any) -> None:
    run = RunDir(begun(5, method="grpo"))
    assert last_checkpoint(run.train) == run.train / "checkpoint-3"
    halved = config_of(run.root, method="grpo", train={"micro_batch": 2})
    with pytest.raises(RunDirError, match=r"checkpoint-3 was saved within a generation.*micro_batch"):
        train(halved, base_dir=Path(), allow_change=True)
    shutil.rmtree(run.train / "checkpoint-3")
    train(halved, base_dir=Path(), allow_change=True)  # nothing is left to go on from: begun anew


def test_a_torn_checkpoint_goes_and_lines_of_steps_to_come(tmp_path: Path) -> None:
    """Left there, it would count among those that are kept, and push out the last whole one."""
    run = RunDir(tmp_path)
    for step, whole in ((8, True), (10, True), (12, False)):
        (run.train / f"checkpoint-{step}").mkdir(parents=True)
        if whole:
            (run.train / f"checkpoint-{step}" / "dphrl-complete").touch()
    run.metrics.write_text('{"step": 9}\n\n{"step": 10, "a": "\u2028"}\n{"step": 11}\n{"step": 1')
    prepare_to_go_on(run, Found(last_checkpoint(run.train)))
    assert sorted(p.name for p in run.train.glob("checkpoint-*")) == ["checkpoint-10", "checkpoint-8"]
    rows = run.metrics.read_text().removesuffix("\n").split("\n")
    assert [without_checksum(json.loads(row)) for row in rows] == [{"step": 9}, {"step": 10, "a": "\u2028"}]
    assert run.warnings.read_text() == ""
    prepare_to_go_on(run, Found())
    assert run.metrics.read_text() == ""


def test_changes_are_named_without_the_empty_and_the_free() -> None:
    same: dict[str, Any] = {"policy": {}, "prompts": Digested(2, "p"), "ranks": 1}
    old = TrainingStart(settings={"train": {"steps": 3, "trl": {}}, "threads": 1}, anchors=None, **same)
    settings = {"train": {"steps": 4, "trl": {"optim": "x"}}, "threads": 2}
    assert changes_between(old, TrainingStart(settings=settings, anchors=Digested(3, "a"), **same)) == {
        "anchors.count": (None, 3),
        "anchors.digest": (None, "a"),
        "train.steps": (3, 4),
        "train.trl.optim": (None, "x"),
    }


@pytest.mark.slow
def test_the_command_ends_with_the_signals_status_and_goes_on_with_a_change(
    sets: Path, tmp_path: Path, at_micro_step: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = copied(sets, tmp_path / "run")
    config = tmp_path / "run.yaml"
    measured = {"eval_tasks": {"in_domain": {"data": "demo:in_domain", "split": "eval", "limit": 4}}}
    config.write_text(json.dumps({"out": str(out), "method": "grpo", **VALUES, "objective": {}, **measured}))
    at_micro_step(6, send(signal.SIGUSR1))
    assert main(["train", "--config", str(config)]) == 138
    ended = "dphrl: ended by SIGUSR1; step 4 is saved; the same command goes on from there"
    assert capsys.readouterr().err.splitlines()[-1] == ended
    at_micro_step(0, send(signal.SIGTERM))
    monkeypatch.setenv("RANK", "1")  # of several processes, the first one speaks
    assert main(["train", "--config", str(config)]) == 143 and "ended" not in capsys.readouterr().err
    monkeypatch.delenv("RANK")
    at_micro_step(-1, lambda: None)
    changed = ["run", "--config", str(config), "--train.steps", "4"]
    assert main(changed) == 2
    assert "--allow-change" in capsys.readouterr().err

    class Reached(Exception):
        pass

    def measure(*args: Any, **kwargs: Any) -> None:
        raise Reached

    monkeypatch.setattr("dphrl.stages.run_stages.evaluate", measure)
    with pytest.raises(Reached):
        main([*changed, "--allow-change"])
    assert (out / "train/final/config.json").exists()
    (line,) = [json.loads(text) for text in (out / "train/changes.jsonl").read_text().splitlines()]
    assert line["step"] == 5 and line["changes"]["train.steps"] == {"old": 7, "new": 4}
