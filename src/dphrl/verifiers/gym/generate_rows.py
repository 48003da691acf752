"""The process that makes prompts of reasoning-gym: a request (JSON) on stdin, an answer (JSON) on stdout.

Run with PYTHONHASHSEED=0 by `tasks.reasoning_gym`: with another, some generators make other prompts of the same seed.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import sys
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class GeneratedRows:
    """Rows, or what is wrong: one of `known`, `bad_settings` and `failed` is set then."""

    rows: list[dict[str, str]] = dataclasses.field(default_factory=list)
    """Each with question, gold and entry."""
    known: list[str] = dataclasses.field(default_factory=list)
    """All generators, where the one asked for is not among them."""
    bad_settings: str = ""
    """Why the generator does not take its settings."""
    allowed: list[str] = dataclasses.field(default_factory=list)
    """The settings that it has."""
    failed: str = ""
    """What the generator raised at the row after the last of `rows`."""


def generate_rows(name: str, settings: Mapping[str, Any], seed: int, size: int) -> GeneratedRows:
    """Make the rows 0 .. size of a generator."""
    from reasoning_gym.factory import DATASETS, create_dataset

    if name not in DATASETS:
        return GeneratedRows(known=sorted(DATASETS))
    try:
        dataset = create_dataset(name, seed=seed, size=size, **settings)
    except (TypeError, ValueError, AssertionError) as error:
        allowed = [f.name for f in dataclasses.fields(DATASETS[name][1]) if f.name not in ("seed", "size")]
        return GeneratedRows(bad_settings=f"{type(error).__name__}: {error}", allowed=allowed)
    rows: list[dict[str, str]] = []
    for index in range(size):
        try:
            rows.append(_row(dataset[index]))
        except Exception as error:  # a generator may raise anything; the parent says at which row
            return GeneratedRows(rows, failed=f"{type(error).__name__}: {error}")
    return GeneratedRows(rows)


def _row(entry: Any) -> dict[str, str]:
    """A row of texts; `entry` is what the scorer reads, as a Python literal: JSON would turn tuples into lists."""
    kept = {key: value for key, value in entry["metadata"].items() if _is_literal(value)}
    answer = str(entry["answer"])
    full = {"question": entry["question"], "answer": answer, "metadata": kept}
    return {"question": entry["question"], "gold": answer, "entry": repr(full)}


def _is_literal(value: Any) -> bool:
    """Whether the value can be written down; objects cannot, and no scorer that we allow reads one."""
    try:
        return bool(ast.literal_eval(repr(value)) == value)
    except (ValueError, SyntaxError):
        return False


def _main() -> None:
    """Answer the request on stdin."""
    replies = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # some generators print
    with os.fdopen(replies, "w", encoding="utf-8") as file:
        json.dump(dataclasses.asdict(generate_rows(**json.load(sys.stdin))), file)


if __name__ == "__main__":
    _main()
