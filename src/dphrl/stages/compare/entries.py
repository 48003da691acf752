"""Run and evaluation directories as a comparison reads them: label, setting, rows, and the scores of every prompt."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dphrl.config.load import build_config, flat, load_config, to_dict
from dphrl.config.root import Config
from dphrl.errors import RunDirError
from dphrl.metrics import Scores, TaskSummary, joined, per_prompt
from dphrl.report.labels import label
from dphrl.runs.eval_dir import EvalDir, is_evaldir, read_evaldir, read_summaries
from dphrl.runs.run_dir import FREE_KEYS
from dphrl.runs.samples import Forms, read_forms, read_samples
from dphrl.types import Completion

_ONLINE = ("train.", "sampling.", "lora.")
_ANCHORED = (
    *_ONLINE,
    "anchor.",
    *(f"objective.{x}" for x in ("eta", "eta_schedule", "eta_end", "drift_target", "eta_bounds")),
)
_ANCHORED += ("objective.anchors_per_step", "objective.anchor_ratio")
USED: dict[str, tuple[str, ...]] = {
    "grpo": _ONLINE,
    "dapo": _ONLINE,
    "rkl": (*_ONLINE, "objective.beta", "objective.kl_estimator"),
    "replay": _ANCHORED,
    "dph": (*_ANCHORED, *(f"objective.{x}" for x in ("alpha", "log_u_cap", "form", "anchor_estimator"))),
}
"""Settings (or sections) that make a difference to a method."""

SPEED_ONLY = frozenset(
    {f"train.{x}" for x in ("micro_batch", "save_every", "log_every", "gradient_checkpointing")}
    | {key for key in FREE_KEYS if key.startswith(("sampling.", "anchor."))}
)

SHOWN: dict[str, str] = {
    "train.advantage": "{}",
    "objective.alpha": "alpha={:g}",
    "objective.eta": "eta={:g}",
    "objective.beta": "beta={:g}",
    "objective.kl_estimator": "{}",
}
"""Settings that a sweep names first, in this order; all others follow as name=value where they differ."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run directory and what it ran, or an evaluation directory."""

    path: Path
    config: Config
    """Of an evaluation directory: how it was measured; nothing else in it has a meaning."""
    evaldir: EvalDir | None = None
    """Its models, where it is an evaluation directory."""

    @property
    def label(self) -> str:
        """grpo, dapo, rkl, replay, dph_f, ...; the name of an evaluation directory."""
        if self.evaldir is not None:
            return self.path.resolve().name
        return label(self.config.method, self.config.objective.divergence)

    @property
    def base_only(self) -> bool:
        """Whether only the initial policy was measured, as in a folder that other runs name as their `base_run`."""
        folder = self.path / "eval"
        if self.evaldir is not None:
            return False
        return (folder / "base" / "summary.json").is_file() and not (folder / "final" / "summary.json").is_file()


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One model of one run, evaluated on one dataset."""

    run: Path
    method: str
    setting: str
    seed: int
    summary: TaskSummary
    """As `eval/MODEL/summary.json` holds it."""
    scores: Scores
    """Every metric of every prompt; see `counted`."""
    sizes: Mapping[str, float] = field(default_factory=dict)
    """Metric -> prompts that its mean rests on."""

    @property
    def dataset(self) -> str:
        """Name of the dataset."""
        return self.summary.dataset


Bases = dict[Path, dict[str, tuple[Evaluation, list[Completion]]]]
"""Folder of a base's evaluation -> dataset -> what it measured, and its completions."""


def open_run(path: Path) -> Run:
    """Read what a run directory ran, or an evaluation directory measured.

    Raises:
        RunDirError: neither of the two.
        ConfigError: its config cannot be read.
    """
    if is_evaldir(path):
        evaldir = read_evaldir(path)
        return Run(path, build_config({**(evaldir.settings or {}), "out": str(path)}), evaldir)
    if not (path / "config.yaml").is_file():
        raise RunDirError(
            f"{path} is no run directory (it has no config.yaml) and no evaluation directory (no evaluation.json); "
            f"make one with `dphrl run --config FILE --out {path}`, or with `dphrl eval --model NAME --tasks NAME`"
        )
    return Run(path, load_config(path / "config.yaml"))


def settings_of(runs: Sequence[Run]) -> list[str]:
    """What tells each run from the others of its label, seeds aside: '' when nothing does, else e.g. 'beta=0.1 k2'."""
    values = [flat(to_dict(run.config)) for run in runs]
    by_label: dict[str, list[int]] = {}
    for index, run in enumerate(runs):
        if not run.base_only and run.evaldir is None:
            by_label.setdefault(run.label, []).append(index)
    settings = [""] * len(runs)
    for mine in by_label.values():
        used = USED[runs[mine[0]].config.method]
        keys = {key for i in mine for key in values[i] if key.startswith(used) and key not in SPEED_ONLY}
        varied = {key for key in keys if len({repr(values[i].get(key)) for i in mine}) > 1}
        if varied:
            for i in mine:
                alpha = runs[i].label == "dph_alpha" and "objective.alpha" in varied
                settings[i] = _setting(values[i], keys, varied, alpha=alpha)
    return settings


def main_setting(run: Run) -> str:
    """What its method's published form leaves open, e.g. 'beta=0.1 k2', 'eta=0.2'; '' for grpo and dapo, and where
    nothing was trained."""
    if run.evaldir is not None:
        return ""
    values = flat(to_dict(run.config))
    keys = {key for key in values if key.startswith(USED[run.config.method])}
    return _setting(values, keys, set(), alpha=run.label == "dph_alpha")


def base_folder(run: Run) -> Path | None:
    """Where the evaluation of the initial policy lies: in the run itself or in its `base_run`; None when nowhere."""
    if run.evaldir is not None:
        return None if run.evaldir.base is None else run.evaldir.folder(run.evaldir.base.name)
    places = [run.path]
    if run.config.base_run is not None:
        named = Path(run.config.base_run)
        places += [named, run.path.parent / named, run.path.parent / named.name]  # as it was, or moved together
    return next((p / "eval" / "base" for p in places if (p / "eval" / "base" / "summary.json").is_file()), None)


def _summaries(folder: Path, run: Run) -> list[TaskSummary]:
    """The rows of `eval/MODEL/summary.json`.

    Raises:
        RunDirError: missing, damaged or empty; names the command that makes it.
    """
    path, remedy = folder / "summary.json", _remedy(run)
    if not path.is_file():
        raise RunDirError(f"{run.path} holds no evaluation yet (no {path.relative_to(folder.parents[1])}); {remedy}")
    rows = list(read_summaries(path).values())
    if not rows:
        raise RunDirError(f"{path} has no rows; name at least one dataset in eval_tasks and {remedy}")
    return rows


def read_evaluations(run: Run, setting: str, bases: Bases) -> tuple[list[Evaluation], list[Evaluation]]:
    """The run's final model and its base on every dataset; of an evaluation directory all models.

    Args:
        bases: what was read of bases so far; runs often share theirs. Filled here.
    Returns:
        Of the models: none where only the base was measured. Of the base: none where it was not measured.
    Raises:
        RunDirError: no evaluation at all, or one that is damaged or does not fit its samples.
        DataError: samples that no metric can be made of.
    """
    base = base_folder(run)
    if base is not None and base not in bases:
        bases[base] = {row.dataset: _read_base(run, base, row) for row in _summaries(base, run)}
    befores = bases[base] if base is not None else {}
    measured = [before for before, _ in befores.values()]
    if run.base_only:
        return [], measured
    if run.evaldir is None:
        return _read_model(run, "final", (run.label, setting, run.config.seed), befores), measured
    others = [model for model in run.evaldir.models if not model.base]
    found = [_read_model(run, m.name, (m.label, setting, m.seed), befores) for m in others]
    return [evaluation for mine in found for evaluation in mine], measured


def _read_model(
    run: Run, name: str, key: tuple[str, str, int], befores: Mapping[str, tuple[Evaluation, list[Completion]]]
) -> list[Evaluation]:
    """One model on every dataset; `key` is its method, setting and seed."""
    folder, found = run.path / "eval" / name, []
    for row in _summaries(folder, run):
        before, base_draws = befores.get(row.dataset, (None, None))
        samples = _read_draws(folder / f"{row.dataset}.parquet", run)
        same_n = before is not None and before.summary.n == row.n
        scores = _scores(row, samples, base_draws if same_n else None, folder)
        found.append(Evaluation(run.path, *key, row, counted(scores), scores.sizes()))
    return found


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


def _setting(values: Mapping[str, Any], keys: Iterable[str], varied: set[str], *, alpha: bool) -> str:
    hidden = {"objective.alpha"} if not alpha else set()
    if values["train.advantage"] == "group":
        hidden.add("train.advantage")
    used = set(keys) - hidden
    parts = [form.format(values[key]) for key, form in SHOWN.items() if key in used]
    rest = sorted(varied - SHOWN.keys())
    return " ".join([*parts, *(f"{key.rpartition('.')[2]}={values.get(key)}" for key in rest)])


def _remedy(run: Run) -> str:
    if run.evaldir is None:
        return f"run `dphrl eval --config {run.path / 'config.yaml'}`"
    return f"run the `dphrl eval --model ... --out {run.path}` that made it again"


def _read_base(run: Run, folder: Path, row: TaskSummary) -> tuple[Evaluation, list[Completion]]:
    samples = _read_draws(folder / f"{row.dataset}.parquet", run)
    scores = _scores(row, samples, None, folder)
    seed = run.config.seed if run.evaldir is None or run.evaldir.base is None else run.evaldir.base.seed
    where = folder.parents[1]
    return Evaluation(where, "base", "", seed, row, counted(scores), scores.sizes()), samples.completions


@dataclass(frozen=True, slots=True)
class _Samples:
    """What one Parquet file holds."""

    completions: list[Completion]
    forms: Forms


def _read_draws(path: Path, run: Run) -> _Samples:
    """Every completion of an evaluation, and how texts are compared where the file has columns for it."""
    remedy = f"delete it and {_remedy(run)}"
    return _Samples(read_samples(path, without=["token_ids"], remedy=remedy), read_forms(path, remedy=remedy))


def _scores(row: TaskSummary, samples: _Samples, base: Sequence[Completion] | None, folder: Path) -> Scores:
    """Per-prompt metrics that fit the row; those of style only where the solutions are in the file."""
    ks = sorted(row.pass_at_k)
    solution = samples.forms.solution
    scores = per_prompt(samples.completions, solution=solution or str, answer=samples.forms.answer, base=base, ks=ks)
    mean, said = float(np.nanmean(scores.column("mean_at_n"))), math.nan if row.mean_at_n is None else row.mean_at_n
    if not abs(mean - said) <= 1e-6 or len(scores.ids) != row.prompts:
        raise RunDirError(
            f"{folder / 'summary.json'} does not fit the samples of {row.dataset!r}: "
            f"mean@n {said:.4f} of {row.prompts} prompts there, {mean:.4f} of {len(scores.ids)} "
            "in its Parquet file; run `dphrl eval` again"
        )
    unknown = {"tokens"} if solution is not None else {"tokens", "style_entropy", "distinct_correct"}
    named = scores.only([name for name in scores.names if name not in unknown])
    last = Scores(scores.ids, ("pass@n",), scores.column(f"pass@{ks[-1]}")[:, None])
    return joined([named, last])
