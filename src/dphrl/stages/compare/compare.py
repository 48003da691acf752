"""Compare runs and evaluation directories: every row, and means over seeds with paired intervals to a baseline."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from jaxtyping import Float

from dphrl.errors import RunDirError, nearest
from dphrl.files import write_json
from dphrl.metrics import NO_RATES, RESAMPLES, Interval, Scores, bootstrap, paired_bootstrap, seed_spread, widened
from dphrl.report.labels import plain
from dphrl.runs.eval_dir import is_evaldir
from dphrl.stages.compare.entries import Bases, Evaluation, open_run, read_evaluations, settings_of
from dphrl.stages.compare.harness import harness_rows
from dphrl.stages.compare.notes import base_note, notes, same_base, sampling_notes
from dphrl.types import as_json

METRICS = ("greedy", "mean_at_n", "pass@{k}", "pass@n", "keep", "explore", "distinct_correct")
"""Metrics of every aggregate, in order; pass@{k} stands for every k of the rows."""
WHERE_KNOWN = (
    *("maj@{k}", "keep@{k}", "explore@{k}"),
    *("style_entropy", "tokens", "truncated", "no_answer"),
)
"""Metrics that follow where a row has them."""
FORGETTING = ("greedy", "mean_at_n", "pass@n")
"""Metrics whose difference to the base is a cell of the forgetting matrix."""
PREFERRED = "grpo"
"""The baseline where none is named; but the base where no run has this label and all are evaluation directories."""


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
    runs: Sequence[Path], out: Path, *, baseline: str | None = None, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """Compare evaluated runs and write OUT/summary.json (docs/architecture.md, docs/evaluation.md).

    Args:
        runs: run directories, each evaluated, and evaluation directories; every (method, setting, seed) once a dataset.
        out: folder of the comparison.
        baseline: label that differences are taken to; with its setting ('rkl beta=0.1 k2') where it has several. None =
            grpo; of evaluation directories without it the base.
        resamples: bootstrap resamples over prompts (count).
        seed: of the resamples.
    Returns:
        {"rows", "aggregate", "forgetting", "baseline", "notes"}. A row is one model on one dataset; `base` stands once
        for each seed. The aggregate gives for each method, setting, dataset and metric the mean and sd over seeds,
        `low` and `high` (95 % over prompts, scores averaged over seeds), `spread` (where the uncertainty comes from,
        and the interval over prompts and seeds), and the `difference` to the baseline, paired over prompts: null for
        the baseline itself and where no run is the baseline. `forgetting` gives the differences to the base. Rates are
        in 0..1. Notes say in words what makes numbers hard to compare.
    Raises:
        RunDirError: no run, not a run directory, no evaluation yet, a run that comes twice, other prompts than the
            baseline's, or a baseline with several settings.
    """
    read, unlike = _read(runs)
    groups = _grouped(read)
    if baseline is None:
        alone = all(is_evaldir(Path(path)) for path in runs)
        baseline = "base" if alone and PREFERRED not in {g.method for g in groups} else PREFERRED
    chosen = _baseline(groups, baseline)
    against = {g.dataset: g for g in groups if g.name == chosen}
    aggregate = [row for g in groups for row in _aggregate(g, against.get(g.dataset), resamples=resamples, seed=seed)]
    evaluations = [e for g in groups for e in g.seeds]
    summary: dict[str, Any] = {
        "rows": [
            {"method": e.method, "setting": e.setting, "seed": e.seed, **e.summary.to_json()} for e in evaluations
        ],
        "aggregate": aggregate,
        "forgetting": _forgetting(groups, resamples=resamples, seed=seed),
        "harness": _harness(runs),
        "baseline": chosen,
        "notes": [*_untrained(runs), *unlike, *notes(groups, baseline if chosen is None else None)],
    }
    write_json(out / "summary.json", summary)
    return summary


def _harness(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """What lm-evaluation-harness measured on the same models; empty where it was not run."""
    runs = [open_run(Path(path)) for path in paths]
    return harness_rows(runs, settings_of(runs))


def _read(paths: Sequence[Path]) -> tuple[list[Evaluation], list[str]]:
    """Every evaluation, first the base of each seed, once, then the runs in the order given; and notes on draws and
    bases that are not alike."""
    if not paths:
        raise RunDirError("no run directory to compare; name at least one, e.g. `dphrl compare runs/grpo runs/dph`")
    runs = [open_run(Path(path)) for path in paths]
    bases: dict[tuple[int, str], Evaluation] = {}
    read: Bases = {}
    finals: dict[tuple[str, str, int, str], Path] = {}
    found: list[Evaluation] = []
    unlike: dict[str, str] = {}
    for run, setting in zip(runs, settings_of(runs), strict=True):
        own, base = read_evaluations(run, setting, read)
        for e in own:
            key = (e.method, e.setting, e.seed, e.dataset)
            if key in finals:
                raise RunDirError(
                    f"{finals[key]} and {e.run} are both {' '.join(filter(None, key[:2]))} with seed {e.seed}; "
                    "name each run once, and give repeated runs seeds of their own"
                )
            finals[key] = e.run
        found += own
        for e in base:
            first = bases.setdefault((e.seed, e.dataset), e)
            if not same_base(first, e):
                unlike.setdefault(e.dataset, base_note(first, e))
    return [*bases.values(), *found], [*sampling_notes(runs), *unlike.values()]


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
    compared = baseline if baseline is not None and baseline.name != group.name else None
    gaps = {} if compared is None else _gaps(group, compared, resamples=resamples, seed=seed)
    found = []
    for metric in _metrics(group):
        values = _values(group, metric)
        level = _honest(group, metric, levels[metric]) if metric in levels else _own_interval(group, metric)
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
                "spread": _spread(_table(group, metric), metric, 0.0),
                "difference": _difference(group, compared, metric, gaps.get(metric)),
            }
        )
    return found


def _gaps(
    group: Group, other: Group, *, resamples: int, seed: int, metrics: Sequence[str] | None = None
) -> dict[str, Interval]:
    """Paired intervals of the difference to another group, in every metric that both have, or those of `metrics`."""
    _same_prompts(group.seeds[0], other.seeds[0])
    mine, theirs = _over_seeds(group.seeds), _over_seeds(other.seeds)
    shared = [name for name in mine.names if name in theirs.names and (metrics is None or name in metrics)]
    rng = np.random.default_rng(seed)
    return paired_bootstrap(mine.only(shared), theirs.only(shared), rng=rng, resamples=resamples)


def _forgetting(groups: Sequence[Group], *, resamples: int, seed: int) -> list[dict[str, Any]]:
    """Differences of every method to the base: task x method, a cell for each metric."""
    bases = {g.dataset: g for g in groups if g.method == "base"}
    found = []
    for group in groups:
        base = bases.get(group.dataset)
        if base is None or group.method == "base" or group.seeds[0].scores.ids != base.seeds[0].scores.ids:
            continue
        gaps = _gaps(group, base, resamples=resamples, seed=seed, metrics=FORGETTING)
        for metric in FORGETTING:
            gap = _difference(group, base, metric, gaps.get(metric))
            if gap is not None:
                cell = {"method": group.method, "setting": group.setting, "dataset": group.dataset, "metric": metric}
                found.append(cell | {name: gap[name] for name in ("value", "low", "high", "agree") if name in gap})
    return found


def _honest(group: Group, metric: str, level: Interval) -> Interval:
    """The interval of a rate has a width also where all prompts agree."""
    prompts = min(e.sizes.get(metric, 0.0) for e in group.seeds)
    return widened(level, prompts) if metric not in NO_RATES and prompts else level


def _table(group: Group, metric: str) -> dict[int, Float[np.ndarray, " prompts"]]:
    """Seed -> the metric of every prompt; only where every seed knows it of every prompt."""
    columns = {e.seed: e.scores.column(metric) for e in group.seeds if metric in e.scores.names}
    whole = len(columns) == len(group.seeds) and not any(np.isnan(column).any() for column in columns.values())
    return columns if whole else {}


def _spread(columns: Mapping[int, Float[np.ndarray, " prompts"]], metric: str, least: float) -> dict[str, float] | None:
    """Over prompts and seeds; the interval of a rate ends at `least` and 1, whatever Student's has it."""
    found = seed_spread(np.stack(list(columns.values()))) if columns else None
    if found is None or metric in NO_RATES:
        return None if found is None else dict(as_json(found))
    return dict(as_json(found)) | {"low": max(found.low, least), "high": min(found.high, 1.0)}


def _own_interval(group: Group, metric: str) -> Interval | None:
    """The interval that a single seed's row gives, for a metric that the samples alone do not."""
    found = group.seeds[0].summary.intervals.get(metric) if len(group.seeds) == 1 else None
    return None if found is None or math.isnan(found.low) or math.isnan(found.high) else found


def _difference(group: Group, baseline: Group | None, metric: str, gap: Interval | None) -> dict[str, Any] | None:
    """The paired difference; without an interval where only the rows know the metric."""
    if baseline is None:
        return None
    if gap is None or math.isnan(gap.value):
        mine, other = _values(group, metric), _values(baseline, metric)
        known = mine and other
        value = mean(mine) - mean(other) if known else None
        return {"baseline": baseline.name, "value": value, "low": None, "high": None} if known else None
    found: dict[str, Any] = {"baseline": baseline.name, "value": gap.value, "low": gap.low, "high": gap.high}
    mine_of, other_of = _table(group, metric), _table(baseline, metric)
    if mine_of.keys() == other_of.keys():  # seeds come in pairs: what they share (presamples, base) cancels
        found["spread"] = _spread({seed: column - other_of[seed] for seed, column in mine_of.items()}, metric, -1.0)
    if gap.low == gap.high:
        found["agree"] = len(group.seeds[0].scores.ids)
    return found


def _over_seeds(seeds: Sequence[Evaluation]) -> Scores:
    """Scores of every prompt averaged over the seeds in which the metric is known, metrics that all seeds have."""
    names = [name for name in seeds[0].scores.names if all(name in e.scores.names for e in seeds)]
    values_SPM = np.stack([e.scores.only(names).values_PM for e in seeds])  # rows are sorted by id
    known_SPM = ~np.isnan(values_SPM)
    total_PM = np.where(known_SPM, values_SPM, 0.0).sum(axis=0)
    count_PM = known_SPM.sum(axis=0)
    mean_PM = np.divide(total_PM, count_PM, out=np.full(total_PM.shape, np.nan), where=count_PM > 0)
    return Scores(seeds[0].scores.ids, tuple(names), mean_PM)


def _metrics(group: Group) -> list[str]:
    """METRICS with every k that all seeds have, and those of WHERE_KNOWN that some seed knows."""
    ks = sorted(set.intersection(*(set(e.summary.pass_at_k) for e in group.seeds)))

    def named(metrics: Iterable[str]) -> list[str]:
        return [name for m in metrics for name in ([m.format(k=k) for k in ks] if "{k}" in m else [m])]

    return [*named(METRICS), *(name for name in named(WHERE_KNOWN) if _values(group, name))]


def _values(group: Group, metric: str) -> list[float]:
    """The metric of each seed's row, seeds without it left out."""
    return [value for e in group.seeds if (value := e.summary.value(metric)) is not None]


def _bound(value: float, metric: str) -> float | None:
    """An end of an interval; that of a ratio can leave 0..1 by its approximation (`counted`)."""
    if math.isnan(value):
        return None
    return max(value, 0.0) if metric in NO_RATES else min(max(value, 0.0), 1.0)


def _untrained(paths: Sequence[Path]) -> list[str]:
    left = [path for path in paths if open_run(Path(path)).base_only and (Path(path) / "train").exists()]
    return [f"{path}: only its base was measured; run `dphrl eval --config {path / 'config.yaml'}`." for path in left]
