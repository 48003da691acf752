"""`dphrl eval --lm-eval TASKS`: lm-evaluation-harness on the same models, its numbers beside ours.

They are numbers of another kind: one value a metric with a standard error, no samples of ours and no pass@k.
docs/evaluation.md says what is written.
"""

from __future__ import annotations

import importlib.util
import inspect
import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from dphrl.config.root import Config
from dphrl.errors import ConfigError, DataError, RunDirError, nearest
from dphrl.files import damage_refused, read_json, write_json
from dphrl.progress import Progress, silent
from dphrl.runs.eval_dir import EvalDir
from dphrl.runs.run_dir import RunDir, base_of
from dphrl.stages.compare.entries import Run, base_folder

FILE = "lm-eval.json"
"""In the folder of a model, OUT/eval/NAME."""
SCHEMA = 1
OURS = frozenset({"model", "model_args", "tasks", "task_manager", "evaluation_tracker", "log_samples", "device"})
"""Arguments of `lm_eval.simple_evaluate` that the settings of the evaluation say."""
OF_TASKS = ("include_path", "include_defaults")
"""Arguments of its `TaskManager`; without its own tasks (include_defaults=false) it starts sooner."""


@dataclass(frozen=True, slots=True)
class Target:
    """One model to be measured."""

    folder: Path
    """Of its evaluation, OUT/eval/NAME."""
    path: str
    """Folder or name that it is loaded from; as `model.path`."""


def parse_arguments(words: Sequence[str]) -> dict[str, Any]:
    """['limit=100', 'apply_chat_template=true'] -> {"limit": 100, "apply_chat_template": True}; values are YAML.

    Raises:
        ConfigError: no '=', a value that is no YAML, or a name that comes twice.
    """
    found: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name or name in found:
            raise ConfigError(f"--lm-eval-arg {word!r} must be NAME=VALUE, each name once, e.g. num_fewshot=5")
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"--lm-eval-arg {word!r}: the value is no YAML ({error})") from None
    return found


def targets_of_run(config: Config, models: Sequence[str]) -> list[Target]:
    """The base, where it is measured at all, and the trained model of a run.

    Args:
        models: base and final, or one of them.
    """
    run = RunDir(Path(config.out))
    base = base_of(config, run)
    found = [Target(base.eval("base"), config.model.path)] if "base" in models and config.eval.base else []
    return [*found, *([Target(run.eval("final"), str(run.final))] if "final" in models else [])]


def targets_of_evaldir(where: EvalDir, names: Sequence[str]) -> list[Target]:
    """The models of these names."""
    return [Target(where.folder(m.name), m.path) for m in where.models if m.name in names]


def check_harness(tasks: str, arguments: Mapping[str, Any]) -> list[str]:
    """What `measure` would refuse, before anything is drawn.

    Args:
        tasks: names with commas.
    Returns:
        The names.
    Raises:
        ConfigError: lm_eval is not installed, no or an unknown task, an argument that it does not have or that the
            evaluation's settings say.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise ConfigError("--lm-eval needs lm-evaluation-harness; install it with `pip install 'dphrl[lm-eval]'`")
    names = list(dict.fromkeys(filter(None, (word.strip() for word in tasks.split(",")))))
    if not names:
        raise ConfigError("--lm-eval is empty; name at least one of its tasks, e.g. --lm-eval gsm8k,hellaswag")
    from lm_eval import simple_evaluate

    allowed = {*OF_TASKS, *inspect.signature(simple_evaluate).parameters} - OURS
    for name in arguments:
        if name not in allowed:
            why = "is what the evaluation's settings say" if name in OURS else "is none of lm_eval"
            raise ConfigError(
                f"--lm-eval-arg {name} {why}{nearest(name, allowed)}; there are: {', '.join(sorted(allowed))}"
            )
    known = _tasks(**_of_tasks(arguments)).all_tasks
    for name in names:
        if name not in known:
            raise ConfigError(
                f"--lm-eval {name!r} is no task of lm_eval{nearest(name, known)}; `lm_eval ls tasks` lists them, and "
                "--lm-eval-arg include_path=FOLDER adds your own"
            )
    return names


def measure(
    config: Config,
    targets: Sequence[Target],
    tasks: Sequence[str],
    arguments: Mapping[str, Any],
    progress: Progress = silent,
) -> None:
    """Run the tasks that are not there yet on each model, and write OUT/eval/NAME/lm-eval.json.

    Args:
        config: says how models are loaded, and how many completions are drawn at once.
        tasks: names, as `check_harness` gives them.
        arguments: further ones of `lm_eval.simple_evaluate`, and include_path.
    Raises:
        RunDirError: results of other settings or another version of lm_eval are there (names them).
        DataError: lm_eval cannot read a task's data or the model.
    """
    import lm_eval

    settings = {"version": str(lm_eval.__version__), "dtype": config.model.dtype, **arguments}
    there = {target: _there(target, settings) for target in targets}
    for target, rows in there.items():
        missing = [task for task in tasks if task not in {row["asked"] for row in rows}]
        label = f"lm-eval {target.folder.name}"
        for done, task in enumerate(missing):  # each is kept as soon as it is there
            progress(label, done, len(missing), note=task)
            rows += _evaluate(config, target, task, arguments)
            write_json(target.folder / FILE, {"schema": SCHEMA, "settings": settings, "rows": rows})
        if missing:
            progress(label, len(missing), len(missing))


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of OUT/eval/NAME/lm-eval.json; none where it was not measured so.

    Raises:
        RunDirError: damaged, or of a later version of dphrl.
    """
    return list(_read(folder)["rows"])


def harness_rows(runs: Sequence[Run], settings: Sequence[str]) -> list[dict[str, Any]]:
    """What a comparison shows: every row with method, setting and seed; a base that runs share once.

    Args:
        settings: what tells runs of one method apart, by `settings_of`.
    """
    folders: dict[Path, dict[str, Any]] = {}
    for run, setting in zip(runs, settings, strict=True):
        base = base_folder(run)
        if run.evaldir is not None:
            for model in run.evaldir.models:
                key = {"method": model.label, "setting": "" if model.base else setting, "seed": model.seed}
                folders.setdefault(run.evaldir.folder(model.name), key)
            continue
        if base is not None:
            folders.setdefault(base, {"method": "base", "setting": "", "seed": run.config.seed})
        if not run.base_only:
            key = {"method": run.label, "setting": setting, "seed": run.config.seed}
            folders.setdefault(run.path / "eval" / "final", key)
    return [{**key, **row} for folder, key in folders.items() for row in read_rows(folder)]


def _evaluate(config: Config, target: Target, task: str, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of one task or group; what lm_eval prints goes to standard error."""
    import torch
    from lm_eval import simple_evaluate

    from dphrl.models.policy import model_path

    given = {name: value for name, value in arguments.items() if name not in OF_TASKS}
    device = config.model.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model = config.model
    model_args: dict[str, Any] = {"dtype": model.dtype, "trust_remote_code": model.trust_remote_code}
    model_args |= {"revision": model.revision} if model.revision and target.path == model.path else {}
    model_args |= {"chat_template_args": dict(model.chat_template_args)} if model.chat_template_args else {}
    try:
        with redirect_stdout(sys.stderr):
            found = simple_evaluate(
                model="hf",
                model_args={"pretrained": model_path(replace(model, path=target.path)), **model_args},
                tasks=[task],
                task_manager=_tasks(**_of_tasks(arguments)),
                log_samples=False,
                device=device,
                **{"batch_size": config.sampling.batch_size, **given},
            )
    except (OSError, ValueError) as error:
        raise DataError(f"lm_eval cannot measure {task!r} on {target.path}: {error}") from error
    return [{"asked": task, **row} for row in _rows(found or {})]


def _rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a (task, metric, filter) of what `simple_evaluate` returns: {"metric,filter": value, ...} by task."""
    rows = []
    for task, values in found.get("results", {}).items():
        better = found.get("higher_is_better", {}).get(task) or {}
        for name, value in values.items():
            metric, comma, way = name.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, int | float) or math.isnan(value):
                continue
            error = values.get(f"{metric}_stderr,{way}")
            known = isinstance(error, int | float) and not math.isnan(error)
            rows.append(
                {
                    "task": task,
                    "metric": metric,
                    "filter": way,
                    "value": float(value),
                    "stderr": float(error) if known else None,
                    "n": values.get("sample_len"),
                    "shots": found.get("n-shot", {}).get(task),
                    "higher_is_better": better.get(metric),
                    "version": found.get("versions", {}).get(task),
                }
            )
    return rows


def _of_tasks(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: arguments[name] for name in OF_TASKS if name in arguments}


@cache
def _tasks(include_path: str | None = None, include_defaults: bool = True) -> Any:
    """lm_eval's own tasks and those of a folder."""
    from lm_eval.tasks import TaskManager

    if include_path is not None and not Path(include_path).is_dir():
        raise ConfigError(
            f"--lm-eval-arg include_path={include_path} is no folder; name one with YAML tasks of lm_eval"
        )
    return TaskManager(include_path=include_path, include_defaults=include_defaults)


def _there(target: Target, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of a model so far.

    Raises:
        RunDirError: they were made with other settings.
    """
    found = _read(target.folder)
    old = found["settings"]
    changed = [
        f"  {key}: there {old.get(key)!r}, now {settings.get(key)!r}"
        for key in sorted({*old, *settings})
        if found["rows"] and old.get(key) != settings.get(key)
    ]
    if changed:
        path = target.folder / FILE
        raise RunDirError(
            f"{path} was made otherwise:\n" + "\n".join(changed) + "\ngive the old settings, or delete the file"
        )
    return list(found["rows"])


def _read(folder: Path) -> dict[str, Any]:
    path = folder / FILE
    if not path.is_file():
        return {"schema": SCHEMA, "settings": {}, "rows": []}
    with damage_refused(path, "delete it and evaluate again"):
        found: dict[str, Any] = read_json(path)
        schema, _ = found["schema"], [(row["asked"], row["task"], row["value"]) for row in found["rows"]]
        dict(found["settings"])
    if schema != SCHEMA:
        raise RunDirError(f"{path} has schema {schema!r}, and this version of dphrl reads {SCHEMA}; update dphrl")
    return found
