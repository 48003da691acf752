"""Two ranks go on where they were ended: a signal that reached one of them, a kill, a loss of one that is not finite.

This file is also what `torchrun` runs, once for what ends by itself and once more for what a kill left behind.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dphrl.config.load import build_config
from dphrl.engines.trl.trainer import DPHTrainer
from dphrl.errors import Stopped
from dphrl.runs.checkpoints import last_checkpoint
from dphrl.runs.lock import exclusive
from dphrl.runs.run_dir import RunDir
from dphrl.runs.training_log import read_metrics
from dphrl.stages.presample.presample import presample
from dphrl.stages.train.train import train

VALUES: dict[str, Any] = {
    "threads": 1,
    "method": "dph",
    "model": {"path": "demo", "device": "cpu"},
    "task": {"data": "demo:in_domain", "limit": 24},
    "sampling": {"max_new_tokens": 30, "batch_size": 512},
    "anchor": {"presamples": 4, "threshold": 3},
    "objective": {"anchors_per_step": 8, "eta_schedule": "target", "drift_target": 0.01},
    "train": {"steps": 5, "prompts_per_step": 4, "group_size": 4, "micro_batch": 4, "learning_rate": 1e-3},
}
VALUES["train"] |= {"save_every": 2, "log_every": 3}
"""10 optimiser steps of one micro-batch a rank; a pass over the prompts is 2 generations."""

Act = Callable[[Any, Any], Any]


def config_of(root: Path, name: str, **train_settings: Any) -> Any:
    """A run of its own on the sets of `base`."""
    out, base = str(root / name), str(root / "base")
    values = {**VALUES, "out": out, "base_run": None if name == "base" else base}
    return build_config({**values, "train": {**VALUES["train"], **train_settings}})


def doing(act: Act) -> None:
    """Pass the loss of each forward through `act(trainer, loss)`."""

    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        return act(self, compute_loss(self, *args, **kwargs))

    DPHTrainer.compute_loss = step


compute_loss = DPHTrainer.compute_loss


def only(rank: int, step: int, then: Act) -> Act:
    """On one rank, in the optimiser step after `step`."""

    def act(trainer: Any, loss: Any) -> Any:
        here = trainer.accelerator.process_index == rank and trainer.state.global_step == step
        return then(trainer, loss) if here else loss

    return act


def killed(number: int) -> Act:
    def act(trainer: Any, loss: Any) -> Any:
        os.kill(os.getpid(), number)
        return loss

    return act


def main(root: Path, again: bool) -> None:
    """Everything on this rank; rank 0 writes."""
    facts: dict[str, Any] = {}
    if again:
        train(config_of(root, "killed"), base_dir=Path())
    else:
        train(config_of(root, "whole"), base_dir=Path())
        doing(only(1, 4, killed(signal.SIGTERM)))
        try:
            train(config_of(root, "signalled"), base_dir=Path())
        except Stopped as stop:
            facts["stopped"] = [stop.number, str(stop)]
        doing(lambda trainer, loss: loss)
        train(config_of(root, "signalled"), base_dir=Path())
        doing(only(1, 3, lambda trainer, loss: loss * float("nan")))
        train(config_of(root, "spoiled", log_every=1), base_dir=Path())
        doing(lambda trainer, loss: loss)
    if torch.distributed.get_rank() == 0 and not again:
        (root / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
    if not again:  # one rank dies within a generation; torchrun ends the other
        doing(only(1, 5, killed(signal.SIGKILL)))
        train(config_of(root, "killed"), base_dir=Path())
    torch.distributed.destroy_process_group()
    os._exit(0)  # torch's own threads may still want the interpreter while it ends, which aborts one rank in many runs


def launched(root: Path, *words: str) -> int:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", __file__]
    environment = {**os.environ, "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, root, *words], env=environment, capture_output=True, text=True, timeout=300)
    (root / f"{'-'.join(['log', *words])}.txt").write_text(done.stdout + done.stderr, encoding="utf-8")
    return done.returncode


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of the runs, and what rank 0 saw."""
    from made_once import made_once  # late: torchrun runs this file without the folder of that module on its path

    root = made_once(tmp_path_factory, "resumed-ranks", launch_twice)
    return root, json.loads((root / "facts.json").read_text(encoding="utf-8"))


def launch_twice(root: Path) -> None:
    presample(config_of(root, "base"), base_dir=Path())
    assert launched(root) != 0
    facts = json.loads((root / "facts.json").read_text(encoding="utf-8"))
    killed_run = RunDir(root / "killed")
    facts["killed at"] = [last_checkpoint(killed_run.train).name, killed_run.final.exists()]  # type: ignore[union-attr]
    (root / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
    assert launched(root, "again") == 0, (root / "log-again.txt").read_text(encoding="utf-8")[-4000:]


def content(run: RunDir) -> tuple[list[list[tuple[str, Any]]], bytes]:
    rows = read_metrics(run.metrics)
    timeless = [[(k, v) for k, v in row.items() if "time" not in k and "throughput" not in k] for row in rows]
    return timeless, (run.final / "model.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["signalled", "killed"])
def test_two_ranks_go_on_to_the_bit(name: str, two_ranks: Any) -> None:
    root, facts = two_ranks
    assert content(RunDir(root / name)) == content(RunDir(root / "whole"))
    assert not RunDir(root / name).changes.exists()
    if name == "signalled":  # rank 0 got none, within a generation
        assert facts["stopped"] == [signal.SIGTERM, "ended by SIGTERM; step 5 is saved"]
    else:
        assert facts["killed at"] == ["checkpoint-4", False]


@pytest.mark.slow
def test_a_second_launch_in_a_run_ends_on_all_ranks(two_ranks: Any, tmp_path: Path) -> None:
    """The first rank finds the run held, and torchrun ends the other, which waits for it."""
    shutil.copytree(two_ranks[0] / "base", tmp_path / "base")
    (tmp_path / "killed").mkdir()
    with exclusive(tmp_path / "killed"):
        assert launched(tmp_path, "again") != 0
    log = (tmp_path / "log-again.txt").read_text(encoding="utf-8")
    assert "RunDirError: another process is at work in" in log and list((tmp_path / "killed").iterdir()) == []


@pytest.mark.slow
def test_a_loss_of_one_rank_that_is_not_finite_is_a_bad_step_of_both(two_ranks: Any) -> None:
    run = RunDir(two_ranks[0] / "spoiled")
    bad = json.loads((run.train / "bad-steps/step-4.json").read_text(encoding="utf-8"))
    losses = [[m["loss"] for m in rank["micro_batches"]] for rank in bad["ranks"]]
    assert losses[0] != ["nan"] and losses[1] == ["nan"] and bad["grad_norm"] == "nan"
    assert sorted(p.name for p in (run.train / "bad-steps").iterdir()) == [
        "step-4-rank-0.safetensors",
        "step-4-rank-1.safetensors",
        "step-4.json",
    ]
    (line,) = [json.loads(text) for text in run.warnings.read_text(encoding="utf-8").splitlines()]
    assert line["step"] == 4 and "loss nan" in line["text"]
    rows = [json.loads(text) for text in run.metrics.read_text(encoding="utf-8").splitlines()]
    assert [row["step"] for row in rows if row["grad_norm"] is None] == [4]


if __name__ == "__main__":
    main(Path(sys.argv[1]), "again" in sys.argv[2:])
