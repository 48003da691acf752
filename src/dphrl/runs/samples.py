"""Verified completions on disk: the one reader and writer of a run's Parquet files."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dphrl.errors import RunDirError
from dphrl.files import damage_refused, replaced
from dphrl.method.verdict_counts import is_right
from dphrl.metrics.voting import Answer
from dphrl.runs.parquet_checksum import check_checksum, put_checksum, with_room
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
MAY_BE_NULL = ("reward", "detail")
_FIELDS = {field.name: field for field in (*SCHEMA, *FORMS)}
HEAVY = ("token_ids", "text")
"""Columns that most readers do without."""
DRAW_AGAIN = "if it is damaged, delete it and run again: its draws are made again"

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
    with replaced(path) as staging:  # statistics would say which rows to read, and nothing says whether they are right
        table = with_room(pa.table(columns, schema=schema))
        pq.write_table(table, staging, write_page_checksum=True, write_statistics=False)
        put_checksum(staging)


def read_samples(
    path: Path,
    *,
    without: Collection[str] = (),
    prompt_ids: Collection[str] | None = None,
    remedy: str = DRAW_AGAIN,
) -> list[Completion]:
    """The completions of one file.

    Args:
        without: columns of HEAVY that are not read; the completions have () and "" in their place.
        prompt_ids: only the completions of these prompts; None = all.
        remedy: what to do about a damaged file, for the message.
    Raises:
        RunDirError: the file is missing, unreadable, lacks a column, or holds a verdict that cannot be.
    """
    names = [name for name in SCHEMA.names if name not in without]
    table = _read_columns(path, names, remedy, prompt_ids)
    try:
        return [_completion({"token_ids": (), "text": "", **row}) for row in table.to_pylist()]
    except (ValueError, TypeError, OverflowError) as error:
        raise RunDirError(f"{path} holds a verdict that cannot be: {error}; {remedy}") from None


@dataclass(frozen=True, slots=True)
class Forms:
    """How the texts of one file are compared; None where the file has no column for it."""

    solution: Callable[[str], str] | None
    """Text -> canonical form; a text that is not right is its own."""
    answer: Answer | None
    """Text -> what majority voting compares."""


def read_forms(path: Path, *, remedy: str = DRAW_AGAIN) -> Forms:
    """The columns of FORMS, as functions of the text.

    Raises:
        RunDirError: the file is missing or unreadable.
    """
    table = _read_columns(path, ["text"], remedy, optional=FORMS.names)
    with damage_refused(path, remedy):
        columns = table.to_pydict()
    answer = dict(zip(columns["text"], columns["answer"], strict=True)).get if "answer" in columns else None
    if "solution" not in columns:
        return Forms(None, answer)
    pairs = zip(columns["text"], columns["solution"], strict=True)
    solutions = {text: form for text, form in pairs if form is not None}
    return Forms(lambda text: solutions.get(text, text), answer)


@dataclass(frozen=True, slots=True)
class SampleFiles:
    """Numbered Parquet files of one kind of draw in one folder."""

    folder: Path
    kind: str = "completions"

    def paths(self) -> list[Path]:
        return sorted(self.folder.glob(f"{self.kind}-*.parquet"))

    def read(self, without: Collection[str] = ()) -> list[Completion]:
        """All completions; `without` HEAVY a fraction of the memory holds them."""
        return [c for path in self.paths() for c in read_samples(path, without=without)]

    def take(self, keys: Iterable[DrawKey]) -> Iterator[Completion]:
        """The whole completions with these keys, file by file."""
        wanted = set(keys)
        prompt_ids = {prompt_id for prompt_id, _ in wanted}
        for path in self.paths() if wanted else ():
            yield from (c for c in read_samples(path, prompt_ids=prompt_ids) if draw_key(c) in wanted)

    def next(self) -> Path:
        """The path of a new shard, with a number after those of all existing shards."""
        last = max((int(p.stem.rpartition("-")[2]) for p in self.paths()), default=-1)
        return self.folder / f"{self.kind}-{last + 1:05d}.parquet"

    def append(self, completions: Sequence[Completion]) -> None:
        write_samples(self.next(), completions)


def draw_key(completion: Completion) -> DrawKey:
    """The key of a completion: its prompt id and draw."""
    return completion.prompt_id, completion.draw


def count_statuses(completions: Iterable[Completion]) -> dict[str, int]:
    """How often each status came."""
    return dict(Counter(c.verdict.status for c in completions if c.verdict is not None).most_common())


def _read_columns(
    path: Path,
    names: Sequence[str],
    remedy: str,
    prompt_ids: Collection[str] | None = None,
    optional: Sequence[str] = (),
) -> pa.Table:
    """Columns of a file: those of `names`, and those of `optional` that it has."""
    rows = None if prompt_ids is None else [("prompt_id", "in", sorted(prompt_ids))]
    try:
        check_checksum(path)
        held = pq.read_schema(path).names
        if lacking := [name for name in names if name not in held]:
            raise RunDirError(f"{path} lacks the columns {', '.join(lacking)}; {remedy}")
        wanted = [*names, *(o for o in optional if o in held)]
        table = pq.read_table(path, columns=wanted, filters=rows, page_checksum_verification=True)
        table = table.cast(pa.schema([_FIELDS[name] for name in wanted]))
        empty = [name for name in names if name not in MAY_BE_NULL and table[name].null_count]
        if empty:
            raise RunDirError(f"{path} has no {empty[0]} in some rows; {remedy}")
        table.validate(full=True)
        return table
    except (OSError, pa.ArrowException, ValueError, LookupError, TypeError, OverflowError) as error:
        raise RunDirError(f"{path} cannot be read ({error}); {remedy}") from None


def _completion(row: dict[str, Any]) -> Completion:
    verdict = Verdict(row["correct"], row["reward"], row["status"], row["detail"] or "")
    return Completion(
        row["prompt_id"], row["draw"], tuple(row["token_ids"]), row["text"], row["finish_reason"], verdict
    )
