"""Rows of the benchmarks as their authors lay them out: folders with databases, and columns that need some work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dphrl.config.sources import TaskConfig
from dphrl.errors import ConfigError, DataError, nearest
from dphrl.tasks.read_rows import Loaded, Row, find_path, read_rows
from dphrl.verifiers.math.final_answer import last_box


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a folder keeps a split. Every entry is a choice of patterns; the first that something matches counts."""

    questions: tuple[tuple[str, ...], ...]
    """Files read one after the other; the first one must be there."""
    databases: tuple[str, ...]


SPIDER: dict[str, Layout] = {
    "train": Layout(
        (("train_spider.json", "train_spider.jsonl"), ("train_others.json", "train_others.jsonl")), ("database",)
    ),
    "dev": Layout((("dev.json", "dev.jsonl"),), ("database",)),
}
BIRD: dict[str, Layout] = {
    # the archives unpack to train/ and dev_20240627/; either folder may be named itself, or the one that holds both
    split: Layout(
        ((f"{split}.json", f"{split}/{split}.json", f"{split}_*/{split}.json"),),
        (f"{split}_databases", f"{split}/{split}_databases", f"{split}_*/{split}_databases"),
    )
    for split in ("train", "dev")
}


def load_folder(layout: Mapping[str, Layout]) -> Callable[[TaskConfig, Path], Loaded]:
    """A source that reads a benchmark from its folder.

    Args:
        layout: split -> where it lies.
    Returns:
        (settings, folder of the config) -> rows, and the folder of the databases.
    Raises (the source):
        ConfigError: no task.data, or an unknown split. DataError: no such folder, or it lacks a part.
    """

    def source(cfg: TaskConfig, base_dir: Path) -> Loaded:
        if not cfg.data:
            raise ConfigError(f"task.name={cfg.name} needs task.data: the folder that holds {_names(layout)}")
        if cfg.split not in layout:
            allowed = ", ".join(layout)
            raise ConfigError(
                f"task.split={cfg.split!r} of {cfg.name} is not one of {allowed}{nearest(cfg.split, layout)}"
            )
        folder = find_path(cfg.data, base_dir, "task.data")
        if not folder.is_dir():
            raise DataError(
                f"task.data={cfg.data!r} is a file; task.name={cfg.name} reads a folder with {_names(layout)} "
                "(for a single file use task.name jsonl)"
            )
        place = layout[cfg.split]
        files = [_first(folder, patterns) for patterns in place.questions]
        if files[0] is None:
            raise DataError(f"{folder} holds none of {', '.join(place.questions[0])}; {_help(cfg)}")
        databases = _first(folder, place.databases)
        if databases is None and "db_dir" not in cfg.verifier_args:
            raise DataError(
                f"{folder} holds none of {', '.join(place.databases)}; {_help(cfg)}, or name the folder of the "
                "databases in task.verifier_args.db_dir"
            )
        rows = [row for file in files if file for row in read_rows(str(file), subset=None, split="", base_dir=base_dir)]
        return Loaded(rows, None if databases is None else str(databases))

    return source


def with_context(row: Row) -> Row:
    """OlympiadBench: a question may go on from a context."""
    context = row.get("context")
    return row | {"question": f"{context}\n\n{row['question']}"} if context and "question" in row else row


def boxed_answer(row: Row) -> Row:
    """Minerva: the answer is the last box of the solution; empty, hence a `gold_error`, where there is none."""
    if "answer" in row or "solution" not in row:
        return row
    return row | {"answer": last_box(str(row["solution"])) or ""}


def with_knowledge(row: Row) -> Row:
    """BIRD: the evidence as a section of the prompt, empty where a row has none."""
    evidence = str(row.get("evidence") or "").strip()
    return row | {"knowledge": f"External knowledge:\n{evidence}\n\n" if evidence else ""}


def _first(folder: Path, patterns: tuple[str, ...]) -> Path | None:
    return next((path for pattern in patterns for path in sorted(folder.glob(pattern))), None)


def _names(layout: Mapping[str, Layout]) -> str:
    return ", ".join(
        dict.fromkeys(name for place in layout.values() for name in (place.questions[0][0], place.databases[0]))
    )


def _help(cfg: TaskConfig) -> str:
    return f"task.data must name the folder of {cfg.name} as its authors lay it out (`dphrl docs tasks`)"
