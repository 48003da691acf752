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
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from dphrl.config.root import Config
from dphrl.errors import ConfigError, DataError, RunDirError, nearest
from dphrl.models.policy import model_path
from dphrl.progress import Progress, silent
from dphrl.runs.harness_results import (
    FILE,
    Arguments,
    HarnessResults,
    HarnessRow,
    read_harness_results,
    write_harness_results,
)

SAID_BY_SETTINGS = frozenset(
    {"model", "model_args", "tasks", "task_manager", "evaluation_tracker", "log_samples", "device"}
)
"""Arguments of `lm_eval.simple_evaluate` that the settings of the evaluation say."""
OF_TASK_MANAGER = ("include_path", "include_defaults")
"""Arguments of its `TaskManager`; without its own tasks (include_defaults=false) it starts sooner."""


@dataclass(frozen=True, slots=True)
class HarnessRequest:
    """The tasks to run, with their arguments."""

    tasks: tuple[str, ...]
    arguments: Arguments = field(default_factory=dict)
    """Arguments of `lm_eval.simple_evaluate` and its `TaskManager`."""

    def of_task_manager(self) -> Arguments:
        """The arguments of its `TaskManager`."""
        return {name: value for name, value in self.arguments.items() if name in OF_TASK_MANAGER}

    def of_evaluation(self) -> Arguments:
        """The arguments of `lm_eval.simple_evaluate`."""
        return {name: value for name, value in self.arguments.items() if name not in OF_TASK_MANAGER}


@dataclass(frozen=True, slots=True)
class HarnessTarget:
    """One model to be measured."""

    folder: Path
    """Name of its evaluation, OUT/eval/NAME."""
    path: str
    """Folder or name that it is loaded from; as `model.path`."""


def harness_request(tasks: str, words: Sequence[str] = ()) -> HarnessRequest:
    """The request of a command line, checked before anything is drawn.

    Args:
        tasks: names with commas.
        words: NAME=VALUE, e.g. limit=100; the values are YAML.
    Raises:
        ConfigError: lm_eval is not installed, no or an unknown task, an argument that it does not have or that the
            evaluation's settings say.
    """
    request = HarnessRequest(
        tuple(dict.fromkeys(filter(None, map(str.strip, tasks.split(","))))), parse_arguments(words)
    )
    if importlib.util.find_spec("lm_eval") is None:
        raise ConfigError("--lm-eval needs lm-evaluation-harness; install it with `pip install 'dphrl[lm-eval]'`")
    if not request.tasks:
        raise ConfigError("--lm-eval is empty; name at least one of its tasks, e.g. --lm-eval gsm8k,hellaswag")
    from lm_eval import simple_evaluate

    allowed = {*OF_TASK_MANAGER, *inspect.signature(simple_evaluate).parameters} - SAID_BY_SETTINGS
    for name in request.arguments:
        if name not in allowed:
            why = "is what the evaluation's settings say" if name in SAID_BY_SETTINGS else "is none of lm_eval"
            raise ConfigError(
                f"--lm-eval-arg {name} {why}{nearest(name, allowed)}; there are: {', '.join(sorted(allowed))}"
            )
    known = _task_manager(**request.of_task_manager()).all_tasks
    for name in request.tasks:
        if name not in known:
            raise ConfigError(
                f"--lm-eval {name!r} is no task of lm_eval{nearest(name, known)}; `lm_eval ls tasks` lists them, and "
                "--lm-eval-arg include_path=FOLDER adds your own"
            )
    return request


def parse_arguments(words: Sequence[str]) -> Arguments:
    """['limit=100', 'apply_chat_template=true'] -> {"limit": 100, "apply_chat_template": True}; values are YAML.

    Raises:
        ConfigError: no '=', a value that is no YAML, or a name that comes twice.
    """
    arguments: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name or name in arguments:
            raise ConfigError(f"--lm-eval-arg {word!r} must be NAME=VALUE, each name once, e.g. num_fewshot=5")
        try:
            arguments[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"--lm-eval-arg {word!r}: the value is no YAML ({error})") from None
    return arguments


def run_harness(
    request: HarnessRequest, config: Config, targets: Sequence[HarnessTarget], progress: Progress = silent
) -> None:
    """Run the tasks that are not there yet on each model, and write OUT/eval/NAME/lm-eval.json.

    Args:
        config: says how models are loaded, and how many completions are drawn at once.
    Raises:
        RunDirError: results of other settings or another version of lm_eval are there (names them).
        DataError: lm_eval cannot read a task's data or the model.
    """
    import lm_eval

    settings = {"version": str(lm_eval.__version__), "dtype": config.stored_dtype, **request.arguments}
    known = {target: _known_rows(target, settings) for target in targets}
    for target, rows in known.items():
        missing = [task for task in request.tasks if task not in {row.asked for row in rows}]
        label = f"lm-eval {target.folder.name}"
        for done, task in enumerate(missing):  # each is kept as soon as it is there
            progress(label, done, len(missing), note=task)
            rows += _evaluate(config, target, task, request)
            write_harness_results(target.folder, HarnessResults(settings, rows))
        if missing:
            progress(label, len(missing), len(missing))


def _evaluate(config: Config, target: HarnessTarget, task: str, request: HarnessRequest) -> tuple[HarnessRow, ...]:
    """The rows of one task or group; what lm_eval prints goes to standard error."""
    import torch
    from lm_eval import simple_evaluate

    model, device = config.model, config.model.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model_args: dict[str, Any] = {
        "pretrained": model_path(replace(model, path=target.path)),
        "dtype": config.stored_dtype,
        "trust_remote_code": model.trust_remote_code,
    }
    if model.revision and target.path == model.path:
        model_args["revision"] = model.revision
    if model.chat_template_args:
        model_args["chat_template_args"] = dict(model.chat_template_args)
    try:
        with redirect_stdout(sys.stderr):
            results = simple_evaluate(
                model="hf",
                model_args=model_args,
                tasks=[task],
                task_manager=_task_manager(**request.of_task_manager()),
                log_samples=False,
                device=device,
                **{"batch_size": config.sampling.batch_size, **request.of_evaluation()},
            )
    except (OSError, ValueError) as error:
        raise DataError(f"lm_eval cannot measure {task!r} on {target.path}: {error}") from error
    return tuple(_rows(task, results or {}))


def _rows(asked: str, results: Mapping[str, Any]) -> list[HarnessRow]:
    """One row a (task, metric, filter) of what `simple_evaluate` returns: {"metric,filter": value, ...} by task."""
    rows = []
    for task, values in results.get("results", {}).items():
        better = results.get("higher_is_better", {}).get(task) or {}
        for name, value in values.items():
            metric, comma, way = name.partition(",")
            if not comma or metric.endswith("_stderr") or not _is_number(value):
                continue
            error = values.get(f"{metric}_stderr,{way}")
            rows.append(
                HarnessRow(
                    asked=asked,
                    task=task,
                    metric=metric,
                    filter=way,
                    value=float(value),
                    stderr=float(error) if _is_number(error) else None,
                    n=values.get("sample_len"),
                    shots=results.get("n-shot", {}).get(task),
                    higher_is_better=better.get(metric),
                    version=results.get("versions", {}).get(task),
                )
            )
    return rows


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not math.isnan(value)


@cache
def _task_manager(include_path: str | None = None, include_defaults: bool = True) -> Any:
    """lm_eval's own tasks and those of a folder."""
    from lm_eval.tasks import TaskManager

    if include_path is not None and not Path(include_path).is_dir():
        raise ConfigError(
            f"--lm-eval-arg include_path={include_path} is no folder; name one with YAML tasks of lm_eval"
        )
    return TaskManager(include_path=include_path, include_defaults=include_defaults)


def _known_rows(target: HarnessTarget, settings: Arguments) -> tuple[HarnessRow, ...]:
    """The rows of a model so far.

    Raises:
        RunDirError: they were made with other settings.
    """
    results = read_harness_results(target.folder)
    old = results.settings
    changed = [
        f"  {key}: there {old.get(key)!r}, now {settings.get(key)!r}"
        for key in sorted({*old, *settings})
        if results.rows and old.get(key) != settings.get(key)
    ]
    if changed:
        raise RunDirError(
            f"{target.folder / FILE} was made otherwise:\n" + "\n".join(changed) + "\ngive the old settings, or delete "
            "the file"
        )
    return results.rows
