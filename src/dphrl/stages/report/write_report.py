"""The report stage: one run against its base, or several runs compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dphrl.anchors.manifest import read_manifest
from dphrl.config.load import flat, to_dict, to_yaml
from dphrl.errors import DphrlError, RunDirError
from dphrl.metrics.intervals import RESAMPLES
from dphrl.progress import Progress, silent
from dphrl.report.charts.curves import Log
from dphrl.report.comparison import Comparison, Entry
from dphrl.report.labels import display
from dphrl.report.page.drift_view import AnchorDrift
from dphrl.report.page.sample_browser import AskedPrompt, AskedPrompts, browse
from dphrl.report.page.sections import How
from dphrl.report.page.write_page import Extras, write_page
from dphrl.report.setting_names import main_setting
from dphrl.runs.run_dir import RunDir, read_versions
from dphrl.runs.training_log import read_changes, read_metrics, read_warnings
from dphrl.stages.compare.compare import compare_runs
from dphrl.stages.compare.compared_runs import ComparedRun, open_compared_run, settings_of
from dphrl.stages.import_samples.asked_prompts import read_asked_prompts
from dphrl.stages.report.anchor_drift import anchor_drift
from dphrl.tasks import load_task

GRADIENTS = {
    "k3": "k3 in the loss: the gradient of forward KL",
    "k3_corrected": "k3 times the ratio in the loss: the gradient of reverse KL",
    "k2": "k2 in the loss: the gradient of reverse KL",
    "k1_reward": "k1 as a reward: the gradient of reverse KL",
}
"""What `objective.kl_estimator` really follows on policy samples; an rkl run must say which it is."""

UNSAID = ("out", "seed", "base_run", "threads")
"""Settings that are no difference between runs worth a line."""


def write_report(
    runs: Path | str | Sequence[Path | str],
    out: Path | None = None,
    *,
    comparison: Comparison | None = None,
    baseline: str | None = None,
    title: str | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    base_dir: Path = Path(),
    drift: bool = True,
    progress: Progress = silent,
) -> Path:
    """Write the report of one run (RUN/report/) or of several compared (OUT).

    Args:
        runs: a run directory or evaluation directory, or several; each evaluated.
        out: folder of the report; RUN/report for one run when None, and needed for several.
        comparison: what `compare_runs` of these runs returned; made here when None.
        baseline: label that differences are taken to; `base` for one run and `grpo` for several when None.
        title: heading of the page.
        resamples, seed: of the intervals, as for `compare_runs`.
        base_dir: folder of the config, where the tasks' own files are looked up, to show prompts beside samples.
        drift: measure the anchors under the trained models that are at hand and have no drift.json yet.
    Returns:
        Path of index.html; summary.json, figures/ and tables/ lie beside it.
    Raises:
        RunDirError: as `compare_runs`; or several runs without `out`.
    """
    paths = [Path(run) for run in ([runs] if isinstance(runs, Path | str) else runs)]
    if out is None and len(paths) != 1:
        raise RunDirError(f"a report of {len(paths)} runs needs a folder; name it with --out, e.g. --out runs/compare")
    out = paths[0] / "report" if out is None else Path(out)
    single = len(paths) == 1
    if comparison is None:
        against = baseline or ("base" if single else "grpo")
        comparison = compare_runs(paths, out, baseline=against, resamples=resamples, seed=seed)
    opened = [open_compared_run(path) for path in paths]
    settings = settings_of(opened)
    names = [
        display("base" if run.base_only else run.label, setting) for run, setting in zip(opened, settings, strict=True)
    ]
    heading = title or (_title(opened[0], names[0]) if single else f"Comparison of {len(paths)} runs")
    extras = Extras(
        training=training_logs(opened, settings),
        drift={e: _drift(path, drift, progress) for e, path in _trained(opened, settings).items()},
        browser=browse(_sample_files(opened, settings, comparison), _asked(opened, base_dir)),
        how=_how(opened, names, out),
    )
    return write_page(comparison, out, title=heading, extras=extras)


def _title(run: ComparedRun, name: str) -> str:
    return f"Evaluation {name}" if run.evaldir is not None else f"{name}, seed {run.config.seed}"


def _trained(runs: Sequence[ComparedRun], settings: Sequence[str]) -> dict[Entry, Path]:
    """The first run of every trained entry: samples and anchors of one seed are enough to read."""
    paths: dict[Entry, Path] = {}
    for run, setting in zip(runs, settings, strict=True):
        if run.trained:
            paths.setdefault(Entry(run.label, setting), run.path)
    return paths


def _sample_files(
    runs: Sequence[ComparedRun], settings: Sequence[str], comparison: Comparison
) -> dict[tuple[Entry, str], Path]:
    """(entry, dataset) -> its samples, where they are; the base's once, from the first run that has it."""
    base = next((folder for run in runs if (folder := run.base_folder) is not None), None)
    folders = {} if base is None else {Entry("base"): base}
    folders |= {entry: path / "eval" / "final" for entry, path in _trained(runs, settings).items()}
    for evaldir in (run.evaldir for run in runs if run.evaldir is not None):
        for model in evaldir.models:
            folders.setdefault(Entry(model.label), evaldir.folder(model.name))
    datasets = list(dict.fromkeys(row.summary.dataset for row in comparison.rows))
    paths = {(entry, d): folder / f"{d}.parquet" for d in datasets for entry, folder in folders.items()}
    return {key: path for key, path in paths.items() if path.is_file()}


def _asked(runs: Iterable[ComparedRun], base_dir: Path) -> AskedPrompts:
    """Dataset -> prompt id -> prompt and gold, of the tasks that can be read here; samples do without the others."""
    asked: dict[str, Mapping[str, AskedPrompt]] = {}
    for run in runs:
        for name, prompts_of_task in read_asked_prompts(run.path).items():
            asked.setdefault(name, prompts_of_task)
        for name, task in run.config.eval_tasks.items():
            if name not in asked:
                try:
                    prompts = load_task(name, task, base_dir=base_dir).prompts
                except DphrlError:
                    continue
                asked[name] = {p.id: AskedPrompt(_text(p.prompt), str(p.columns.get("gold", ""))) for p in prompts}
    return asked


def _text(prompt: str | tuple[Mapping[str, str], ...]) -> str:
    """A chat as its messages, one below the other."""
    return prompt if isinstance(prompt, str) else "\n".join(f"{m['role']}: {m['content']}" for m in prompt)


def _drift(run: Path, wanted: bool, progress: Progress) -> AnchorDrift | str:
    if not wanted and not (run / "drift.json").is_file():
        return "left out by --no-drift"
    return anchor_drift(run, measure=wanted, progress=progress)


def training_logs(
    runs: Sequence[ComparedRun], settings: Sequence[str], *, running: bool = False
) -> dict[Entry, list[Log]]:
    """The metrics.jsonl of every run by entry; runs that have none are left out.

    Args:
        running: the last line may still be in the making, and is left out if it is no JSON.
    Raises:
        RunDirError: a line is no JSON object.
    """
    logs: dict[Entry, list[Log]] = {}
    for run, setting in zip(runs, settings, strict=True):
        if not run.base_only:
            lines = read_metrics(RunDir(run.path).metrics, running=running)
            if lines:
                logs.setdefault(Entry(run.label, setting), []).append(lines)
    return logs


def _how(runs: Sequence[ComparedRun], names: Sequence[str], out: Path) -> dict[str, How]:
    """What it takes to make the report again."""
    first = runs[0]
    values = [flat(to_dict(run.config)) for run in runs]
    compared = [
        {
            "run": str(run.path),
            "method": name,
            "seed": run.config.seed,
            "differs from the first in": _differences(values[0], of_run) or "nothing",
        }
        for run, name, of_run in zip(runs, names, values, strict=True)
    ]
    command = f"dphrl report {first.path}" if len(runs) == 1 else f"dphrl compare {' '.join(str(r.path) for r in runs)}"
    how: dict[str, How] = {
        "Methods": {name: _described(run) for run, name in zip(runs, names, strict=True) if run.trained},
        "Models": {m.name: m.path for run in runs if run.evaldir is not None for m in run.evaldir.models if m.path},
        "Commands": [_command(run) for run in runs] + [f"{command} --out {out}"],
        "Runs": compared,
        "Changed while training": [
            {"method": name, "seed": run.config.seed, "after step": change.step, "setting": key, "old": old, "new": new}
            for run, name in zip(runs, names, strict=True)
            for change in read_changes(RunDir(run.path).changes)
            for key, (old, new) in change.changes.items()
        ],
        "Warnings while training": [
            {"method": name, "seed": run.config.seed, "step": warning.step, "warning": warning.text}
            for run, name in zip(runs, names, strict=True)
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
    gradient = GRADIENTS[run.config.objective.kl_estimator] if run.config.method == "rkl" else ""
    return f"{main_setting(run.config) or 'as published'}{f' ({gradient})' if gradient else ''}"


def _differences(first: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    keys = [k for k in dict.fromkeys([*first, *other]) if k not in UNSAID and first.get(k) != other.get(k)]
    return ", ".join(f"{key}={other.get(key)}" for key in keys)


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


def _versions(run: ComparedRun) -> dict[str, Any]:
    """Versions of what made the run; empty when it holds none."""
    if run.evaldir is not None:
        return dict(run.evaldir.versions)
    return dict(read_versions(RunDir(run.path)))
