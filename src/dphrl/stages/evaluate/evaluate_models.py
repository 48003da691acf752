"""Evaluation of any models, without a run: an evaluation directory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dphrl.config.load import to_dict
from dphrl.config.root import Config
from dphrl.errors import ConfigError, RunDirError
from dphrl.models.policy import load_policy
from dphrl.progress import Progress, silent
from dphrl.runs.eval_dir import EvalDir, Model, is_evaldir, read_evaldir, write_evaldir
from dphrl.runs.run_dir import OF_EVAL, Sections, changed_settings, installed_versions
from dphrl.stages.evaluate.measure_model import MeasuredBase, Subject, load_eval_tasks, measure_model
from dphrl.stages.evaluate.run_harness import HarnessRequest, HarnessTarget, run_harness

MADE_BY = "dphrl eval"


def evaluate_models(
    config: Config,
    models: Sequence[Model],
    *,
    base_dir: Path = Path(),
    harness: HarnessRequest | None = None,
    progress: Progress = silent,
) -> EvalDir:
    """Make OUT/eval/NAME for each model, the base first; what was drawn is kept, models and tasks are added.

    Args:
        config: `out` is the evaluation directory; eval_tasks, sampling, seed and eval say what is measured and how, and
            `model` how the models are loaded. Its model.path is replaced.
        models: at most one base; none is needed where the directory has one.
        base_dir: folder that relative paths of the config refer to.
        harness: tasks of lm-evaluation-harness to run on them too.
    Returns:
        The directory with all its models.
    Raises:
        ConfigError: no out, no task, or several models for one server. RunDirError: the directory was made with other
        settings, or holds another model of that name (names them).
    """
    if not config.out:
        raise ConfigError("out is empty; name the evaluation directory, e.g. --out evals/first")
    if not config.eval_tasks:
        raise ConfigError("no task is named; give --tasks, e.g. --tasks gsm8k,math500 (see `dphrl tasks`)")
    evaldir = _joined(Path(config.out), config, models)
    subjects = _subjects(config, evaldir, {model.name for model in models}, base_dir)
    _check_server(config, [subject.folder.name for subject in subjects if subject.tasks_to_draw()])
    write_evaldir(evaldir.root, evaldir.models, evaldir.tasks, evaldir.made)  # only now: everything could be loaded
    for subject in subjects:
        measure_model(subject, progress)
    if harness is not None:
        targets = [HarnessTarget(subject.folder, subject.config.model.path) for subject in subjects]
        run_harness(harness, config, targets, progress)
    return evaldir


def _subjects(config: Config, evaldir: EvalDir, names: set[str], base_dir: Path) -> list[Subject]:
    """The models of these names, the base first, for the others are measured against it."""
    configs = {m.name: replace(config, model=replace(config.model, path=m.path)) for m in evaldir.models}
    wanted = [model for model in evaldir.models if model.name in names or model.base]
    policies = {model.name: load_policy(configs[model.name], trained=False) for model in wanted}
    base = None
    if evaldir.base is not None:
        name, path = evaldir.base.name, evaldir.base.path
        base = MeasuredBase(policies[name], evaldir.folder(name), f"measure it first: --model {name}={path}")
    return [
        Subject(
            configs[model.name],
            evaldir.folder(model.name),
            policies[model.name],
            load_eval_tasks(configs[model.name], policies[model.name], base_dir),
            None if model.base else base,
        )
        for model in sorted(wanted, key=lambda model: not model.base)
        if model.name in names
    ]


def _joined(root: Path, config: Config, models: Sequence[Model]) -> EvalDir:
    """The directory with the models and settings of this call added; nothing is written.

    Raises:
        RunDirError: it holds something else; or a setting, the base, or the model of a name differs.
    """
    if not is_evaldir(root):
        if root.exists() and any(not p.name.endswith(".tmp") for p in root.iterdir()):  # a kill leaves those
            raise RunDirError(f"{root} is not empty and holds no evaluation.json; give another --out")
        return _evaldir(root, models, config)
    known = read_evaldir(root)
    old = known.measured_with
    if old is None:
        raise RunDirError(f"{root} was not made by `{MADE_BY}` but by {known.made_by!r}; give another --out")
    changed = [*_changed_settings(old, config), *_changed_models(known, models)]
    if changed:
        raise RunDirError(
            f"{root} holds evaluations made otherwise:\n" + "\n".join(changed) + "\ngive another --out, or the old ones"
        )
    names = {model.name for model in known.models}
    added = [model for model in models if model.name not in names]
    tasks = {**old.eval_tasks, **config.eval_tasks}
    return _evaldir(root, [*known.models, *added], replace(config, eval_tasks=tasks))


def _evaldir(root: Path, models: Sequence[Model], config: Config) -> EvalDir:
    made = {"by": MADE_BY, "settings": _settings(config), "versions": installed_versions()}
    return EvalDir(root, tuple(models), tuple(config.eval_tasks), made)


def _settings(config: Config) -> Sections:
    """What samples depend on, but for the model's path, which each model has of its own."""
    values = to_dict(config)
    model = {key: value for key, value in values["model"].items() if key != "path"}
    return {section: values[section] for section in OF_EVAL} | {"model": model}


def _changed_settings(old: Config, new: Config) -> list[str]:
    """Lines for what differs, of the tasks for those that both name."""
    both = sorted(set(old.eval_tasks) & set(new.eval_tasks))
    before, now = (
        _settings(replace(config, eval_tasks={name: config.eval_tasks[name] for name in both})) for config in (old, new)
    )
    return changed_settings(before, now, OF_EVAL)


def _changed_models(evaldir: EvalDir, models: Sequence[Model]) -> list[str]:
    """Lines for models of another path than in the directory, and for another base."""
    paths = {model.name: model.path for model in evaldir.models}
    changed = [
        f"  model {model.name}: there {paths[model.name]}, now {model.path}"
        for model in models
        if paths.get(model.name, model.path) != model.path
    ]
    base = next((model.name for model in models if model.base), None)
    if base is not None and evaldir.base is not None and base != evaldir.base.name:
        changed.append(f"  --base: there {evaldir.base.name}, now {base}")
    return changed


def _check_server(config: Config, names: Sequence[str]) -> None:
    if config.sampling.backend == "openai" and len(names) > 1:
        raise ConfigError(
            f"sampling.backend=openai draws from one server, and {len(names)} models are to be drawn from "
            f"({', '.join(names)}); give one --model a call, each with its sampling.base_url or sampling.served_model, "
            "into the same --out"
        )
