"""Disturb the smallest run at random for a while; `make test-chaos`, docs/resuming.md.

What is asserted of each trial: a command ends with status 0 and the right bits, or with another status and a message
that names what is wrong; and the next undisturbed run ends with the right bits. Where a file was damaged that only a
person can put back, the undisturbed run comes after it was put back. A damaged file that no later command reads may
stay as it is; such files are listed.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import commands
import disturbances
from commands import STAGES, Ended, begin, undisturbed
from same_bits import compared_as, differences

import dphrl.engines.trl.trainer
import dphrl.stages.train.train  # noqa: F401

KINDS = ("signal", "stopped", "full", "read-only", "damage", "two at once")


class Chaos:
    """Trials on one machine, with what each stage leaves undisturbed beside it."""

    def __init__(self, work: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.whole = work / "whole"
        self.said = work / "said"
        self.disk = disturbances.Disk(work / "disk")
        self.seconds: dict[str, float] = {}
        self.unread: Counter[str] = Counter()

    @property
    def here(self) -> Path:
        return self.disk.folder

    def make_whole(self) -> None:
        """`whole/N/r` is the run before stage N; the run behind the last stage is what all trials must end with."""
        commands.write_settings(self.here)
        for number, stage in enumerate((*STAGES, "")):
            target = self.whole / str(number) / "r"
            target.parent.mkdir(parents=True)
            if (self.here / "r").exists():
                shutil.copytree(self.here / "r", target)
            if stage:
                (ended,) = undisturbed((stage,), self.here, self.said)
                if ended.status:
                    sys.exit(f"{stage} ended with {ended.status} without any disturbance:\n{ended.said}")
                self.seconds[stage] = ended.seconds

    def trial(self, kind: str) -> tuple[str, list[str]]:
        """Disturb once; what was done, and what was wrong."""
        self._put_back(number := self.chance.randrange(len(STAGES)))
        stage = STAGES[number]
        try:
            done, wrong = getattr(self, "_" + kind.replace("-", "_").replace(" ", "_"))(number, stage)
        finally:
            self.disk.mend()
        after = undisturbed(STAGES, self.here, self.said)
        if after[-1].status:
            return done, [*wrong, f"the next {after[-1].stage} ends with {after[-1].status}: {after[-1].said[-900:]}"]
        return done, [*wrong, *(f"at the end {text}" for text in self._wrong_bits())]

    def _signal(self, number: int, stage: str) -> tuple[str, list[str]]:
        name = self.chance.choice(disturbances.SIGNALS)
        command = begin(stage, self.here, self.said)
        time.sleep(wait := self.chance.uniform(0, self.seconds[stage]))
        command.send(name)
        ended = command.end()
        done = f"{name.name} to {stage} after {wait:.2f} s: {ended.status}"
        return done, [] if ended.status in (0, -name, 128 + name) and not _traceback(ended) else [ended.said[-900:]]

    def _stopped(self, number: int, stage: str) -> tuple[str, list[str]]:
        command = begin(stage, self.here, self.said)
        time.sleep(wait := self.chance.uniform(0, self.seconds[stage]))
        disturbances.stop_for_a_while(command, 0.5)
        ended = command.end()
        return f"SIGSTOP and SIGCONT to {stage} after {wait:.2f} s", [ended.said[-900:]] if ended.status else []

    def _full(self, number: int, stage: str) -> tuple[str, list[str]]:
        left = self.chance.choice((0, 4096, self.chance.randrange(200_000), self.chance.randrange(6_000_000)))
        self.disk.fill(left)
        ended = begin(stage, self.here, self.said).end()
        return f"{stage} with room for {left} bytes: {ended.status}", _refusal(ended, "No space left")

    def _read_only(self, number: int, stage: str) -> tuple[str, list[str]]:
        command = begin(stage, self.here, self.said)
        time.sleep(wait := self.chance.uniform(0, self.seconds[stage]) * self.chance.randrange(2))
        made = self.disk.read_only()
        ended = command.end()
        done = f"{stage} on a disk that is read-only from {wait:.2f} s on ({made}): {ended.status}"
        return done, _refusal(ended, "Read-only")

    def _two_at_once(self, number: int, stage: str) -> tuple[str, list[str]]:
        other = self.chance.choice(STAGES[: number + 1])
        first = begin(stage, self.here, self.said)
        second = begin(other, self.here, self.said.with_name("said-2"))
        both = first.end(), second.end()
        wrong = [text for ended in both for text in _refusal(ended, "another process")]
        return f"{stage} and {other} at once: {both[0].status}, {both[1].status}", wrong

    def _damage(self, number: int, stage: str) -> tuple[str, list[str]]:
        """One file of what the stage left, some of them with the stage's last files gone, so that it goes on."""
        self._put_back(number + 1)
        run = self.here / "r"
        if halfway := self.chance.randrange(2):
            for name in {"presample": ("anchors", "presample/partition.json"), "train": ("train/final",)}.get(
                stage, ()
            ):
                path = run / name
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        path = self.chance.choice(sorted(p for p in run.rglob("*") if p.is_file()))
        before, name = path.read_bytes(), path.relative_to(run).as_posix()
        how = self.chance.choice(sorted(disturbances.DAMAGE))
        disturbances.DAMAGE[how](path, self.chance)
        ended = undisturbed(STAGES, self.here, self.said)[-1]
        done = f"{how} {name} behind {stage}{' (halfway)' if halfway else ''}: {ended.stage} {ended.status}"
        if ended.status == 0:
            wrong = [
                f"with status 0 {text}"
                for text in self._wrong_bits()
                if not text.startswith((f"{name} ", f"{compared_as(name)} "))
            ]
            if not wrong and (not path.exists() or path.read_bytes() != before) and self._wrong_bits():
                self.unread[name] += 1
        else:
            wrong = _refusal(ended, path.name, path.parent.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(before)
        return done, wrong

    def _put_back(self, number: int) -> None:
        shutil.rmtree(self.here / "r", ignore_errors=True)
        if (whole := self.whole / str(number) / "r").exists():
            shutil.copytree(whole, self.here / "r")

    def _wrong_bits(self) -> list[str]:
        return differences(self.here / "r", self.whole / str(len(STAGES)) / "r")


def _traceback(ended: Ended) -> bool:
    return "Traceback" in ended.said


def _refusal(ended: Ended, *names: str) -> list[str]:
    """Nothing for status 0, and for status 2 with a message that names one of `names`; else what was said."""
    named = ended.status == 2 and "dphrl: " in ended.said and any(name in ended.said for name in names)
    return [] if ended.status == 0 or (named and not _traceback(ended)) else [f"{ended.status}: {ended.said[-900:]}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**6)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=KINDS)
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    tried: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        chaos = Chaos(Path(folder), options.seed)
        try:
            chaos.make_whole()
            kinds = [kind for kind in options.kinds if chaos.disk.mounted or kind not in ("full", "read-only")]
            if not kinds:
                sys.exit("nothing can be tried: this user cannot mount a small disk")
            until = time.monotonic() + options.seconds
            while time.monotonic() < until:
                kind = kinds[sum(tried.values()) % len(kinds)]
                tried[kind] += 1
                done, wrong = chaos.trial(kind)
                if wrong:
                    failed[kind] += 1
                    print(f"FAILED, trial {sum(tried.values())}: {done}\n  " + "\n  ".join(wrong[:6]), flush=True)
        finally:
            chaos.disk.close()
    if not chaos.disk.mounted:
        print("full and read-only disks were not tried: this user cannot mount a small disk")
    for kind in options.kinds:
        print(f"{kind}: {tried[kind]} tried, {failed[kind]} failed")
    print("damaged and never read again:", ", ".join(sorted(chaos.unread)) or "none")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
