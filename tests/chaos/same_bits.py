"""Whether two run directories are the same, file by file, apart from what may differ.

May differ: keys that hold times and rates, and in drift.json times of files (`TIMES`); facts of the machine, of the
last call alone (speed.json), and seals, which are checksums of files that hold times (`MACHINE`); in how many pieces
draws are stored; which checkpoints are kept (a signal saves one of its own; weights and optimiser of those that both
have are compared); checkpoints that were put aside; and the report, which shows rates. Its numbers come from the
summaries and samples, which are compared.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

TIMES = re.compile(
    r"second|time|_per_s|when|rate$|speed|began|ended|created|date|hours|memory|runtime|pieces|crc32|_share$|^key$"
)
MACHINE = re.compile(r"(^|/)(versions\.json|speed\.json|dphrl-complete|README\.md)$|^\w+/report/")
CHECKPOINT = re.compile(r"^r/train/checkpoint-\d+/")
COMPARED = ("model.safetensors", "optimizer.pt")
"""Of a checkpoint, where both runs have it."""


def differences(found: Path, wanted: Path, places: Sequence[str]) -> list[str]:
    """A sentence for each file of these places in two folders that is missing, too many, or differs."""
    ours, theirs = _contents(found, places), _contents(wanted, places)
    wrong = [f"{name} is missing" for name in sorted(theirs.keys() - ours.keys()) if not CHECKPOINT.match(name)]
    wrong += [f"{name} is too many" for name in sorted(ours.keys() - theirs.keys()) if not CHECKPOINT.match(name)]
    return wrong + [f"{name} differs" for name in sorted(ours.keys() & theirs.keys()) if ours[name] != theirs[name]]


def compared_as(name: str) -> str:
    """What a file is called in `differences`: the pieces of one folder's draws are one."""
    return re.sub(r"-\d+\.parquet$", ".parquet", name)


def _contents(root: Path, places: Sequence[str]) -> dict[str, Any]:
    """File -> what is compared of it; the pieces of one folder's draws are one."""
    found: dict[str, Any] = {}
    paths = [path for place in places for path in (root / place, *(root / place).rglob("*")) if path.is_file()]
    for path in sorted(paths):
        name = path.relative_to(root).as_posix()
        if MACHINE.search(name) or "damaged-checkpoint" in name:
            continue
        if CHECKPOINT.match(name) and path.name not in COMPARED:
            continue
        try:
            key, content = _content(path, name)
        except (ValueError, OSError) as error:
            key, content = name, f"unreadable: {error}"
        if isinstance(content, list) and key in found:
            content = sorted([*found[key], *content])
        found[key] = content
    return found


def _content(path: Path, name: str) -> tuple[str, Any]:
    if path.suffix == ".parquet":
        rows = pq.read_table(path).to_pylist()
        key = compared_as(name)
        return key, sorted(json.dumps(_timeless(row), sort_keys=True, default=str) for row in rows)
    if path.suffix == ".json":
        return name, _timeless(json.loads(path.read_text()))
    if path.suffix == ".jsonl":
        return name, tuple(json.dumps(_timeless(json.loads(line))) for line in path.read_text().splitlines())
    return name, path.read_bytes()


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if not TIMES.search(str(key))}
    return [_timeless(item) for item in value] if isinstance(value, list) else value
