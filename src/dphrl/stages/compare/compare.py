"""Compare runs and evaluation directories: every row, and means over seeds with paired intervals to a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dphrl.errors import RunDirError, nearest
from dphrl.files import write_json
from dphrl.metrics.intervals import RESAMPLES
from dphrl.report.comparison import ComparedModel, Comparison, HarnessNumber
from dphrl.runs.harness_results import read_harness_results
from dphrl.stages.compare.compared_runs import ComparedRun, open_compared_runs
from dphrl.stages.compare.evaluations import Bases, Evaluation, SeedGroup, group_by_seeds, read_evaluations
from dphrl.stages.compare.notes import base_note, notes, same_base, sampling_notes
from dphrl.stages.compare.over_seeds import aggregates, base_changes

PREFERRED = "grpo"
"""The baseline where none is named; but the base where no run has this label and all are evaluation directories."""


def compare_runs(
    runs: Sequence[Path], out: Path, *, baseline: str | None = None, resamples: int = RESAMPLES, seed: int = 0
) -> Comparison:
    """Compare evaluated runs and write OUT/summary.json (docs/architecture.md, docs/evaluation.md).

    Args:
        runs: run directories, each evaluated, and evaluation directories; every (method, setting, seed) once a task.
        out: folder of the comparison.
        baseline: label that differences are taken to; with its setting ('rkl beta=0.1 k2') where it has several. None =
            grpo; of evaluation directories without it the base.
        resamples: bootstrap resamples over prompts (count).
        seed: of the resamples.
    Returns:
        What OUT/summary.json holds. A row is one model on one task; `base` stands once for each seed. `low` and `high`
        are over prompts, scores averaged over seeds; differences are paired over prompts.
    Raises:
        RunDirError: no run, not a run directory, no evaluation yet, a run that comes twice, other prompts than the
            baseline's, or a baseline with several settings.
    """
    if not runs:
        raise RunDirError("no run directory to compare; name at least one, e.g. `dphrl compare runs/grpo runs/dph`")
    opened = open_compared_runs([Path(path) for path in runs])
    evaluations, unlike = _read(opened)
    groups = group_by_seeds(evaluations)
    if baseline is None:
        alone = all(run.evaldir is not None for run in opened)
        baseline = "base" if alone and PREFERRED not in {g.entry.method for g in groups} else PREFERRED
    chosen = _baseline(groups, baseline)
    against = {g.dataset: g for g in groups if g.name == chosen}
    by_group = [aggregates(g, against.get(g.dataset), resamples=resamples, seed=seed) for g in groups]
    comparison = Comparison(
        rows=tuple(ComparedModel(e.entry.method, e.entry.setting, e.seed, e.summary) for g in groups for e in g.seeds),
        aggregate=tuple(aggregate for of_group in by_group for aggregate in of_group),
        forgetting=tuple(base_changes(groups, resamples=resamples, seed=seed)),
        harness=tuple(_harness_numbers(opened)),
        baseline=chosen,
        notes=(*_untrained(opened), *unlike, *notes(groups, baseline if chosen is None else None)),
    )
    write_json(out / "summary.json", comparison.to_json())
    return comparison


def _read(runs: Sequence[ComparedRun]) -> tuple[list[Evaluation], list[str]]:
    """Every evaluation, first the base of each seed, once, then the runs in the order given; and notes on draws and
    bases that are not alike."""
    first_bases: dict[tuple[int, str], Evaluation] = {}
    bases: Bases = {}
    run_by_key: dict[tuple[str, int, str], Path] = {}
    of_models: list[Evaluation] = []
    unlike: dict[str, str] = {}
    for run in runs:
        of_run, of_base = read_evaluations(run, bases)
        for e in of_run:
            key = (e.entry.key, e.seed, e.dataset)
            if key in run_by_key:
                raise RunDirError(
                    f"{run_by_key[key]} and {e.run} are both {e.entry.key} with seed {e.seed}; "
                    "name each run once, and give repeated runs seeds of their own"
                )
            run_by_key[key] = e.run
        of_models += of_run
        for e in of_base:
            first = first_bases.setdefault((e.seed, e.dataset), e)
            if not same_base(first, e):
                unlike.setdefault(e.dataset, base_note(first, e))
    return [*first_bases.values(), *of_models], [*sampling_notes(runs), *unlike.values()]


def _baseline(groups: Sequence[SeedGroup], wanted: str) -> str | None:
    """The name of the baseline's groups; None when no run is one."""
    names = list(dict.fromkeys(g.name for g in groups))
    settings = list(dict.fromkeys(g.name for g in groups if g.entry.method == wanted))
    if wanted in names:
        return wanted
    if len(settings) > 1:
        raise RunDirError(f"baseline {wanted!r} has several settings; name one of: {'; '.join(settings)}")
    if not settings and " " in wanted:
        raise RunDirError(f"no run is the baseline {wanted!r}{nearest(wanted, names)}; there are: {'; '.join(names)}")
    return settings[0] if settings else None


def _harness_numbers(runs: Sequence[ComparedRun]) -> list[HarnessNumber]:
    """What lm-evaluation-harness measured on the same models; a base that runs share comes once."""
    keys: dict[Path, tuple[str, str, int]] = {}
    for run in runs:
        if run.evaldir is not None:
            for model in run.evaldir.models:
                keys.setdefault(run.evaldir.folder(model.name), (model.label, "", model.seed))
            continue
        if run.base_folder is not None:
            keys.setdefault(run.base_folder, ("base", "", run.config.seed))
        if not run.base_only:
            keys.setdefault(run.path / "eval" / "final", (run.label, run.setting, run.config.seed))
    return [HarnessNumber(*key, row) for folder, key in keys.items() for row in read_harness_results(folder).rows]


def _untrained(runs: Sequence[ComparedRun]) -> list[str]:
    left = [run for run in runs if run.base_only and (run.path / "train").exists()]
    return [f"{run.path}: only its base was measured; {run.evaluate_again}." for run in left]
