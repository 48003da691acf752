"""Disturb the smallest run at random for a while; `make test-chaos`, docs/resuming.md.

What is asserted of each trial: a command ends with status 0 and the right bits, or with another status and a message
that names what is wrong; and the next undisturbed run, of it and of the command that reads what it left, ends with the
right bits. Where a file was damaged that only a person can put back, the undisturbed run comes after it was put back. A
damaged file that no later command reads may stay as it is; such files are listed.
"""

from __future__ import annotations

import argparse
import itertools
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import commands
import disturbances
from commands import WORKS, Ended, begin, line_of, undisturbed
from same_bits import compared_as, differences

import dphrl.engines.trl.trainer
import dphrl.stages.train.train  # noqa: F401

KINDS = ("signal", "halt", "full", "read-only", "two at once", "damage")
LAST_FILES = {"presample": ("r/anchors", "r/presample/partition.json"), "train": ("r/train/final",)}
"""Command -> what it writes last; without it the command goes on."""


class Chaos:
    """Trials on one machine, with what each command leaves undisturbed beside it."""

    def __init__(self, work: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.whole = work / "whole"
        self.said = work / "said"
        self.disk = disturbances.Disk(work / "disk")
        self.seconds: dict[str, float] = {}
        self.bytes: dict[str, int] = {}
        self.unread: set[str] = set()
        self.tried: Counter[str] = Counter()
        self.ended_early: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self._to_damage: list[tuple[str, str]] = []

    @property
    def here(self) -> Path:
        return self.disk.folder

    def make_whole(self) -> None:
        """`whole/NAME` is what lies there before that command, `whole/after NAME` what it leaves."""
        commands.write_inputs(self.here)
        for name in WORKS:
            shutil.copytree(self.here, self.whole / name)
            before = shutil.disk_usage(self.here).used
            (ended,) = undisturbed((name,), self.here, self.said)
            if ended.status:
                sys.exit(f"{name} ended with {ended.status} without any disturbance:\n{ended.said}")
            self.seconds[name] = ended.seconds
            self.bytes[name] = shutil.disk_usage(self.here).used - before
            shutil.copytree(self.here, self.whole / f"after {name}")

    def trial(self, kind: str) -> tuple[str, list[str]]:
        """Disturb once; what was done, and what was wrong."""
        if kind == "damage":
            return self._damage()
        name = self.chance.choice(list(WORKS))
        self._put_back(name)
        try:
            ended, done, wrong = getattr(self, "_" + kind.replace("-", "_").replace(" ", "_"))(name)
        finally:
            self.disk.mend()
        self.ended_early[kind] += ended.status != 0
        done = f"{name}, {done}: {ended.status}"
        if WORKS[name].once and (self.here / WORKS[name].leaves).exists():
            return done, [*wrong, *self._wrong_bits(name)]
        return done, [*wrong, *self._next(self._line(name))]

    def _signal(self, name: str) -> tuple[Ended, str, list[str]]:
        number, to_all = self.chance.choice(disturbances.SIGNALS), self.chance.random() < 0.5
        command = begin(name, self.here, self.said)
        time.sleep(wait := self.chance.uniform(0, self.seconds[name]))
        command.send(number, to_all=to_all)
        ended = command.end()
        done = f"{number.name}{' to all its processes' if to_all else ''} after {wait:.2f} s"
        if number == signal.SIGKILL:
            right = ended.status in (0, -number)
        else:
            right = ended.status == 0 or (ended.status == 128 + number and "dphrl: " in ended.said)
        return ended, done, [] if right and not _traceback(ended) else [ended.said[-900:]]

    def _halt(self, name: str) -> tuple[Ended, str, list[str]]:
        command = begin(name, self.here, self.said)
        time.sleep(wait := self.chance.uniform(0, self.seconds[name]))
        disturbances.stop_for_a_while(command, 0.5)
        ended = command.end()
        return ended, f"SIGSTOP and SIGCONT after {wait:.2f} s", [ended.said[-900:]] if ended.status else []

    def _full(self, name: str) -> tuple[Ended, str, list[str]]:
        left = int(max(0.0, self.chance.uniform(-0.2, 1.1)) * self.bytes[name])
        self.disk.fill(left)
        ended = begin(name, self.here, self.said).end()
        return ended, f"room for {left} of {self.bytes[name]} bytes", _refusal(ended, "No space left")

    def _read_only(self, name: str) -> tuple[Ended, str, list[str]]:
        command = begin(name, self.here, self.said)
        time.sleep(wait := self.chance.uniform(0, self.seconds[name]) * self.chance.randrange(2))
        made = self.disk.read_only()
        ended = command.end()
        return ended, f"a disk that is read-only from {wait:.2f} s on ({made})", _refusal(ended, "Read-only")

    def _two_at_once(self, name: str) -> tuple[Ended, str, list[str]]:
        line = line_of(name)
        other = self.chance.choice(line[: line.index(name) + 1])
        first = begin(name, self.here, self.said)
        second = begin(other, self.here, self.said.with_name("said-2"))
        ended, beside = first.end(), second.end()
        names = ("another process", *(["is there already"] if WORKS[name].once else []))
        wrong = [text for one in (ended, beside) for text in _refusal(one, *names)]
        return ended if ended.status else beside, f"beside {other}", wrong

    def _damage(self) -> tuple[str, list[str]]:
        """One file of what a command left or read, in half of them with its last files gone, so that it goes on."""
        if not self._to_damage:
            self._to_damage = self._all_files()
            self.chance.shuffle(self._to_damage)
        name, file = self._to_damage.pop()
        self._put_back(f"after {name}", name)
        if halfway := self.chance.randrange(2) and name in LAST_FILES:
            for last in LAST_FILES[name]:
                path = self.here / last
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        if WORKS[name].once:
            shutil.rmtree(self.here / WORKS[name].leaves)
        path = self.here / file
        if not path.exists():
            return self._damage()
        before = path.read_bytes()
        how = self.chance.choice(sorted(disturbances.DAMAGE))
        disturbances.DAMAGE[how](path, self.chance)
        line = self._line(name)
        ended = undisturbed(line, self.here, self.said)[-1]
        done = f"{how} {file} behind {name}{' (halfway)' if halfway else ''}: {ended.name} {ended.status}"
        self.ended_early["damage"] += ended.status != 0
        if ended.status:
            wrong = _refusal(ended, path.name, path.parent.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(before)
            return done, [*wrong, *self._next(line)]
        found = self._wrong_bits(line[-1])
        wrong = [
            f"with status 0 {text}" for text in found if not text.startswith((f"{file} ", f"{compared_as(file)} "))
        ]
        if found and not wrong:
            self.unread.add(file)
        return done, wrong

    def _all_files(self) -> list[tuple[str, str]]:
        """(command, file that it leaves or reads), every one."""
        found = []
        for name, work in WORKS.items():
            root = self.whole / f"after {name}"
            for place in (work.leaves, *work.reads):
                paths: Iterator[Path] | list[Path] = (
                    (root / place).rglob("*") if (root / place).is_dir() else [root / place]
                )
                found += [(name, path.relative_to(root).as_posix()) for path in sorted(paths) if path.is_file()]
        return found

    def _line(self, name: str) -> tuple[str, ...]:
        """The commands up to this one, and the next, which reads what it left."""
        line = line_of(name)
        return line[: line.index(name) + 2]

    def _next(self, line: tuple[str, ...]) -> list[str]:
        """What is wrong with the next undisturbed run."""
        after = undisturbed(line, self.here, self.said)[-1]
        if after.status:
            return [f"the next {after.name} ends with {after.status}: {after.said[-900:]}"]
        return [f"at the end {text}" for text in self._wrong_bits(line[-1])]

    def _put_back(self, snapshot: str, name: str = "") -> None:
        """What a command finds, and nothing else."""
        work = WORKS[name or snapshot]
        for path in self.here.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for place in ("c.yaml", work.leaves, *work.reads):
            whole = self.whole / snapshot / place
            if whole.is_dir():
                shutil.copytree(whole, self.here / place)
            elif whole.exists():
                shutil.copy(whole, self.here / place)

    def _wrong_bits(self, name: str) -> list[str]:
        """How what lies here differs from what this command leaves undisturbed."""
        work = WORKS[name]
        return differences(self.here, self.whole / f"after {name}", ("c.yaml", work.leaves, *work.reads))


def _traceback(ended: Ended) -> bool:
    return "Traceback" in ended.said


def _refusal(ended: Ended, *names: str) -> list[str]:
    """Nothing for status 0, and for status 2 with a message that names one of `names`; else what was said."""
    named = ended.status == 2 and "dphrl: " in ended.said and any(name in ended.said for name in names)
    return [] if ended.status == 0 or (named and not _traceback(ended)) else [f"{ended.status}: {ended.said[-900:]}"]


def _end(number: int, frame: Any) -> NoReturn:
    sys.exit(128 + number)


def _series(chaos: Chaos, kinds: list[str], seconds: float) -> None:
    """Trials for a while, every second one of damage."""
    others = [kind for kind in kinds if kind != "damage"]
    damage = ["damage"] * (len(kinds) > len(others))
    turns = itertools.cycle([kind for other in others for kind in (other, *damage)] or damage)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, wrong = chaos.trial(kind := next(turns))
        chaos.tried[kind] += 1
        if wrong:
            chaos.failed[kind] += 1
            print(f"FAILED, trial {chaos.tried.total()}: {kind}, {done}\n  " + "\n  ".join(wrong[:6]), flush=True)


def _print_counts(chaos: Chaos, kinds: list[str]) -> None:
    if not chaos.disk.mounted:
        print("full and read-only disks were not tried: this user cannot mount a small disk")
    for kind in kinds:
        counts = chaos.tried[kind], chaos.ended_early[kind], chaos.failed[kind]
        print("{}: {} tried, {} ended early, {} failed".format(kind, *counts))
    print("damaged and never read again:", ", ".join(sorted(chaos.unread)) or "none")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=KINDS)
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    signal.signal(signal.SIGTERM, _end)
    with tempfile.TemporaryDirectory() as folder:
        chaos = Chaos(Path(folder), options.seed)
        try:
            chaos.make_whole()
            kinds = [kind for kind in options.kinds if chaos.disk.mounted or kind not in ("full", "read-only")]
            if not kinds:
                sys.exit("nothing can be tried: this user cannot mount a small disk")
            _series(chaos, kinds, options.seconds)
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            commands.end_all()
            chaos.disk.close()
            _print_counts(chaos, options.kinds)
    sys.exit(1 if chaos.failed else 0)


if __name__ == "__main__":
    main()
