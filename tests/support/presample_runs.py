"""Runs of stage 1 on the shipped model, and what they leave on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dphrl.config.load import build_config
from dphrl.config.root import Config
from dphrl.files import read_json
from dphrl.runs.run_dir import RunDir
from dphrl.runs.samples import SampleFiles
from dphrl.stages.presample.presample import presample
from dphrl.types import Completion

PROMPTS = 24


def config_of(out: Path, **sections: Any) -> Config:
    """Arithmetic, judged by comparing texts: no other process is needed."""
    values: dict[str, Any] = {
        "out": str(out),
        "threads": 1,
        "model": {"path": "demo", "device": "cpu"},
        "task": {"data": "demo:arithmetic", "limit": PROMPTS},
        "sampling": {"max_new_tokens": 12, "batch_size": 16},
        "anchor": {"presamples": 5, "threshold": 4},
    }
    return build_config({**values, **{k: {**values.get(k, {}), **v} for k, v in sections.items()}})


def made(config: Config, **options: Any) -> RunDir:
    return presample(config, base_dir=Path(), **options)


def result(run: RunDir) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The partition, and every byte of the store but its manifest, whose order of keys says nothing."""
    files = {p.name: p.read_bytes() for p in run.anchors.iterdir() if p.suffix == ".arrow"}
    return read_json(run.partition), files


def stored(run: RunDir, label: str = "task") -> dict[tuple[str, int], Completion]:
    """Every draw on disk, each once."""
    found = SampleFiles(run.draws(label)).read()
    by_key = {(c.prompt_id, c.draw): c for c in found}
    assert len(by_key) == len(found), "no draw is stored twice"
    return by_key
