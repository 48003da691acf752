"""Completions and verdicts on disk (Parquet), and the loop that draws, verifies and stores what is still missing."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dphrl.errors import RunDirError
from dphrl.files import replaced
from dphrl.progress import Progress
from dphrl.sampling import Request, Sampler
from dphrl.types import Completion, Prompt, Task, Verdict, item_of

SCHEMA = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("draw", pa.int32()),
        ("token_ids", pa.list_(pa.int32())),
        ("text", pa.string()),
        ("finish_reason", pa.string()),
        ("correct", pa.bool_()),
        ("reward", pa.float64()),
        ("status", pa.string()),
        ("detail", pa.string()),
    ]
)

SHARD_COMPLETIONS = 4096
SHARD_SECONDS = 20.0
"""A shard is written when it holds this many completions or is this old: what a killed run can lose."""


def write_samples(path: Path, completions: Iterable[Completion]) -> None:
    """Verified completions, whole or not at all, sorted by prompt id and draw."""
    rows = sorted(completions, key=lambda c: (c.prompt_id, c.draw))
    verdicts = [c.verdict for c in rows]
    if any(v is None for v in verdicts):
        raise ValueError(f"{path}: a completion without a verdict cannot be stored; verify it first")
    columns = {
        **{name: [getattr(c, name) for c in rows] for name in SCHEMA.names[:5]},
        **{name: [getattr(v, name) for v in verdicts] for name in SCHEMA.names[5:]},
    }
    with replaced(path) as staging:
        pq.write_table(pa.table(columns, schema=SCHEMA), staging)


def read_samples(path: Path) -> list[Completion]:
    """The completions of one file.

    Raises:
        RunDirError: the file is missing or unreadable.
    """
    try:
        rows = pq.read_table(path, schema=SCHEMA).to_pylist()
    except (FileNotFoundError, pa.ArrowInvalid) as error:
        raise RunDirError(f"{path} cannot be read: {error}") from None
    return [
        Completion(
            r["prompt_id"],
            r["draw"],
            tuple(r["token_ids"]),
            r["text"],
            r["finish_reason"],
            Verdict(r["correct"], r["reward"], r["status"], r["detail"]),
        )
        for r in rows
    ]


@dataclass(frozen=True, slots=True)
class Shards:
    """Numbered Parquet files of one kind of draw in one folder."""

    folder: Path
    kind: str

    def paths(self) -> list[Path]:
        return sorted(self.folder.glob(f"{self.kind}-*.parquet"))

    def read(self) -> list[Completion]:
        return [c for path in self.paths() for c in read_samples(path)]

    def append(self, completions: Sequence[Completion]) -> None:
        write_samples(self.folder / f"{self.kind}-{len(self.paths()):05d}.parquet", completions)


@dataclass(frozen=True, slots=True)
class Speed:
    """Cost of the draws made in this call (what was resumed from disk costs nothing again)."""

    seconds: float
    tokens: int


def draw_missing(
    requests: Sequence[Request], sampler: Sampler, task: Task, shards: Shards, progress: Progress, label: str
) -> tuple[list[Completion], Speed]:
    """Draw and verify what the shards do not hold yet; every batch is kept, even when the run is interrupted.

    Returns:
        All completions asked for, those from disk among them, and what drawing the others cost.
    """
    wanted = {(r.prompt_id, r.draw) for r in requests}
    done = {(c.prompt_id, c.draw): c for c in shards.read() if (c.prompt_id, c.draw) in wanted}
    missing = [r for r in requests if (r.prompt_id, r.draw) not in done]
    prompts = {p.id: p for p in task.prompts}
    buffer: list[Completion] = []
    reward = _MeanReward()
    began = flushed = time.monotonic()
    progress(label, len(done), len(requests))
    try:
        for batch in sampler.draw(missing):
            verified = verify(task, prompts, batch)
            buffer.extend(verified)
            done |= {(c.prompt_id, c.draw): c for c in verified}
            progress(label, len(done), len(requests), note=reward.add(verified))
            if len(buffer) >= SHARD_COMPLETIONS or time.monotonic() - flushed > SHARD_SECONDS:
                shards.append(buffer)
                buffer, flushed = [], time.monotonic()
    finally:
        if buffer:
            shards.append(buffer)
    fresh = {(r.prompt_id, r.draw) for r in missing}
    tokens = sum(len(c.token_ids) for key, c in done.items() if key in fresh)
    return list(done.values()), Speed(time.monotonic() - began, tokens)


def verify(task: Task, prompts: dict[str, Prompt], completions: Sequence[Completion]) -> list[Completion]:
    """The completions with their verdicts."""
    verdicts = task.verify([item_of(prompts[c.prompt_id], c.text) for c in completions])
    return [
        Completion(c.prompt_id, c.draw, c.token_ids, c.text, c.finish_reason, v)
        for c, v in zip(completions, verdicts, strict=True)
    ]


def statuses(completions: Iterable[Completion]) -> dict[str, int]:
    """How often each status came."""
    return dict(Counter(c.verdict.status for c in completions if c.verdict is not None).most_common())


class _MeanReward:
    """Running mean over the completions drawn in this call, as a note for the progress bar."""

    def __init__(self) -> None:
        self._total, self._count = 0.0, 0

    def add(self, completions: Iterable[Completion]) -> str:
        for c in completions:
            if c.verdict is not None and c.verdict.reward is not None:
                self._total, self._count = self._total + c.verdict.reward, self._count + 1
        return f"reward {self._total / self._count:.3f}" if self._count else ""
