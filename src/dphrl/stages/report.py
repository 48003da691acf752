"""The report stage: one run against its base, or several runs compared."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dphrl.config_io import flat, to_dict, to_yaml
from dphrl.errors import RunDirError
from dphrl.metrics import RESAMPLES
from dphrl.report.labels import display
from dphrl.report.page import write_report
from dphrl.report.runs import Run, main_setting, open_run, settings_of
from dphrl.stages.compare import compare

GRADIENTS = {
    "k3": "k3 in the loss: the gradient of forward KL",
    "k3_corrected": "k3 times the ratio in the loss: the gradient of reverse KL",
    "k2": "k2 in the loss: the gradient of reverse KL",
    "k1_reward": "k1 as a reward: the gradient of reverse KL",
}
"""What `objective.kl_estimator` really follows on policy samples; an rkl run must say which it is."""

UNSAID = ("out", "seed", "base_run", "threads")
"""Settings that are no difference between runs worth a line."""


def report(
    runs: Sequence[Path],
    out: Path | None = None,
    *,
    summary: Mapping[str, Any] | None = None,
    baseline: str | None = None,
    title: str | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Path:
    """Write the report of one run (RUN/report/) or of several compared (OUT).

    Args:
        runs: run directories, each evaluated.
        out: folder of the report; RUN/report for one run when None, and needed for several.
        summary: what `compare` of these runs returned; made here when None.
        baseline: label that differences are taken to; `base` for one run and `grpo` for several when None.
        title: heading of the page.
        resamples, seed: of the intervals, as for `compare`.
    Returns:
        Path of index.html; summary.json and figures/ lie beside it.
    Raises:
        RunDirError: as `compare`; or several runs without `out`.
    """
    paths = [Path(run) for run in runs]
    if out is None and len(paths) != 1:
        raise RunDirError(f"a report of {len(paths)} runs needs a folder; name it with --out, e.g. --out runs/compare")
    out = paths[0] / "report" if out is None else Path(out)
    single = len(paths) == 1
    if summary is None:
        against = baseline or ("base" if single else "grpo")
        summary = compare(paths, out, baseline=against, resamples=resamples, seed=seed)
    opened = [open_run(path) for path in paths]
    settings = settings_of(opened)
    names = [
        display("base" if run.base_only else run.label, setting) for run, setting in zip(opened, settings, strict=True)
    ]
    heading = title or (f"{names[0]}, seed {opened[0].config.seed}" if single else f"Comparison of {len(paths)} runs")
    return write_report(summary, out, title=heading, training=_training(opened, settings), how=_how(opened, names, out))


def _training(runs: Sequence[Run], settings: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Lines of every metrics.jsonl by entry, each with its run's seed; runs that have none are left out.

    Raises:
        RunDirError: a line is no JSON object.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for run, setting in zip(runs, settings, strict=True):
        path = run.path / "train" / "metrics.jsonl"
        if run.base_only or not path.is_file():
            continue
        key = f"{run.label} {setting}".strip()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                row = json.loads(line)
            except ValueError as error:
                raise RunDirError(
                    f"{path} line {number} is no JSON ({error}); delete the line or train again"
                ) from None
            if isinstance(row, dict):
                found.setdefault(key, []).append({**row, "seed": run.config.seed})
    return found


def _how(runs: Sequence[Run], names: Sequence[str], out: Path) -> dict[str, Any]:
    """What it takes to make the report again."""
    first = runs[0]
    values = [flat(to_dict(run.config)) for run in runs]
    told = [
        {
            "run": str(run.path),
            "method": name,
            "seed": run.config.seed,
            "differs from the first in": _differences(values[0], mine) or "nothing",
        }
        for run, name, mine in zip(runs, names, values, strict=True)
    ]
    command = f"dphrl report {first.path}" if len(runs) == 1 else f"dphrl compare {' '.join(str(r.path) for r in runs)}"
    how: dict[str, Any] = {
        "Methods": {name: _described(run) for run, name in zip(runs, names, strict=True) if not run.base_only},
        "Commands": [f"dphrl run --config {run.path / 'config.yaml'}" for run in runs] + [f"{command} --out {out}"],
        "Runs": told,
        "Versions": _versions(first.path),
        f"Settings of {first.path}": to_yaml(first.config),
    }
    return {name: part for name, part in how.items() if part}


def _described(run: Run) -> str:
    """'beta=0.1 k2 (k2 in the loss: the gradient of reverse KL)'."""
    gradient = GRADIENTS[run.config.objective.kl_estimator] if run.config.method == "rkl" else ""
    return f"{main_setting(run) or 'as published'}{f' ({gradient})' if gradient else ''}"


def _differences(first: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    keys = [k for k in dict.fromkeys([*first, *other]) if k not in UNSAID and first.get(k) != other.get(k)]
    return ", ".join(f"{key}={other.get(key)}" for key in keys)


def _versions(run: Path) -> dict[str, Any]:
    """Versions of what made the run; empty when it holds none."""
    path = run / "versions.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
    except (ValueError, TypeError) as error:
        raise RunDirError(f"{path} is damaged ({error}); delete it") from None
