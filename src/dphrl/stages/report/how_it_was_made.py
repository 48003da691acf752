"""How a report was made: commands, settings, changes and warnings while training, versions and fingerprints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dphrl.anchors.manifest import read_manifest
from dphrl.config.load import flat, to_dict, to_yaml
from dphrl.config.objective import RklObjective
from dphrl.errors import DphrlError
from dphrl.report.labels import display
from dphrl.report.page.sections import How
from dphrl.report.setting_names import main_setting
from dphrl.runs.run_dir import RunDir, read_versions
from dphrl.runs.training_log import read_changes, read_warnings
from dphrl.stages.compare.compared_runs import ComparedRun

GRADIENTS = {
    "k3": "k3 in the loss: the gradient of forward KL",
    "k3_corrected": "k3 times the ratio in the loss: the gradient of reverse KL",
    "k2": "k2 in the loss: the gradient of reverse KL",
    "k1_reward": "k1 as a reward: the gradient of reverse KL",
}
"""What `objective.kl_estimator` really follows on policy samples; an rkl run must say which it is."""

UNSAID = ("out", "seed", "base_run", "threads")
"""Settings that are no difference between runs worth a line."""


def shown_name(run: ComparedRun) -> str:
    """What the page calls a run: its method and setting, or that only the base was measured."""
    return display("base" if run.base_only else run.label, run.setting)


def how_it_was_made(runs: Sequence[ComparedRun], out: Path) -> dict[str, How]:
    """Everything that is needed to make the report again."""
    first = runs[0]
    values = [flat(to_dict(run.config)) for run in runs]
    named = [(run, shown_name(run)) for run in runs]
    compared = [
        {
            "run": str(run.path),
            "method": name,
            "seed": run.config.seed,
            "differs from the first in": _differences(values[0], of_run) or "nothing",
        }
        for (run, name), of_run in zip(named, values, strict=True)
    ]
    command = f"dphrl report {first.path}" if len(runs) == 1 else f"dphrl compare {' '.join(str(r.path) for r in runs)}"
    how: dict[str, How] = {
        "Methods": {name: _described(run) for run, name in named if run.trained},
        "Models": {m.name: m.path for run in runs if run.evaldir is not None for m in run.evaldir.models if m.path},
        "Commands": [_command(run) for run in runs] + [f"{command} --out {out}"],
        "Runs": compared,
        "Changed while training": [
            {"method": name, "seed": run.config.seed, "after step": change.step, "setting": key, "old": old, "new": new}
            for run, name in named
            for change in read_changes(RunDir(run.path).changes)
            for key, (old, new) in change.changes.items()
        ],
        "Warnings while training": [
            {"method": name, "seed": run.config.seed, "step": warning.step, "warning": warning.text}
            for run, name in named
            for warning in read_warnings(RunDir(run.path).warnings)
        ],
        "Versions": _versions(first),
        "Fingerprints": _fingerprints(runs),
        f"Settings of {first.path}": to_yaml(first.config),
    }
    return {name: part for name, part in how.items() if part}


def _command(run: ComparedRun) -> str:
    if run.evaldir is not None:
        return f"{run.evaldir.made_by or 'written by another tool'}: {run.path / 'evaluation.json'}"
    return f"dphrl run --config {run.path / 'config.yaml'}"


def _described(run: ComparedRun) -> str:
    """'beta=0.1 k2 (k2 in the loss: the gradient of reverse KL)'."""
    objective = run.config.objective
    gradient = GRADIENTS[objective.kl_estimator] if isinstance(objective, RklObjective) else ""
    return f"{main_setting(run.config) or 'as published'}{f' ({gradient})' if gradient else ''}"


def _differences(first: Mapping[str, object], other: Mapping[str, object]) -> str:
    keys = [k for k in dict.fromkeys([*first, *other]) if k not in UNSAID and first.get(k) != other.get(k)]
    told = [key for key in keys if key in other or not key.startswith("objective.")]  # those its method reads
    return ", ".join(f"{key}={other.get(key)}" for key in told)


def _fingerprints(runs: Sequence[ComparedRun]) -> dict[str, str]:
    """Of the policy that drew each store of anchors: '<run>: weights' -> its digest."""
    digests: dict[str, str] = {}
    for run in runs:
        folder = Path(run.config.base_run) if run.config.base_run is not None else run.path
        if (folder / "anchors" / "manifest.json").is_file():
            try:
                printed = read_manifest(folder / "anchors").fingerprint
            except DphrlError:
                continue  # anchors of an earlier version: the numbers do not depend on them
            digests |= {f"{folder}: {part}": value for part, value in printed.items()}
    return digests


def _versions(run: ComparedRun) -> dict[str, str]:
    """Versions of what made the run; empty when it holds none."""
    if run.evaldir is not None:
        return dict(run.evaldir.versions)
    return dict(read_versions(RunDir(run.path)))
