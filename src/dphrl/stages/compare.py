"""Compare runs: every row of every run, and means over seeds with paired intervals to a baseline."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from dphrl.errors import RunDirError, nearest
from dphrl.files import write_json
from dphrl.metrics import RESAMPLES, Interval, Scores, bootstrap, paired_bootstrap
from dphrl.report.labels import COUNTS, plain
from dphrl.report.runs import Bases, Evaluation, open_run, read_evaluations, settings_of

METRICS = ("greedy", "mean_at_n", "pass@{k}", "pass@n", "keep", "explore", "distinct_correct")
"""Metrics of the aggregate, in order; pass@{k} stands for every k of the rows."""


@dataclass(frozen=True, slots=True)
class Group:
    """One method with one setting on one dataset: an evaluation for each seed."""

    method: str
    setting: str
    dataset: str
    seeds: tuple[Evaluation, ...]

    @property
    def name(self) -> str:
        """'dph_f eta=0.2': how a baseline is named."""
        return f"{self.method} {self.setting}".strip()


def compare(
    runs: Sequence[Path], out: Path, *, baseline: str = "grpo", resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """Compare evaluated runs and write OUT/summary.json (docs/architecture.md).

    Args:
        runs: run directories, each evaluated; every (method, setting, seed) once.
        out: folder of the comparison.
        baseline: label that differences are taken to; with its setting ('rkl beta=0.1 k2') where it has several.
        resamples: bootstrap resamples over prompts (count).
        seed: of the resamples.
    Returns:
        {"rows", "aggregate", "baseline", "notes"}. A row is one model on one dataset; `base` stands once for each
        seed. The aggregate gives for each method, setting, dataset and metric the mean and sd over seeds, `low` and
        `high` (95 % over prompts, scores averaged over seeds), and the `difference` to the baseline, paired over
        prompts: null for the baseline itself and where no run is the baseline. Rates are in 0..1. Notes say in
        words what makes numbers hard to compare.
    Raises:
        RunDirError: no run, not a run directory, no evaluation yet, a run that comes twice, other prompts than the
            baseline's, or a baseline with several settings.
    """
    groups = _grouped(_read(runs))
    chosen = _baseline(groups, baseline)
    against = {g.dataset: g for g in groups if g.name == chosen}
    aggregate = [row for g in groups for row in _aggregate(g, against.get(g.dataset), resamples=resamples, seed=seed)]
    evaluations = [e for g in groups for e in g.seeds]
    summary: dict[str, Any] = {
        "rows": [{"method": e.method, "setting": e.setting, "seed": e.seed, **e.row} for e in evaluations],
        "aggregate": aggregate,
        "baseline": chosen,
        "notes": [*_untrained(runs), *_notes(groups, baseline if chosen is None else None)],
    }
    write_json(out / "summary.json", summary)
    return summary


def _read(paths: Sequence[Path]) -> list[Evaluation]:
    """Every evaluation: first the base of each seed, once, then the runs in the order given."""
    if not paths:
        raise RunDirError("no run directory to compare; name at least one, e.g. `dphrl compare runs/grpo runs/dph`")
    runs = [open_run(Path(path)) for path in paths]
    bases: dict[tuple[int, str], Evaluation] = {}
    read: Bases = {}
    finals: dict[tuple[str, str, int], Path] = {}
    found: list[Evaluation] = []
    for run, setting in zip(runs, settings_of(runs), strict=True):
        key = (run.label, setting, run.config.seed)
        if key in finals and not run.base_only:
            raise RunDirError(
                f"{finals[key]} and {run.path} are both {' '.join(filter(None, key[:2]))} with seed {key[2]}; "
                "name each run once, and give repeated runs seeds of their own"
            )
        if not run.base_only:
            finals[key] = run.path
        own, base = read_evaluations(run, setting, read)
        found += own
        for evaluation in base:
            bases.setdefault((evaluation.seed, evaluation.dataset), evaluation)
    return [*bases.values(), *found]


def _grouped(evaluations: Iterable[Evaluation]) -> list[Group]:
    """Groups in order of first appearance; one group's seeds must share their prompts."""
    members: dict[tuple[str, str, str], list[Evaluation]] = {}
    for e in evaluations:
        members.setdefault((e.method, e.setting, e.dataset), []).append(e)
    for mine in members.values():
        for other in mine[1:]:
            _same_prompts(mine[0], other)
    return [Group(*key, tuple(sorted(mine, key=lambda e: e.seed))) for key, mine in members.items()]


def _baseline(groups: Sequence[Group], wanted: str) -> str | None:
    """The name of the baseline's groups; None when no run is one."""
    names = list(dict.fromkeys(g.name for g in groups))
    settings = list(dict.fromkeys(g.name for g in groups if g.method == wanted))
    if wanted in names:
        return wanted
    if len(settings) > 1:
        raise RunDirError(f"baseline {wanted!r} has several settings; name one of: {'; '.join(settings)}")
    if not settings and " " in wanted:
        raise RunDirError(f"no run is the baseline {wanted!r}{nearest(wanted, names)}; there are: {'; '.join(names)}")
    return settings[0] if settings else None


def _same_prompts(one: Evaluation, other: Evaluation) -> None:
    odd = sorted(set(one.scores.ids) ^ set(other.scores.ids))
    if odd:
        raise RunDirError(
            f"{one.run} ({one.method}, seed {one.seed}) and {other.run} ({other.method}, seed {other.seed}) were "
            f"evaluated on different prompts of {one.dataset!r}: {len(odd)} are on one side only, e.g. "
            f"{plain(odd[0])!r}; evaluate both with the same eval_tasks"
        )


def _aggregate(group: Group, baseline: Group | None, *, resamples: int, seed: int) -> list[dict[str, Any]]:
    """One object for each metric of the group."""
    scores = _over_seeds(group.seeds)
    levels = bootstrap(scores, rng=np.random.default_rng(seed), resamples=resamples)
    gaps: dict[str, Interval] = {}
    if baseline is not None and baseline.name != group.name:
        _same_prompts(group.seeds[0], baseline.seeds[0])
        other = _over_seeds(baseline.seeds)
        shared = [name for name in scores.names if name in other.names]
        rng = np.random.default_rng(seed)
        gaps = paired_bootstrap(_only(scores, shared), _only(other, shared), rng=rng, resamples=resamples)
    found = []
    for metric in _metrics(group.seeds):
        values = _values(group, metric)
        level = levels.get(metric) or _own_interval(group, metric)
        found.append(
            {
                "method": group.method,
                "setting": group.setting,
                "dataset": group.dataset,
                "metric": metric,
                "mean": mean(values) if values else None,
                "sd": stdev(values) if len(values) > 1 else None,
                "seeds": len(values),
                "low": _bound(level.low, metric) if level else None,
                "high": _bound(level.high, metric) if level else None,
                "difference": _difference(group, baseline, metric, gaps.get(metric)),
            }
        )
    return found


def _own_interval(group: Group, metric: str) -> Interval | None:
    """The interval that a single seed's row gives, for a metric that the samples alone do not."""
    found = (group.seeds[0].row.get("intervals") or {}).get(metric) if len(group.seeds) == 1 else None
    if not found or found["low"] is None or found["high"] is None:
        return None
    return Interval(found["value"], found["low"], found["high"])


def _difference(group: Group, baseline: Group | None, metric: str, gap: Interval | None) -> dict[str, Any] | None:
    """The paired difference; without an interval where only the rows know the metric."""
    if baseline is None or baseline.name == group.name:
        return None
    if gap is not None and not math.isnan(gap.value):
        return {"baseline": baseline.name, "value": gap.value, "low": gap.low, "high": gap.high}
    mine, other = _values(group, metric), _values(baseline, metric)
    if not mine or not other:
        return None
    return {"baseline": baseline.name, "value": mean(mine) - mean(other), "low": None, "high": None}


def _over_seeds(seeds: Sequence[Evaluation]) -> Scores:
    """Scores of every prompt averaged over the seeds in which the metric is known, metrics that all seeds have."""
    names = [name for name in seeds[0].scores.names if all(name in e.scores.names for e in seeds)]
    values_SPM = np.stack([_only(e.scores, names).values_PM for e in seeds])  # rows are sorted by id
    known_SPM = ~np.isnan(values_SPM)
    total_PM = np.where(known_SPM, values_SPM, 0.0).sum(axis=0)
    count_PM = known_SPM.sum(axis=0)
    mean_PM = np.divide(total_PM, count_PM, out=np.full(total_PM.shape, np.nan), where=count_PM > 0)
    return Scores(seeds[0].scores.ids, tuple(names), mean_PM)


def _only(scores: Scores, names: Sequence[str]) -> Scores:
    return Scores(scores.ids, tuple(names), scores.values_PM[:, [scores.names.index(name) for name in names]])


def _metrics(seeds: Sequence[Evaluation]) -> list[str]:
    """METRICS with every k that all seeds have."""
    ks = sorted(set.intersection(*({int(k) for k in e.row["pass_at_k"]} for e in seeds)))
    return [name for metric in METRICS for name in ([f"pass@{k}" for k in ks] if "{k}" in metric else [metric])]


def _values(group: Group, metric: str) -> list[float]:
    """The metric of each seed's row, seeds without it left out."""
    found = [_value(e, metric) for e in group.seeds]
    return [value for value in found if value is not None]


def _value(evaluation: Evaluation, metric: str) -> float | None:
    row = evaluation.row
    if not metric.startswith("pass@"):
        return row.get(metric)
    k = str(row["n"]) if metric == "pass@n" else metric.removeprefix("pass@")
    found = row["pass_at_k"].get(k)
    return None if found is None else found["value"]


def _bound(value: float, metric: str) -> float | None:
    """An end of an interval; that of a ratio can leave 0..1 by its approximation (`counted`)."""
    if math.isnan(value):
        return None
    return max(value, 0.0) if metric in COUNTS else min(max(value, 0.0), 1.0)


def _notes(groups: Sequence[Group], absent: str | None) -> list[str]:
    """What makes the numbers hard to compare, one sentence each."""
    notes = [f"No run is the baseline {absent!r}, so no differences are shown."] if absent not in (None, "base") else []
    datasets = list(dict.fromkeys(g.dataset for g in groups))
    names = list(dict.fromkeys(g.name for g in groups))
    for dataset in datasets:
        mine = [g for g in groups if g.dataset == dataset]
        notes += _dataset_notes(dataset, mine)
        lacking = [name for name in names if name not in {g.name for g in mine}]
        if lacking:
            notes.append(f"{dataset}: not measured for {', '.join(lacking)}.")
    seeds = {g.name: ", ".join(str(e.seed) for e in g.seeds) for g in reversed(groups)}
    if len(set(seeds.values())) > 1:
        notes.append(f"Seeds differ: {'; '.join(f'{name}: {seeds[name]}' for name in names)}.")
    if "base" not in names:
        notes.append(
            "No evaluation of the base was found, so differences to it are not shown; set eval.base and evaluate again."
        )
    return notes


def _untrained(paths: Sequence[Path]) -> list[str]:
    left = [path for path in paths if open_run(Path(path)).base_only and (Path(path) / "train").exists()]
    return [f"{path}: only its base was measured; run `dphrl eval --config {path / 'config.yaml'}`." for path in left]


def _dataset_notes(dataset: str, groups: Sequence[Group]) -> list[str]:
    notes = []
    draws = {e.row["n"]: e for g in groups for e in g.seeds}
    if len(draws) > 1:
        sides = "; ".join(f"n={n} in {draws[n].run}" for n in sorted(draws))
        notes.append(f"{dataset}: n differs ({sides}); keep, explore and distinct correct grow with n.")
    for one, other in combinations([g.seeds[0] for g in groups], 2):
        if one.scores.ids != other.scores.ids:
            notes.append(f"{dataset}: {one.run} and {other.run} were evaluated on different prompts.")
            break
    unjudged = {g.name: sum(e.row.get("unjudged") or 0 for e in g.seeds) for g in groups}
    if any(unjudged.values()):
        counts = "; ".join(f"{name}: {count}" for name, count in unjudged.items() if count)
        notes.append(
            f"{dataset}: some completions could not be judged and count as neither right nor wrong ({counts})."
        )
    return notes
