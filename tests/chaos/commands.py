"""Commands of the smallest run as processes of their own, forked out of one that has imported everything."""

from __future__ import annotations

import json
import os
import signal
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from dphrl.cli.main import main

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
class Work:
    """What a command is given, and where it writes."""

    words: str
    """Behind `dphrl`."""
    leaves: str
    """The folder that it writes, with what the commands above it in the table left there."""
    reads: tuple[str, ...] = ()
    """What else it reads, and leaves as it is."""
    once: bool = False
    """Refuses a folder that is there, also one that it has made itself."""


WORKS = {
    "presample": Work("presample --config c.yaml", "r"),
    "train": Work("train --config c.yaml", "r"),
    "eval": Work("eval --config c.yaml", "r"),
    "report": Work("report r", "r"),
    "compare": Work("compare r --out c", "c", ("r",)),
    "export": Work("export verl --run r --out x", "x", ("r",)),
    "import": Work("import old=old.jsonl new=new.jsonl --base old --out i", "i", ("old.jsonl", "new.jsonl")),
    "share 1": Work("presample --config c.yaml --shard 1/2 --out s1", "s1"),
    "share 2": Work("presample --config c.yaml --shard 2/2 --out s2", "s2"),
    "merge": Work("merge s1 s2 --out m", "m", ("s1", "s2")),
    "anchors export": Work("anchors export r/anchors --out a", "a", ("r",), once=True),
    "anchors merge": Work("anchors merge r/anchors --out b", "b", ("r",), once=True),
    "verify": Work("verify --task exact --file old.jsonl --out v.jsonl", "v.jsonl", ("old.jsonl",)),
}
"""Name -> every command that works long or writes, but `run` and `demo`, which are these in one, and `watch`."""


def line_of(name: str) -> tuple[str, ...]:
    """The commands that write into the folder of this one, in their order."""
    return tuple(other for other, work in WORKS.items() if work.leaves == WORKS[name].leaves)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended: its status (negative = the signal that killed it), what it said, and seconds."""

    name: str
    status: int
    said: str
    seconds: float


RUNNING: set[int] = set()
"""Ids of the commands that run; each is the first of a process group."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command that runs."""

    name: str
    pid: int
    said: Path
    began: float

    def send(self, number: signal.Signals, *, to_all: bool = False) -> None:
        """Send a signal, or send it to its children too; what has ended is a zombie until `end`, its id its own."""
        (os.killpg if to_all else os.kill)(self.pid, number)

    def end(self) -> Ended:
        """Wait for its end; one that takes longer than LIMIT is killed and has status -9 and a word about it."""
        hung = False
        while not (waited := os.waitpid(self.pid, os.WNOHANG))[0]:
            if not hung and time.monotonic() - self.began > LIMIT:
                hung = True
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.01)
        RUNNING.discard(self.pid)
        said = self.said.read_text(errors="replace") + ("\nTraceback: it hung" if hung else "")
        return Ended(self.name, os.waitstatus_to_exitcode(waited[1]), said, time.monotonic() - self.began)


def begin(name: str, folder: Path, said: Path) -> Command:
    """Start a command in a folder that holds c.yaml; both streams go to the file `said`. It runs when this returns."""
    began = time.monotonic()
    waiting, ready = os.pipe()
    child = os.fork()
    if not child:
        _be(name, folder, said, ready)
    RUNNING.add(child)
    os.close(ready)
    os.read(waiting, 1)
    os.close(waiting)
    return Command(name, child, said, began)


def _be(name: str, folder: Path, said: Path, ready: int) -> NoReturn:
    status = 1
    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        told = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(told, 1)
        os.dup2(told, 2)
        os.chdir(folder)
        os.write(ready, b".")
        os.close(ready)
        status = main(WORKS[name].words.split())
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def undisturbed(names: tuple[str, ...], folder: Path, said: Path) -> list[Ended]:
    """Run commands one after another, up to the first that does not end with status 0."""
    ended: list[Ended] = []
    for name in names:
        ended.append(begin(name, folder, said).end())
        if ended[-1].status:
            break
    return ended


def end_all() -> None:
    """Kill every command that runs, and wait for its end."""
    for pid in list(RUNNING):
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)
        RUNNING.discard(pid)


def write_inputs(folder: Path) -> None:
    """The settings, and samples of two models for `import` and `verify`."""
    (folder / "c.yaml").write_text(yaml.safe_dump(SETTINGS))
    for model, right in (("old", 1), ("new", 2)):
        lines: list[dict[str, Any]] = [
            {
                "prompt_id": f"p{prompt}",
                "prompt": f"{prompt}?",
                "gold": "1",
                "completion": str(draw),
                "correct": draw <= right,
            }
            for prompt in range(4)
            for draw in range(1, 5)
        ]
        (folder / f"{model}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
