"""The report stage: one run against its base, or several runs compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from dphrl.errors import DphrlError, RunDirError
from dphrl.metrics.intervals import RESAMPLES
from dphrl.progress import Progress, silent
from dphrl.report.charts.curves import Log
from dphrl.report.comparison import Comparison, Entry
from dphrl.report.labels import display
from dphrl.report.page.drift_view import AnchorDrift
from dphrl.report.page.sample_browser import AskedPrompt, AskedPrompts, browse
from dphrl.report.page.write_page import Extras, write_page
from dphrl.runs.run_dir import RunDir
from dphrl.runs.training_log import read_metrics
from dphrl.stages.compare.compare import compare_runs
from dphrl.stages.compare.compared_runs import ComparedRun, open_compared_runs
from dphrl.stages.import_samples.asked_prompts import read_asked_prompts
from dphrl.stages.report.anchor_drift import anchor_drift
from dphrl.stages.report.how_it_was_made import how_it_was_made, shown_name
from dphrl.stages.report.training_course import course_lines, course_text
from dphrl.tasks import load_task


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
    paths, out = _paths(runs), _folder(_paths(runs), out)
    if comparison is None:
        comparison = report_comparison(paths, out, baseline=baseline, resamples=resamples, seed=seed)
    opened = open_compared_runs(paths)
    heading = title or (_title(opened[0]) if len(paths) == 1 else f"Comparison of {len(paths)} runs")
    extras = Extras(
        training=training_logs(opened),
        course=[text for run in opened if run.trained and (text := course_text(run))],
        drift={entry: _drift(path, drift, progress) for entry, path in _trained(opened).items()},
        browser=browse(_sample_files(opened, comparison), _asked(opened, base_dir)),
        how=how_it_was_made(opened, out),
    )
    return write_page(comparison, out, title=heading, extras=extras)


def report_comparison(
    runs: Path | str | Sequence[Path | str],
    out: Path | None = None,
    *,
    baseline: str | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """What `write_report` of the same arguments shows."""
    paths = _paths(runs)
    against = baseline or ("base" if len(paths) == 1 else "grpo")
    return compare_runs(paths, _folder(paths, out), baseline=against, resamples=resamples, seed=seed)


def _paths(runs: Path | str | Sequence[Path | str]) -> list[Path]:
    return [Path(run) for run in ([runs] if isinstance(runs, Path | str) else runs)]


def _folder(paths: Sequence[Path], out: Path | None) -> Path:
    if out is None and len(paths) != 1:
        raise RunDirError(f"a report of {len(paths)} runs needs a folder; name it with --out, e.g. --out runs/compare")
    return paths[0] / "report" if out is None else Path(out)


def _title(run: ComparedRun) -> str:
    """'DPH-F, seed 0'; of an evaluation directory its models: 'grpo and dph against base'."""
    if run.evaldir is None:
        return f"{shown_name(run)}, seed {run.config.seed}"
    base = run.evaldir.base
    names = list(dict.fromkeys(display(model.label) for model in run.evaldir.models if not model.base))
    if not names:
        return base.name if base is not None else run.path.name
    shown = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    return f"{shown} against {base.name}" if base is not None else shown


def _trained(runs: Sequence[ComparedRun]) -> dict[Entry, Path]:
    """The first run of every trained entry: samples and anchors of one seed are enough to read."""
    paths: dict[Entry, Path] = {}
    for run in runs:
        if run.trained:
            paths.setdefault(run.entry, run.path)
    return paths


def _sample_files(runs: Sequence[ComparedRun], comparison: Comparison) -> dict[tuple[Entry, str], Path]:
    """(entry, dataset) -> its samples, where they are; the base's once, from the first run that has it."""
    base = next((folder for run in runs if (folder := run.base_folder) is not None), None)
    folders = {} if base is None else {Entry("base"): base}
    folders |= {entry: path / "eval" / "final" for entry, path in _trained(runs).items()}
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


def training_logs(runs: Sequence[ComparedRun], *, running: bool = False) -> dict[Entry, list[Log]]:
    """The metrics.jsonl of every run by entry, with what was measured of its checkpoints; runs that have none are left
    out.

    Args:
        running: the last line may still be in the making, and is left out if it is no JSON.
    Raises:
        RunDirError: a line is no JSON object.
    """
    logs: dict[Entry, list[Log]] = {}
    for run in runs:
        if not run.base_only and (lines := read_metrics(RunDir(run.path).metrics, running=running)):
            logs.setdefault(run.entry, []).append([*lines, *course_lines(run)])
    return logs
