"""What lm-evaluation-harness measured on the models of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dphrl.runs.harness_results import read_harness_results
from dphrl.stages.compare.entries import Run, base_folder


@dataclass(frozen=True, slots=True)
class _Column:
    """What a comparison calls one model."""

    method: str
    setting: str
    seed: int


def harness_rows(runs: Sequence[Run], settings: Sequence[str]) -> list[dict[str, Any]]:
    """Every row with method, setting and seed; a base that runs share once.

    Args:
        settings: what tells runs of one method apart, by `settings_of`.
    """
    columns: dict[Path, _Column] = {}
    for run, setting in zip(runs, settings, strict=True):
        base = base_folder(run)
        if run.evaldir is not None:
            for model in run.evaldir.models:
                column = _Column(model.label, "" if model.base else setting, model.seed)
                columns.setdefault(run.evaldir.folder(model.name), column)
            continue
        if base is not None:
            columns.setdefault(base, _Column("base", "", run.config.seed))
        if not run.base_only:
            columns.setdefault(run.path / "eval" / "final", _Column(run.label, setting, run.config.seed))
    return [
        {**asdict(column), **asdict(row)}
        for folder, column in columns.items()
        for row in read_harness_results(folder).rows
    ]
