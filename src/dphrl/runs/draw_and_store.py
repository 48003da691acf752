"""Drawing: a sampler's completions are verified and stored, batch by batch, so that a killed run loses little."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dphrl.errors import SamplerError
from dphrl.progress import Progress
from dphrl.runs.samples import SampleFiles, draw_key, write_samples
from dphrl.sampling.base import Request, Sampler
from dphrl.sampling.judge import Judge
from dphrl.types import Completion, Task

FILE_COMPLETIONS = 4096
FILE_SECONDS = 20.0
"""A file is written when it holds this many completions or is this old: what a killed run can lose."""


@dataclass(frozen=True, slots=True)
class Speed:
    """Cost of the draws made in this call (what was resumed from disk costs nothing again)."""

    seconds: float = 0.0
    tokens: int = 0

    def __add__(self, other: Speed) -> Speed:
        return Speed(self.seconds + other.seconds, self.tokens + other.tokens)


def draw_and_store(
    requests: Sequence[Request],
    sampler: Sampler,
    judge: Callable[[Sequence[Completion]], list[Completion]],
    files: SampleFiles,
    on_batch: Callable[[list[Completion]], None],
) -> Speed:
    """Draw, verify and store; every verified batch is kept, even when the run is interrupted.

    Args:
        requests: none of them stored yet.
        on_batch: told each verified batch.
    Returns:
        What it cost.
    Raises:
        SamplerError: the sampler gave a completion twice, or not at all.
    """
    missing = {(r.prompt_id, r.draw) for r in requests}
    buffer = _Buffer(files)
    tokens, began = 0, time.monotonic()
    try:
        for batch in sampler.draw(requests):
            strange = [draw_key(c) for c in batch if draw_key(c) not in missing]
            if strange:
                raise SamplerError(f"the sampler gave completions that were not asked for, or twice: {strange[:3]}")
            missing -= {draw_key(c) for c in batch}
            verified = judge(batch)
            buffer.add(verified)
            tokens += sum(len(c.token_ids) for c in verified)
            on_batch(verified)
    finally:
        buffer.flush()
    if missing:
        raise SamplerError(f"the sampler left out {len(missing)} completions, first {sorted(missing)[:3]}; run again")
    return Speed(time.monotonic() - began, tokens)


def draw_missing(
    requests: Sequence[Request], sampler: Sampler, task: Task, files: SampleFiles, progress: Progress, label: str
) -> tuple[list[Completion], Speed]:
    """Draw and verify what the files do not hold yet.

    Returns:
        All completions asked for, those from disk among them, and what drawing the others cost.
    """
    wanted = {(r.prompt_id, r.draw) for r in requests}
    done = {draw_key(c): c for c in files.read() if draw_key(c) in wanted}
    missing = [r for r in requests if (r.prompt_id, r.draw) not in done]
    reward = MeanReward()
    progress(label, len(done), len(requests))

    def note(batch: list[Completion]) -> None:
        done.update({draw_key(c): c for c in batch})
        progress(label, len(done), len(requests), note=reward.add(batch))

    speed = draw_and_store(missing, sampler, Judge(task), files, note)
    return list(done.values()), speed


class MeanReward:
    """Running mean over the completions drawn in this call, as a note for the progress bar."""

    def __init__(self) -> None:
        self._total, self._count = 0.0, 0

    def add(self, completions: Iterable[Completion]) -> str:
        for c in completions:
            if c.verdict is not None and c.verdict.reward is not None:
                self._total, self._count = self._total + c.verdict.reward, self._count + 1
        return f"reward {self._total / self._count:.3f}" if self._count else ""


class _Buffer:
    """Completions on their way to a shard. Its path is fixed before it is written, so that a flush that is interrupted
    between the write and the bookkeeping writes the same shard again, never a second one."""

    def __init__(self, files: SampleFiles) -> None:
        self._files = files
        self._rows: list[Completion] = []
        self._path: Path | None = None
        self._since = time.monotonic()

    def add(self, completions: Sequence[Completion]) -> None:
        self._rows.extend(completions)
        if len(self._rows) >= FILE_COMPLETIONS or time.monotonic() - self._since > FILE_SECONDS:
            self.flush()

    def flush(self) -> None:
        if not self._rows:
            return
        self._path = self._path or self._files.next()
        write_samples(self._path, self._rows)
        self._rows = []
        self._path = None
        self._since = time.monotonic()
