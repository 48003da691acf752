"""Commands of the smallest run as processes of their own, forked out of one that has imported everything."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

STAGES = ("presample", "train", "eval", "report")
LIMIT = 120.0
"""Seconds after which a command counts as one that hangs."""

SETTINGS = {
    "out": "r",
    "method": "dph",
    "threads": 1,
    "model": {"path": "demo"},
    "task": {"data": "demo:in_domain", "limit": 24},
    "eval_tasks": {"t": {"data": "demo:in_domain", "split": "eval", "limit": 2}},
    "sampling": {"max_new_tokens": 24},
    "anchor": {"presamples": 2, "threshold": 1},
    "objective": {"anchors_per_step": 4},
    "train": {"steps": 2, "prompts_per_step": 2, "group_size": 4, "learning_rate": 1e-3, "save_every": 1},
    "eval": {"n": 2, "resamples": 100},
}


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended: its status (negative = the signal that killed it), what it said, and seconds."""

    stage: str
    status: int
    said: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Command:
    """A command that runs."""

    stage: str
    pid: int
    said: Path
    began: float

    def send(self, number: signal.Signals) -> None:
        """Send a signal; a process that has ended is a zombie until `end`, so that its id is nobody else's."""
        os.kill(self.pid, number)

    def end(self) -> Ended:
        """Wait for its end; one that takes longer than LIMIT is killed and has status -9 and a word about it."""
        hung = False
        while not (waited := os.waitpid(self.pid, os.WNOHANG))[0]:
            if not hung and time.monotonic() - self.began > LIMIT:
                hung = True
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.01)
        said = self.said.read_text(errors="replace") + ("\nTraceback: it hung" if hung else "")
        return Ended(self.stage, os.waitstatus_to_exitcode(waited[1]), said, time.monotonic() - self.began)


def begin(stage: str, folder: Path, said: Path) -> Command:
    """Start `dphrl STAGE` in a folder that holds c.yaml; both streams go to the file `said`."""
    began = time.monotonic()
    if child := os.fork():
        return Command(stage, child, said, began)
    status = 1
    try:
        told = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(told, 1)
        os.dup2(told, 2)
        os.chdir(folder)
        from dphrl.cli.main import main

        status = main(["report", "r"] if stage == "report" else [stage, "--config", "c.yaml"])
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)


def undisturbed(stages: tuple[str, ...], folder: Path, said: Path) -> list[Ended]:
    """Run stages one after another, up to the first that does not end with status 0."""
    ended: list[Ended] = []
    for stage in stages:
        ended.append(begin(stage, folder, said).end())
        if ended[-1].status:
            break
    return ended


def write_settings(folder: Path) -> None:
    (folder / "c.yaml").write_text(yaml.safe_dump(SETTINGS))
