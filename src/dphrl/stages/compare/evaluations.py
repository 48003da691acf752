"""The evaluations of the compared runs: the summary and the scores of every prompt, of one model on one task."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dphrl.errors import RunDirError
from dphrl.metrics.intervals import Scores, join_scores
from dphrl.metrics.per_prompt import per_prompt
from dphrl.metrics.summary import TaskSummary
from dphrl.report.comparison import Entry
from dphrl.report.labels import visible
from dphrl.runs.samples import read_forms, read_samples
from dphrl.runs.summary_file import read_summaries
from dphrl.stages.compare.compared_runs import ComparedRun
from dphrl.types import Completion


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One model of one run, evaluated on one task."""

    run: Path
    entry: Entry
    seed: int
    summary: TaskSummary
    """As `eval/MODEL/summary.json` holds it."""
    scores: Scores
    """Every metric of every prompt; see `counted`."""
    sizes: Mapping[str, float] = field(default_factory=dict)
    """Metric -> prompts that its mean rests on."""

    @property
    def dataset(self) -> str:
        """Name of the task."""
        return self.summary.dataset


@dataclass(frozen=True, slots=True)
class SeedGroup:
    """One method with one setting on one task: an evaluation for each seed, on the same prompts."""

    entry: Entry
    dataset: str
    seeds: tuple[Evaluation, ...]

    @property
    def name(self) -> str:
        """'dph_f eta=0.2': how a baseline is named."""
        return self.entry.key


Bases = dict[Path, dict[str, tuple[Evaluation, list[Completion]]]]
"""Folder of a base's evaluation -> task -> what was measured of it, and its completions."""


def read_evaluations(run: ComparedRun, bases: Bases) -> tuple[list[Evaluation], list[Evaluation]]:
    """The run's final model and its base on every task; of an evaluation directory all models.

    Args:
        bases: what was read of bases so far; runs often share theirs. Filled here.
    Returns:
        Of the models: none where only the base was measured. Of the base: none where it was not measured.
    Raises:
        RunDirError: no evaluation at all, or one that is damaged or does not fit its samples.
        DataError: samples that no metric can be made of.
    """
    folder = run.base_folder
    if folder is not None and folder not in bases:
        bases[folder] = {summary.dataset: _read_base(run, folder, summary) for summary in _summaries(folder, run)}
    of_base = bases[folder] if folder is not None else {}
    measured = [evaluation for evaluation, _ in of_base.values()]
    if run.base_only:
        return [], measured
    if run.evaldir is None:
        return _read_model(run, "final", run.entry, run.config.seed, of_base), measured
    models = [model for model in run.evaldir.models if not model.base]
    by_model = [_read_model(run, m.name, Entry(m.label), m.seed, of_base) for m in models]
    return [evaluation for evaluations in by_model for evaluation in evaluations], measured


def group_by_seeds(evaluations: Iterable[Evaluation]) -> list[SeedGroup]:
    """Groups in order of first appearance.

    Raises:
        RunDirError: two seeds of one group were evaluated on different prompts.
    """
    members: dict[tuple[Entry, str], list[Evaluation]] = {}
    for evaluation in evaluations:
        members.setdefault((evaluation.entry, evaluation.dataset), []).append(evaluation)
    for first, *others in members.values():
        for other in others:
            check_same_prompts(first, other)
    return [SeedGroup(*key, tuple(sorted(seeds, key=lambda e: e.seed))) for key, seeds in members.items()]


def check_same_prompts(one: Evaluation, other: Evaluation) -> None:
    """Refuse evaluations of one task on different prompts.

    Raises:
        RunDirError: names both runs and a prompt.
    """
    odd = sorted(set(one.scores.ids) ^ set(other.scores.ids))
    if odd:
        raise RunDirError(
            f"{one.run} ({one.entry.method}, seed {one.seed}) and {other.run} ({other.entry.method}, "
            f"seed {other.seed}) were evaluated on different prompts of {one.dataset!r}: {len(odd)} are on one side "
            f"only, e.g. {visible(odd[0])!r}; evaluate both with the same eval_tasks"
        )


def counted(scores: Scores) -> Scores:
    """The same metrics with a number for every prompt, so that seeds can be averaged and paired prompt by prompt.

    A ratio R (keep: over the prompts the base solved) counts in a share s of the prompts, other ones in each seed; or
    prompts have weights w of mean s. Its column becomes R + (value - R) w / s (R where a prompt does not count): the
    mean is R exactly and the spread of resampled means is that of the ratio to first order (its influence values). Full
    columns stay as they are.
    """
    weights_PM = scores.counting()
    share_M = weights_PM.mean(axis=0)
    raw_PM = np.where(weights_PM > 0, scores.values_PM, 0.0)
    total_M, weight_M = (raw_PM * weights_PM).sum(axis=0), weights_PM.sum(axis=0)
    ratio_M = np.divide(total_M, weight_M, out=np.full(share_M.shape, np.nan), where=weight_M > 0)
    shift_PM = np.where(weights_PM > 0, raw_PM - ratio_M, 0.0) * weights_PM / np.where(share_M > 0, share_M, 1.0)
    values_PM = np.where((weights_PM == 1.0).all(axis=0), raw_PM, ratio_M + shift_PM)
    return Scores(scores.ids, scores.names, values_PM)


def _summaries(folder: Path, run: ComparedRun) -> list[TaskSummary]:
    """The rows of `eval/MODEL/summary.json`.

    Raises:
        RunDirError: missing, damaged or empty; names the command that makes it.
    """
    path, remedy = folder / "summary.json", run.evaluate_again
    if not path.is_file():
        raise RunDirError(f"{run.path} holds no evaluation yet (no {path.relative_to(folder.parents[1])}); {remedy}")
    summaries = list(read_summaries(path).values())
    if not summaries:
        raise RunDirError(f"{path} has no rows; name at least one dataset in eval_tasks and {remedy}")
    return summaries


def _read_base(run: ComparedRun, folder: Path, summary: TaskSummary) -> tuple[Evaluation, list[Completion]]:
    completions, scores = _read_scores(run, folder, summary, None)
    seed = run.config.seed if run.evaldir is None or run.evaldir.base is None else run.evaldir.base.seed
    return Evaluation(folder.parents[1], Entry("base"), seed, summary, counted(scores), scores.sizes()), completions


def _read_model(
    run: ComparedRun, model: str, entry: Entry, seed: int, of_base: Mapping[str, tuple[Evaluation, list[Completion]]]
) -> list[Evaluation]:
    """One model on every task."""
    folder, evaluations = run.path / "eval" / model, []
    for summary in _summaries(folder, run):
        base, base_completions = of_base.get(summary.dataset, (None, None))
        same_n = base is not None and base.summary.n == summary.n
        _, scores = _read_scores(run, folder, summary, base_completions if same_n else None)
        evaluations.append(Evaluation(run.path, entry, seed, summary, counted(scores), scores.sizes()))
    return evaluations


def _read_scores(
    run: ComparedRun, folder: Path, summary: TaskSummary, base: Sequence[Completion] | None
) -> tuple[list[Completion], Scores]:
    """The completions of an evaluation and the metrics of every prompt that fit its summary.

    Those of style are there only where the file holds the solutions.
    """
    path, remedy = folder / f"{summary.dataset}.parquet", f"delete it and {run.evaluate_again}"
    completions, forms = read_samples(path, without=["token_ids"], remedy=remedy), read_forms(path, remedy=remedy)
    ks = sorted(summary.pass_at_k)
    scores = per_prompt(completions, solution=forms.solution or str, answer=forms.answer, base=base, ks=ks)
    mean = float(np.nanmean(scores.column("mean_at_n")))
    stated = math.nan if summary.mean_at_n is None else summary.mean_at_n
    if not abs(mean - stated) <= 1e-6 or len(scores.ids) != summary.prompts:
        raise RunDirError(
            f"{folder / 'summary.json'} does not fit the samples of {summary.dataset!r}: "
            f"mean@n {stated:.4f} of {summary.prompts} prompts there, {mean:.4f} of {len(scores.ids)} "
            "in its Parquet file; run `dphrl eval` again"
        )
    not_known = {"tokens"} if forms.solution is not None else {"tokens", "style_entropy", "distinct_correct"}
    known = scores.only([name for name in scores.names if name not in not_known])
    pass_at_n = Scores(scores.ids, ("pass@n",), scores.column(f"pass@{ks[-1]}")[:, None])
    return completions, join_scores([known, pass_at_n])
