"""Hand-made run directories of 3 prompts and n = 2 draws, for comparisons worked by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from dphrl.files import read_json
from dphrl.stages.compare.compare import compare_runs

BASE = {"a": 2, "b": 1, "c": 0}
GRPO = ({"a": 2, "b": 0, "c": 0}, {"a": 2, "b": 1, "c": 0})
DPH = ({"a": 2, "b": 1, "c": 1}, {"a": 1, "b": 1, "c": 0})
"""Right completions among n = 2 draws of each prompt, a dict a seed."""


def row(right: Mapping[str, int], base: Mapping[str, int] | None, dataset: str) -> dict[str, Any]:
    """A row of summary.json by the textbook formulas for n = 2."""
    solved = {i: c > 0 for i, c in right.items()}
    kept = [solved[i] for i in right if base is not None and base[i] > 0]
    found = [solved[i] for i in right if base is not None and base[i] == 0]
    means = {"1": sum(right.values()) / 2 / len(right), "2": sum(solved.values()) / len(right)}
    return {
        "dataset": dataset,
        "model": "base" if base is None else "final",
        "n": 2,
        "prompts": len(right),
        "greedy": sum(c == 2 for c in right.values()) / len(right),
        "mean_at_n": means["1"],
        "pass_at_k": {k: {"value": value, "low": value, "high": value} for k, value in means.items()},
        "keep": sum(kept) / len(kept) if kept else None,
        "explore": sum(found) / len(found) if found else None,
        "distinct_correct": float(sum(right.values())) / len(right),
        "statuses": {},
        "unjudged": 0,
        "seconds": 1.0,
        "tokens_per_second": 10.0,
    }


def write_eval(
    folder: Path,
    right: Mapping[str, int],
    base: Mapping[str, int] | None,
    *,
    dataset: str = "in_domain",
    solutions: bool = False,
) -> None:
    """One MODEL folder: a Parquet of samples and its summary.json."""
    draws = [(i, d, c == 2 if d < 0 else d < c) for i, c in right.items() for d in (-1, 0, 1)]
    columns: dict[str, list[Any]] = {
        "prompt_id": [i for i, _, _ in draws],
        "draw": [d for _, d, _ in draws],
        "token_ids": [[1, 2] for _ in draws],
        "text": [f"{i} {d}" for i, d, _ in draws],
        "finish_reason": ["stop" for _ in draws],
        "correct": [ok for _, _, ok in draws],
        "reward": [float(ok) for _, _, ok in draws],
        "status": ["correct" if ok else "wrong" for _, _, ok in draws],
        "detail": ["" for _ in draws],
    }
    if solutions:
        columns["solution"] = [f"{i} {d}" if ok else None for i, d, ok in draws]
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), folder / f"{dataset}.parquet")
    (folder / "summary.json").write_text(json.dumps({"rows": [row(right, base, dataset)]}))


def write_run(
    path: Path, right: Mapping[str, int] | None, *, base: Mapping[str, int] | None = BASE, **config: Any
) -> Path:
    """A run directory; `right` None leaves the trained model unmeasured."""
    extra = {name: config.pop(name) for name in ("dataset", "solutions") if name in config}
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump({"out": str(path), "method": "dph", "eval": {}, **config}))
    if base is not None:
        write_eval(path / "eval" / "base", base, None, **extra)
    if right is not None:
        write_eval(path / "eval" / "final", right, base, **extra)
    return path


def compared(runs: Sequence[Path], out: Path, **options: Any) -> dict[str, Any]:
    """The comparison as its summary.json holds it."""
    summary = compare_runs(runs, out, **options).to_json()
    assert read_json(out / "summary.json") == json.loads(json.dumps(summary, allow_nan=False))
    return summary
