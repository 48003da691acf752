"""The demo's four tasks, read from the assets that `python -m dphrl.demo.build` writes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from dphrl.errors import DataError, nearest
from dphrl.types import Item, Prompt, Task, Verdict

ASSETS = Path(__file__).parent / "assets"
"""The shipped world: model/, world.sqlite, prompts.jsonl and MANIFEST.json."""
SQL_TASKS = ("in_domain", "cross_domain")
TEXT_TASKS = ("arithmetic", "reversal")
DEMO_TASKS = (*SQL_TASKS, *TEXT_TASKS)
Split = Literal["train", "eval"]


def model_path(assets: Path = ASSETS) -> Path:
    """Folder of the base model and its tokenizer, loadable with `from_pretrained`."""
    return assets / "model"


def database_path(assets: Path = ASSETS) -> Path:
    """The world's SQLite database; open it read-only."""
    return assets / "world.sqlite"


def load_demo_task(name: str, split: Split = "train", *, assets: Path = ASSETS) -> Task:
    """Load one task of the demo.

    Args:
        name: one of `DEMO_TASKS`.
        split: "train" or "eval"; their prompt texts are disjoint.
        assets: folder of a built world; the shipped one unless told.
    Raises:
        DataError: the name or the split does not exist, or the assets are not there.
    """
    if name not in DEMO_TASKS:
        raise DataError(f"demo task {name!r} is not one of {', '.join(DEMO_TASKS)}{nearest(name, DEMO_TASKS)}")
    if split not in ("train", "eval"):
        raise DataError(f"split={split!r} of demo task {name!r} is not 'train' or 'eval'")
    is_sql = name in SQL_TASKS
    database = {"db": str(database_path(assets).resolve())} if is_sql else {}
    prompts = tuple(
        Prompt(row["id"], row["prompt"], {"gold": row["gold"], **database})
        for row in _read_rows(assets / "prompts.jsonl")
        if (row["task"], row["split"]) == (name, split)
    )
    return Task(name, prompts, verify_sql if is_sql else verify_text, canonical)


def verify_sql(items: Sequence[Item]) -> list[Verdict]:
    """Run gold and completion on the world's database and compare their rows."""
    from dphrl.verifiers.sql import verifier as sql  # late: reading the prompts needs no verifier

    return sql.verify_batch(items, keep_distinct=True)  # DISTINCT or not is one of the world's conventions


def verify_text(items: Sequence[Item]) -> list[Verdict]:
    """Compare the whole completion with the gold text."""
    from dphrl.verifiers import exact  # late, as above

    return exact.verify_batch(items)


def canonical(text: str) -> str:
    """A completion with case, spacing and a final semicolon removed: distinct writings stay distinct solutions."""
    return " ".join(text.casefold().strip().removesuffix(";").split())


def _read_rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise DataError(
            f"{path} is missing; build the demo world with `python -m dphrl.demo.build --out {path.parent}`"
        )
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
