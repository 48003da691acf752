"""Pass@k over training: what `dphrl eval --model checkpoints` measured, as lines of a training log."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import numpy as np

from dphrl.metrics.pass_at_k import supported_k
from dphrl.metrics.per_prompt import per_prompt
from dphrl.metrics.summary import TaskSummary
from dphrl.report.charts.curves import Log
from dphrl.runs.run_dir import RunDir
from dphrl.runs.samples import read_forms, read_samples
from dphrl.runs.summary_file import read_summaries
from dphrl.runs.training_log import read_metrics
from dphrl.stages.compare.compared_runs import ComparedRun
from dphrl.types import MetricsRow

Point = dict[str, float]
"""Key of a training panel -> its number, in % or counts."""


def course_lines(run: ComparedRun) -> Log:
    """Lines {"step", "course/mean_at_n", "course/pass_at_k", "course/distinct"} of a run, means over its tasks.

    The base is step 0 and the trained model the last step, both on the prompts of the checkpoints. Empty where no
    checkpoint was measured. Tasks that a checkpoint lacks are left out.

    Raises:
        RunDirError: damaged files.
    """
    measured = _measured(run.path)
    if not measured:
        return []
    names = [name for name in next(iter(measured.values())) if all(name in of_step for of_step in measured.values())]
    by_step = {step: [_point(of_step[name]) for name in names] for step, of_step in measured.items()}
    last = max((step for step, _ in _step_times(read_metrics(RunDir(run.path).metrics))), default=0)
    for step, folder in ((0, run.base_folder), (last, run.path / "eval" / "final")):
        if folder is not None and step not in by_step:
            found = [_restricted(folder, run.path, max(measured), name, measured) for name in names]
            known = [point for point in found if point is not None]
            by_step |= {step: known} if len(known) == len(names) else {}
    lines: list[MetricsRow] = []
    for step, points in sorted(by_step.items()):
        if points:
            lines.append({"step": float(step), **{key: fmean(point[key] for point in points) for key in points[0]}})
    return lines


def course_text(run: ComparedRun) -> str:
    """What the curves of a run rest on, and what they cost; '' where no checkpoint was measured."""
    measured = _measured(run.path)
    if not measured:
        return ""
    first = next(iter(measured.values()))
    summaries = [summary for of_step in measured.values() for summary in of_step.values()]
    spent = sum(summary.seconds or 0.0 for summary in summaries)
    some = next(iter(first.values()))
    k, prompts = supported_k(some.pass_at_k, some.n), sum(summary.prompts for summary in first.values())
    trained = training_seconds(read_metrics(RunDir(run.path).metrics))
    share = f", {100 * spent / trained:.0f} % of the training's {trained:.0f} s" if trained else ""
    return (
        f"{run.entry.name}: {len(measured)} checkpoints on {prompts} prompts, mean@{some.n} and Pass@{k}; "
        f"drawing took {spent:.0f} s{share}"
    )


def training_seconds(log: Sequence[MetricsRow]) -> float:
    """Seconds that the optimiser steps of a training took, from `step_time` of its log; 0 where it has none."""
    return sum((after[0] - before[0]) * after[1] for before, after in pairwise([(0, 0.0), *_step_times(log)]))


def _step_times(log: Sequence[MetricsRow]) -> list[tuple[int, float]]:
    """(step, seconds of a step) of each log line; 0 seconds where it does not say."""
    numbers = [(line.get("step"), line.get("step_time")) for line in log]
    return [(int(step), float(seconds or 0.0)) for step, seconds in numbers if step is not None]


def _measured(run: Path) -> dict[int, Mapping[str, TaskSummary]]:
    """Step -> task -> what was measured of its checkpoint, ascending."""
    found = {}
    for folder in (run / "eval").glob("checkpoint-*"):
        match = re.fullmatch(r"checkpoint-(\d+)", folder.name)
        summaries = read_summaries(folder / "summary.json") if match else {}
        if match and summaries:
            found[int(match[1])] = summaries
    return dict(sorted(found.items()))


def _point(summary: TaskSummary) -> Point:
    mean, distinct = summary.mean_at_n, summary.distinct_correct
    return {
        "course/mean_at_n": 100 * (np.nan if mean is None else mean),
        "course/pass_at_k": 100 * summary.pass_at_k[supported_k(summary.pass_at_k, summary.n)].value,
        "course/distinct": np.nan if distinct is None else distinct,
    }


def _restricted(
    folder: Path, run: Path, step: int, task: str, measured: Mapping[int, Mapping[str, TaskSummary]]
) -> Point | None:
    """A whole evaluation on the prompts of the checkpoints; None where it lacks some, or has another n."""
    path, summary = folder / f"{task}.parquet", measured[step][task]
    if not path.is_file():
        return None
    ids = {c.prompt_id for c in read_samples(run / "eval" / f"checkpoint-{step}" / f"{task}.parquet", without=["text"])}
    samples = read_samples(path, without=["token_ids"], prompt_ids=ids)
    if {c.prompt_id for c in samples} != ids or max(c.draw for c in samples) + 1 != summary.n:
        return None
    k = supported_k(summary.pass_at_k, summary.n)
    scores = per_prompt(samples, solution=read_forms(path).solution or str, ks=[k])
    mean, passed, distinct = (
        np.nanmean(scores.column(name)) for name in ("mean_at_n", f"pass@{k}", "distinct_correct")
    )
    return {
        "course/mean_at_n": 100 * float(mean),
        "course/pass_at_k": 100 * float(passed),
        "course/distinct": float(distinct),
    }
