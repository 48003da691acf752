"""Completions and verdicts on disk (Parquet), and the loop that draws, verifies and stores."""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dphrl.errors import RunDirError, SamplerError
from dphrl.files import replaced
from dphrl.method.partition import is_right
from dphrl.metrics import Answer
from dphrl.progress import Progress
from dphrl.sampling.base import Request, Sampler
from dphrl.sampling.judge import Judge
from dphrl.types import Completion, Task, Verdict

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
FORMS = pa.schema([("solution", pa.string()), ("answer", pa.string())])
"""What evaluations store besides: the canonical form of a right completion, and what majority voting compares."""
HEAVY = ("token_ids", "text")
"""Columns that most of stage 1 does without."""

SHARD_COMPLETIONS = 4096
SHARD_SECONDS = 20.0
"""A shard is written when it holds this many completions or is this old: what a killed run can lose."""

Key = tuple[str, int]
"""Prompt id and draw of a completion."""


def write_samples(
    path: Path,
    completions: Iterable[Completion],
    *,
    solution: Callable[[str], str] | None = None,
    answer: Answer | None = None,
) -> None:
    """Verified completions, whole or not at all, sorted by prompt id and draw.

    Args:
        path: replaced if it is there.
        completions: each with its verdict.
        solution: adds a column: text -> canonical form, of right completions (null for the others).
        answer: adds a column: text -> what majority voting compares; null where it gives none.
    """
    rows = sorted(completions, key=key_of)
    verdicts = [c.verdict for c in rows]
    if any(v is None for v in verdicts):
        raise ValueError(f"{path}: a completion without a verdict cannot be stored; verify it first")
    columns = {
        **{name: [getattr(c, name) for c in rows] for name in SCHEMA.names[:5]},
        **{name: [getattr(v, name) for v in verdicts] for name in SCHEMA.names[5:]},
    }
    schema = SCHEMA
    if solution is not None:
        form = functools.cache(solution)
        columns["solution"] = [form(c.text) if is_right(c) else None for c in rows]
        schema = schema.append(FORMS.field("solution"))
    if answer is not None:
        columns["answer"] = [*map(functools.cache(answer), (c.text for c in rows))]
        schema = schema.append(FORMS.field("answer"))
    with replaced(path) as staging:
        pq.write_table(pa.table(columns, schema=schema), staging)


def read_samples(path: Path) -> list[Completion]:
    """The completions of one file.

    Raises:
        RunDirError: the file is missing or unreadable.
    """
    return [_completion(row) for row in _table(path).to_pylist()]


@dataclass(frozen=True, slots=True)
class Shards:
    """Numbered Parquet files of one kind of draw in one folder."""

    folder: Path
    kind: str = "completions"

    def paths(self) -> list[Path]:
        return sorted(self.folder.glob(f"{self.kind}-*.parquet"))

    def read(self) -> list[Completion]:
        return [c for path in self.paths() for c in read_samples(path)]

    def outcomes(self) -> list[Completion]:
        """The completions without tokens and text: what the sets follow from, in a fraction of the memory."""
        light = [name for name in SCHEMA.names if name not in HEAVY]
        rows = (row for path in self.paths() for row in _table(path, light).to_pylist())
        return [_completion({"token_ids": (), "text": "", **row}) for row in rows]

    def take(self, keys: Iterable[Key]) -> Iterator[Completion]:
        """The whole completions with these keys, shard by shard."""
        wanted = set(keys)
        for path in self.paths() if wanted else ():
            table = _table(path)
            pairs = zip(table["prompt_id"].to_pylist(), table["draw"].to_pylist(), strict=True)
            rows = [row for row, key in enumerate(pairs) if key in wanted]
            yield from (_completion(row) for row in table.take(pa.array(rows, pa.int64())).to_pylist())

    def next(self) -> Path:
        """The path of a new shard, behind all that are there."""
        last = max((int(p.stem.rpartition("-")[2]) for p in self.paths()), default=-1)
        return self.folder / f"{self.kind}-{last + 1:05d}.parquet"

    def append(self, completions: Sequence[Completion]) -> None:
        write_samples(self.next(), completions)


@dataclass(frozen=True, slots=True)
class Speed:
    """Cost of the draws made in this call (what was resumed from disk costs nothing again)."""

    seconds: float = 0.0
    tokens: int = 0

    def __add__(self, other: Speed) -> Speed:
        return Speed(self.seconds + other.seconds, self.tokens + other.tokens)


def draw(
    requests: Sequence[Request],
    sampler: Sampler,
    judge: Callable[[Sequence[Completion]], list[Completion]],
    shards: Shards,
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
    buffer = _Buffer(shards)
    tokens, began = 0, time.monotonic()
    try:
        for batch in sampler.draw(requests):
            strange = [key_of(c) for c in batch if key_of(c) not in missing]
            if strange:
                raise SamplerError(f"the sampler gave completions that were not asked for, or twice: {strange[:3]}")
            missing -= {key_of(c) for c in batch}
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
    requests: Sequence[Request], sampler: Sampler, task: Task, shards: Shards, progress: Progress, label: str
) -> tuple[list[Completion], Speed]:
    """Draw and verify what the shards do not hold yet.

    Returns:
        All completions asked for, those from disk among them, and what drawing the others cost.
    """
    wanted = {(r.prompt_id, r.draw) for r in requests}
    done = {key_of(c): c for c in shards.read() if key_of(c) in wanted}
    missing = [r for r in requests if (r.prompt_id, r.draw) not in done]
    reward = MeanReward()
    progress(label, len(done), len(requests))

    def note(batch: list[Completion]) -> None:
        done.update({key_of(c): c for c in batch})
        progress(label, len(done), len(requests), note=reward.add(batch))

    speed = draw(missing, sampler, Judge(task), shards, note)
    return list(done.values()), speed


def key_of(completion: Completion) -> Key:
    """What a completion is joined by."""
    return completion.prompt_id, completion.draw


def statuses(completions: Iterable[Completion]) -> dict[str, int]:
    """How often each status came."""
    return dict(Counter(c.verdict.status for c in completions if c.verdict is not None).most_common())


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

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._rows: list[Completion] = []
        self._path: Path | None = None
        self._since = time.monotonic()

    def add(self, completions: Sequence[Completion]) -> None:
        self._rows.extend(completions)
        if len(self._rows) >= SHARD_COMPLETIONS or time.monotonic() - self._since > SHARD_SECONDS:
            self.flush()

    def flush(self) -> None:
        if not self._rows:
            return
        self._path = self._path or self._shards.next()
        write_samples(self._path, self._rows)
        self._rows = []
        self._path = None
        self._since = time.monotonic()


def _table(path: Path, columns: list[str] | None = None) -> pa.Table:
    try:
        return pq.read_table(path, schema=SCHEMA, columns=columns)
    except (FileNotFoundError, pa.ArrowInvalid) as error:
        raise RunDirError(
            f"{path} cannot be read: {error}; if it is damaged, delete it and run again: its draws are made again"
        ) from None


def _completion(row: dict[str, Any]) -> Completion:
    verdict = Verdict(row["correct"], row["reward"], row["status"], row["detail"])
    return Completion(
        row["prompt_id"], row["draw"], tuple(row["token_ids"]), row["text"], row["finish_reason"], verdict
    )
