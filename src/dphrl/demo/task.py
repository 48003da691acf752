"""The demo's family of tasks, demo:NAME, read from the assets that `python -m dphrl.demo.build` writes."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from dphrl.config.sources import TaskConfig
from dphrl.demo.limit import Chances, limit
from dphrl.errors import DataError, nearest
from dphrl.tasks.load import task_from
from dphrl.tasks.read_rows import Loaded, Row
from dphrl.tasks.record import ReadyTask, TaskFamily
from dphrl.types import FrontierLimit, LimitOfPrompts, Task

ASSETS = Path(__file__).parent / "assets"
"""The shipped world: model/, world.sqlite, prompts.jsonl, chances.json and MANIFEST.json."""
SQL_TASKS = ("in_domain", "cross_domain")
TEXT_TASKS = ("arithmetic", "reversal")
DEMO_TASKS = (*SQL_TASKS, *TEXT_TASKS)
Split = Literal["train", "eval"]
WHOSE_LIMIT = (
    "what a policy can reach that knows every reading of a question and how often each is meant, but not which one is "
    "meant there"
)


def model_folder(assets: Path = ASSETS) -> Path:
    """Folder of the base model and its tokenizer, loadable with `from_pretrained`."""
    return assets / "model"


def world_database(assets: Path = ASSETS) -> Path:
    """The world's SQLite database; open it read-only."""
    return assets / "world.sqlite"


def chances_file(assets: Path = ASSETS) -> Path:
    """How likely each answer to an SQL prompt is its gold: {id: [place of the gold, [probability, ...]]}."""
    return assets / "chances.json"


def load_demo_task(name: str, split: Split = "train", *, assets: Path = ASSETS) -> Task:
    """Load one task of the demo.

    Args:
        name: one of `DEMO_TASKS`.
        split: "train" or "eval"; their prompt texts are disjoint.
        assets: folder of a built world; the shipped one unless told.
    Raises:
        DataError: the name or the split does not exist, or the assets are not there.
    """
    source = functools.partial(_rows, assets=assets)
    task = dataclasses.replace(demo_task(name), source=source, frontier_limit=_frontier_limit(name, assets))
    return task_from(task, name, TaskConfig(name=f"demo:{name}", split=split), base_dir=assets)


def demo_task(name: str) -> ReadyTask:
    """The record of one of `DEMO_TASKS`.

    Raises:
        DataError: there is no such task.
    """
    if name not in DEMO_TASKS:
        raise DataError(f"demo task {name!r} is not one of {', '.join(DEMO_TASKS)}{nearest(name, DEMO_TASKS)}")
    return ReadyTask(
        what=_WHAT[name],
        origin="shipped with dphrl, the built-in world",
        eval_split="eval",
        template="{prompt}",
        chat=False,
        verifier="sql" if name in SQL_TASKS else "exact",
        # DISTINCT or not is one of the world's conventions
        verifier_args={"keep_distinct": True} if name in SQL_TASKS else {},
        source=_rows,
        frontier_limit=_frontier_limit(name, ASSETS),
        solution=canonical,
        fixed=True,
    )


def _frontier_limit(name: str, assets: Path) -> LimitOfPrompts | None:
    """Of an SQL task; a sum or a list has one answer, so all can be reached there."""
    if name not in SQL_TASKS:
        return None

    def of_prompts(ids: Sequence[str], k: int) -> FrontierLimit | None:
        path = chances_file(assets)
        if not path.is_file():  # a world of an earlier version
            return None
        chances = {i: Chances(gold, tuple(p)) for i, (gold, p) in json.loads(path.read_text("utf-8")).items()}
        return FrontierLimit(k, WHOSE_LIMIT, tuple(limit([chances[i] for i in ids], k=k)))

    return of_prompts


def canonical(text: str) -> str:
    """A completion with case, spacing and a final semicolon removed: distinct writings stay distinct solutions."""
    return " ".join(text.casefold().strip().removesuffix(";").split())


_WHAT = {
    "in_domain": "questions about three tables of the demo's database",
    "cross_domain": "questions about two other tables of the demo's database",
    "arithmetic": "sums and differences of small numbers",
    "reversal": "lists of letters to be reversed",
}


def _rows(cfg: TaskConfig, base_dir: Path, *, assets: Path = ASSETS) -> Loaded:
    name = cfg.name.partition(":")[2]
    if cfg.split not in ("train", "eval"):
        raise DataError(f"split={cfg.split!r} of demo task {name!r} is not 'train' or 'eval'")
    database = {"db": str(world_database(assets).resolve())} if name in SQL_TASKS else {}
    path = assets / "prompts.jsonl"
    if not path.is_file():
        raise DataError(f"{path} is missing; build the demo world with `python -m dphrl.demo.build --out {assets}`")
    problems: list[Row] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return Loaded(
        [
            {key: problem[key] for key in ("id", "prompt", "gold")} | database
            for problem in problems
            if (problem["task"], problem["split"]) == (name, cfg.split)
        ]
    )


FAMILY = TaskFamily(task=demo_task, members=DEMO_TASKS)
