"""Evaluation: greedy and n samples of every prompt, verdicts, Pass@k with intervals, keep and explore.

Two forms: the base and the trained model of a run (`evaluate`), or any models, without a run (`evaluate_models`).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dphrl.config.load import build_config, to_dict
from dphrl.config.root import Config
from dphrl.errors import ConfigError, RunDirError
from dphrl.metrics.summary import SeenInTraining
from dphrl.models.policy import Policy, load_policy
from dphrl.progress import Progress, silent
from dphrl.runs.drawing import Speed, draw_missing
from dphrl.runs.eval_dir import (
    EvalDir,
    Model,
    base_samples,
    is_evaldir,
    put_summary,
    read_evaldir,
    read_summaries,
    store,
    write_evaldir,
)
from dphrl.runs.lock import disk_errors
from dphrl.runs.model_card import write_model_card
from dphrl.runs.run_dir import OF_EVAL, RunDir, base_of, changed_settings, open_run
from dphrl.runs.samples import SampleFiles, read_samples
from dphrl.sampling.backends import make_sampler
from dphrl.sampling.base import Request, Sampler
from dphrl.sampling.encoded_prompts import encode_prompts, task_for_policy
from dphrl.stages.evaluate.policy_drift import Drawn, check_vocabulary, measure
from dphrl.stages.evaluate.seen_prompts import contamination_check
from dphrl.types import GREEDY_DRAW, Completion, Task

MODELS = ("base", "final")


@dataclass(frozen=True, slots=True)
class Subject:
    """One model to be measured."""

    config: Config
    """With its own model.path."""
    folder: Path
    """EVAL/NAME."""
    policy: Policy
    tasks: Mapping[str, Task]
    base: Policy | None
    """None where it is the base itself, or there is none."""
    reference: Callable[[str], list[Completion] | None]
    """Task -> the base's completions."""
    contaminated: Callable[[Task], SeenInTraining | None] = lambda task: None
    """Task -> which of its prompts training has seen; None where nothing was trained."""

    def to_draw(self) -> list[str]:
        """Tasks without samples or summary."""
        rows = read_summaries(self.folder / "summary.json")
        return [name for name in self.tasks if name not in rows or not (self.folder / f"{name}.parquet").exists()]

    def to_score(self) -> list[str]:
        """Tasks whose drift is asked for and not there."""
        draws, rows = self.config.eval.drift, read_summaries(self.folder / "summary.json")
        known = {name for name, row in rows.items() if row.drift is not None and row.drift.draws == draws}
        return [name for name in self.tasks if draws and name not in known]


def evaluate(config: Config, *, base_dir: Path, models: Sequence[str] = MODELS, progress: Progress = silent) -> RunDir:
    """Make RUN/eval/MODEL for the initial policy (`base`) and the trained one (`final`); finished datasets are kept.

    Raises:
        ConfigError: no eval_tasks. RunDirError: no trained model, or a base_run without the base's samples.
    """
    run = open_run(config)
    if not config.eval_tasks:
        raise ConfigError("eval_tasks is empty; name at least one task to measure")
    initial = load_policy(config)  # no weights are read
    tasks = _tasks(config, initial, base_dir)
    base = base_of(config, run)
    if "final" in models and not (run.final / "config.json").exists():
        raise RunDirError(f"{run.root} holds no trained model; run `dphrl train`, or measure the base: --model base")
    if tuple(models) == ("base",) and not (config.eval.base and base == run):
        raise ConfigError("the base is not measured here: eval.base is false, or base_run names the run that holds it")
    check = contamination_check(config, initial, base_dir=base_dir, progress=progress)
    if "base" in models and config.eval.base and base == run:
        _evaluate_model(Subject(config, run.eval("base"), initial, tasks, None, lambda task: None, check), progress)
    if "final" in models:
        final = load_policy(config, str(run.final))
        known = initial if config.eval.base else None

        def reference(task: str) -> list[Completion] | None:
            return _base_samples(base, task) if known is not None else None

        _evaluate_model(Subject(config, run.eval("final"), final, tasks, known, reference, check), progress)
        write_model_card(run, config)
    return run


def evaluate_models(config: Config, models: Sequence[Model], *, base_dir: Path, progress: Progress = silent) -> EvalDir:
    """Make OUT/eval/NAME for each model, the base first; what was drawn is kept, models and tasks are added.

    Args:
        config: `out` is the evaluation directory; eval_tasks, sampling, seed and eval say what is measured and how, and
            `model` how the models are loaded. Its model.path is replaced.
        models: at most one base; none is needed where the directory has one.
        base_dir: folder of the config file.
    Returns:
        The directory with all its models.
    Raises:
        ConfigError: no out, no task, or several models for one server. RunDirError: the directory was made with other
        settings, or holds another model of that name (names them).
    """
    from dphrl.models.policy import versions

    if not config.out:
        raise ConfigError("out is empty; name the evaluation directory, e.g. --out evals/first")
    if not config.eval_tasks:
        raise ConfigError("no task is named; give --tasks, e.g. --tasks gsm8k,math500 (see `dphrl tasks`)")
    root = Path(config.out)
    if not is_evaldir(root) and root.exists() and any(not p.name.endswith(".tmp") for p in root.iterdir()):
        raise RunDirError(f"{root} is not empty and holds no evaluation.json; give another --out")
    joined, settings = _joined(root, config, models)
    made = {"by": "dphrl eval", "settings": settings, "versions": versions()}
    where = EvalDir(root, tuple(joined), tuple(settings["eval_tasks"]), made)
    chosen = sorted(
        (model for model in where.models if model.name in {m.name for m in models}), key=lambda m: not m.base
    )
    policies = {model.name: load_policy(_with_model(config, model)) for model in where.models if model in chosen}
    base = None
    if where.base is not None:
        base = policies.get(where.base.name) or load_policy(_with_model(config, where.base))
    subjects = [_subject(config, where, model, policies[model.name], base, base_dir) for model in chosen]
    _one_a_server(config, [s for s in subjects if s.to_draw()])
    write_evaldir(root, where.models, where.tasks, where.made)  # only now: all models and tasks could be loaded
    for subject in subjects:
        _evaluate_model(subject, progress)
    return where


def _subject(
    config: Config, where: EvalDir, model: Model, policy: Policy, base: Policy | None, base_dir: Path
) -> Subject:
    def reference(task: str) -> list[Completion] | None:
        return None if model.base else base_samples(where, task)

    mine = _with_model(config, model)
    tasks = _tasks(mine, policy, base_dir)
    return Subject(mine, where.folder(model.name), policy, tasks, None if model.base else base, reference)


def _joined(root: Path, config: Config, models: Sequence[Model]) -> tuple[list[Model], dict[str, Any]]:
    """Models and settings of the directory with those of this call.

    Raises:
        RunDirError: a setting, the base, or the model of a name differs from what the directory holds.
    """
    settings = _settings(config)
    if not is_evaldir(root):
        return list(models), settings
    there = read_evaldir(root)
    old = there.made.get("settings")
    if old is None:
        raise RunDirError(f"{root} was not made by `dphrl eval` but by {there.made.get('by')!r}; give another --out")
    old = _settings(build_config(old))  # a setting that is newer than the directory had its default
    shared = set(old["eval_tasks"]) & set(settings["eval_tasks"])
    before, now = ({**s, "eval_tasks": {n: s["eval_tasks"][n] for n in sorted(shared)}} for s in (old, settings))
    changed = changed_settings(before, now, OF_EVAL)
    known = {model.name: model for model in there.models}
    changed += [
        f"  model {m.name}: there {known[m.name].path}, now {m.path}"
        for m in models
        if m.name in known and known[m.name].path != m.path
    ]
    given = next((m.name for m in models if m.base), None)
    if given is not None and there.base is not None and given != there.base.name:
        changed.append(f"  --base: there {there.base.name}, now {given}")
    if changed:
        raise RunDirError(
            f"{root} holds evaluations made otherwise:\n" + "\n".join(changed) + "\ngive another --out, or the old ones"
        )
    tasks = {**old["eval_tasks"], **settings["eval_tasks"]}
    return [*known.values(), *(m for m in models if m.name not in known)], {**settings, "eval_tasks": tasks}


def _settings(config: Config) -> dict[str, Any]:
    """What samples depend on, but for the model's path, which each model has of its own."""
    values = to_dict(config)
    settings = {section: values[section] for section in OF_EVAL}
    settings["model"] = {key: value for key, value in settings["model"].items() if key != "path"}
    return settings


def _one_a_server(config: Config, left: Sequence[Subject]) -> None:
    if config.sampling.backend == "openai" and len(left) > 1:
        names = ", ".join(subject.folder.name for subject in left)
        raise ConfigError(
            f"sampling.backend=openai draws from one server, and {len(left)} models are to be drawn from ({names}); "
            "give one --model a call, each with its sampling.base_url or sampling.served_model, into the same --out"
        )


def _with_model(config: Config, model: Model) -> Config:
    return replace(config, model=replace(config.model, path=model.path))


def _tasks(config: Config, policy: Policy, base_dir: Path) -> dict[str, Task]:
    return {name: task_for_policy(name, cfg, policy, base_dir=base_dir) for name, cfg in config.eval_tasks.items()}


def _evaluate_model(subject: Subject, progress: Progress) -> None:
    """Draw and measure what is missing, then score what drift needs."""
    config, missing, unscored = subject.config, subject.to_draw(), subject.to_score()
    if unscored and subject.base is not None:
        check_vocabulary(subject.policy, subject.base)  # before hours of drawing, not after
    references = {name: subject.reference(name) for name in missing}
    if missing:
        with closing(make_sampler(config, subject.policy)) as sampler:  # one for all: an engine takes long to start
            for name in missing:
                with disk_errors(subject.folder.parents[1]):
                    _draw_and_store(subject, subject.tasks[name], references[name], sampler, progress)
    if unscored:
        _add_drift(subject, unscored, progress)
    subject.policy.release()  # the next model needs the memory


def _draw_and_store(
    subject: Subject, task: Task, base: Sequence[Completion] | None, sampler: Sampler, progress: Progress
) -> None:
    """The greedy completion and n draws of every prompt, joined into one Parquet and measured when they are all there.

    Prompts that the model's context cannot hold are counted and named, not measured."""
    config = subject.config
    prompts = encode_prompts(task, subject.policy, config, progress)
    draws = (GREEDY_DRAW, *range(config.eval.n))
    requests = [Request(i, draw, ids) for i, ids in prompts.encoded.items() for draw in draws]
    shards = SampleFiles(subject.folder / f".{task.name}", "part")
    whole = subject.folder / f"{task.name}.parquet"
    if whole.exists():  # its summary is not there: what was drawn is a shard again, so that nothing is drawn twice
        shards.folder.mkdir(parents=True, exist_ok=True)
        whole.rename(shards.next())
    label = f"eval {subject.folder.name} {task.name}"
    completions, speed = draw_missing(requests, sampler, task, shards, progress, label)
    store(
        subject.folder,
        task.name,
        completions,
        base=base,
        solution=task.solution,
        answer=task.answer,
        resamples=config.eval.resamples,
        seed=config.seed,
        facts={**_speed(speed), "too_long": list(prompts.dropped), "contaminated": subject.contaminated(task)},
    )
    shutil.rmtree(shards.folder, ignore_errors=True)


def _add_drift(subject: Subject, names: Sequence[str], progress: Progress) -> None:
    """Put drift into the rows of these tasks."""
    config, folder = subject.config, subject.folder
    tasks = [
        Drawn(
            name,
            encode_prompts(subject.tasks[name], subject.policy, config, silent).encoded,
            read_samples(folder / f"{name}.parquet"),
            None if subject.base is None else subject.reference(name),
        )
        for name in names
    ]
    for name, drift in measure(config, subject.policy, subject.base, tasks, progress).items():
        put_summary(folder / "summary.json", replace(read_summaries(folder / "summary.json")[name], drift=drift))


def _base_samples(base: RunDir, dataset: str) -> list[Completion]:
    path = base.samples("base", dataset)
    if not path.exists():
        raise RunDirError(
            f"{path} is missing, so keep and explore have no base; run `dphrl eval --model base` in {base.root} first"
        )
    return read_samples(path)


def _speed(speed: Speed) -> dict[str, Any]:
    known = speed.tokens > 0
    return {
        "seconds": round(speed.seconds, 2),
        "tokens_per_second": round(speed.tokens / speed.seconds, 1) if known else None,
    }
