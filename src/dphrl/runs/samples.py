"""Verified completions on disk: the one reader and writer of a run's Parquet files."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dphrl.errors import RunDirError
from dphrl.files import replaced
from dphrl.method.partition import is_right
from dphrl.metrics import Answer
from dphrl.types import Completion, Verdict

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

DrawKey = tuple[str, int]
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
    rows = sorted(completions, key=draw_key)
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
class SampleFiles:
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

    def take(self, keys: Iterable[DrawKey]) -> Iterator[Completion]:
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


def draw_key(completion: Completion) -> DrawKey:
    """What a completion is joined by."""
    return completion.prompt_id, completion.draw


def count_statuses(completions: Iterable[Completion]) -> dict[str, int]:
    """How often each status came."""
    return dict(Counter(c.verdict.status for c in completions if c.verdict is not None).most_common())


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
