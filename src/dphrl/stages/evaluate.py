"""Evaluation: greedy and n samples of every prompt, verdicts, Pass@k with intervals, keep and explore."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from dphrl.config import Config
from dphrl.errors import ConfigError, RunDirError
from dphrl.files import read_json, write_json
from dphrl.metrics import summarise
from dphrl.models import Policy, load_policy
from dphrl.progress import Progress, silent
from dphrl.sampling import Request, Sampler, make_sampler
from dphrl.stages.guard import disk_errors
from dphrl.stages.prompts import fitting, load_prompts
from dphrl.stages.rundir import RunDir, base_of, open_run
from dphrl.stages.samples import Shards, Speed, draw_missing, read_samples, write_samples
from dphrl.types import GREEDY_DRAW, Completion, Task

MODELS = ("base", "final")


def evaluate(config: Config, *, base_dir: Path, models: Sequence[str] = MODELS, progress: Progress = silent) -> RunDir:
    """Make RUN/eval/MODEL for the initial policy (`base`) and the trained one (`final`); finished datasets are kept.

    Raises:
        ConfigError: no eval_tasks. RunDirError: no trained model, or a base_run without the base's samples.
    """
    run = open_run(config)
    if not config.eval_tasks:
        raise ConfigError("eval_tasks is empty; name at least one task to measure")
    tokens = load_policy(config)  # for its tokenizer: no weights are read
    tasks = {name: load_prompts(name, cfg, tokens, base_dir=base_dir) for name, cfg in config.eval_tasks.items()}
    base = base_of(config, run)
    if "final" in models and not (run.final / "config.json").exists():
        raise RunDirError(f"{run.root} holds no trained model; run `dphrl train`, or measure the base: --model base")
    if tuple(models) == ("base",) and not (config.eval.base and base == run):
        raise ConfigError("the base is not measured here: eval.base is false, or base_run names the run that holds it")
    if "base" in models and config.eval.base and base == run:
        _evaluate_model(config, run, "base", None, tasks, None, progress)
    if "final" in models:
        reference = base if config.eval.base else None
        _evaluate_model(config, run, "final", str(run.final), tasks, reference, progress)
    return run


def _evaluate_model(
    config: Config,
    run: RunDir,
    model: str,
    path: str | None,
    tasks: dict[str, Task],
    base: RunDir | None,
    progress: Progress,
) -> None:
    summary_path = run.eval_summary(model)
    rows = {row["dataset"]: row for row in read_json(summary_path)["rows"]} if summary_path.exists() else {}
    missing = {name: task for name, task in tasks.items() if name not in rows or not run.samples(model, name).exists()}
    references = {name: None if base is None else _base_samples(base, name, config) for name in missing}
    if not missing:
        return
    policy = load_policy(config, path)
    with closing(make_sampler(config, policy)) as sampler:  # one for all tasks: an engine takes long to start
        for name, task in missing.items():
            completions, speed, too_long = _samples(config, run, model, task, policy, sampler, progress)
            summary = summarise(
                completions,
                base=references[name],
                solution=task.solution,
                rng=np.random.default_rng(config.seed),
                resamples=config.eval.resamples,
            )
            rows[name] = {"dataset": name, "model": model, **summary, **_speed(speed), "too_long": too_long}
            write_json(summary_path, {"rows": [rows[n] for n in tasks if n in rows]})


def _samples(
    config: Config, run: RunDir, model: str, task: Task, policy: Policy, sampler: Sampler, progress: Progress
) -> tuple[list[Completion], Speed, list[str]]:
    """The greedy completion and n draws of every prompt, joined into one Parquet when they are all there; and the ids
    of the prompts that the model's context cannot hold, which are counted and named, not measured."""
    prompts = fitting(task, policy, config, progress)
    draws = (GREEDY_DRAW, *range(config.eval.n))
    requests = [Request(i, draw, ids) for i, ids in prompts.encoded.items() for draw in draws]
    shards = Shards(run.eval(model) / f".{task.name}", "part")
    with disk_errors(run.root):
        completions, speed = draw_missing(requests, sampler, task, shards, progress, f"eval {model} {task.name}")
        write_samples(run.samples(model, task.name), completions)
    shutil.rmtree(shards.folder, ignore_errors=True)
    return completions, speed, list(prompts.dropped)


def _base_samples(base: RunDir, dataset: str, config: Config) -> list[Completion]:
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
