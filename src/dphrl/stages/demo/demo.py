"""`dphrl demo`: methods compared on the built-in world, a run directory for each method and seed, side by side."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from dphrl.config.load import build_config
from dphrl.config.root import Config
from dphrl.engines.trl import check_installed
from dphrl.progress import Progress, shown
from dphrl.report.comparison import Comparison
from dphrl.report.terminal import show_comparison
from dphrl.stages.compare.compare import compare_runs
from dphrl.stages.demo.demo_options import DemoSettings
from dphrl.stages.demo.parallel_jobs import gather, worker_pool
from dphrl.stages.evaluate.evaluate import evaluate
from dphrl.stages.presample.presample import presample
from dphrl.stages.report.write_report import write_report
from dphrl.stages.train.train import train

EVAL_TASKS = ("in_domain", "cross_domain", "arithmetic", "reversal")
MAX_NEW_TOKENS = 40


def run_demo(settings: DemoSettings, *, as_json: bool = False) -> Comparison:
    """Run what is missing, compare, write the page, print the tables, or with `as_json` one line of JSON.

    Returns:
        The comparison, as in `compare/summary.json`.
    """
    if len(settings.variants) > 1:  # the base is measured, not trained
        check_installed()
    began = time.monotonic()
    with shown() as progress:
        runs = _run_all(settings, progress)
    compared = [path for path in runs if path.name.rpartition("-")[0] != "base"] or runs
    baseline = "grpo" if "grpo" in settings.variants else "base"
    comparison = compare_runs(compared, settings.out / "compare", baseline=baseline)
    page = write_report(compared, settings.out / "report", comparison=comparison)
    show_comparison(comparison, as_json=as_json)
    if not as_json:
        print(f"{time.monotonic() - began:.0f} s. Page: {page}\nNumbers: {settings.out / 'compare' / 'summary.json'}")
    return comparison


def demo_config(settings: DemoSettings, variant: str, seed: int) -> Config:
    """The config of one run of the demo. It names every setting that its numbers depend on: the defaults of dphrl are
    made for real models."""
    values: dict[str, Any] = {
        "out": str(settings.out / f"{variant}-s{seed}"),
        "seed": seed,
        "threads": 1,
        "base_run": None if variant == "base" else str(settings.out / f"base-s{seed}"),
        "model": {"path": "demo", "device": "cpu"},
        "task": {"data": "demo:in_domain", "split": "train"},
        "eval_tasks": {name: {"data": f"demo:{name}", "split": "eval", "limit": settings.limit} for name in EVAL_TASKS},
        "sampling": {"max_new_tokens": MAX_NEW_TOKENS, "temperature": 1.0, "batch_size": 512},
        "anchor": {"presamples": 8, "threshold": 6, "batch_size": 64},
        "train": {
            "steps": settings.steps,
            "prompts_per_step": 8,
            "group_size": 8,
            "updates": 2,
            "learning_rate": 1e-3,
            "lr_schedule": "linear",
            "save_every": 20,
        },
        "eval": {"n": settings.n},
    }
    for section, value in settings.variants[variant].items():
        values[section] = {**values.get(section, {}), **value} if isinstance(value, dict) else value
    return build_config(values)


def _run_all(settings: DemoSettings, progress: Progress) -> list[Path]:
    """Stage 1 and the base's evaluation first, since every method reads them; then the methods, side by side."""
    seeds = range(settings.seeds)
    configs = {(v, s): demo_config(settings, v, s) for v in settings.variants for s in seeds}
    bases = [configs["base", seed] for seed in seeds]
    others = [config for (variant, _), config in configs.items() if variant != "base"]
    with worker_pool(settings.jobs, progress) as submit:
        gather([submit(_stage, presample, config) for config in bases])
        measured = [submit(_stage, partial(evaluate, models=("base",)), config) for config in bases]
        gather([*measured, *(submit(_stage, train, config) for config in others)])
        gather([submit(_stage, partial(evaluate, models=("final",)), config) for config in others])
    return [Path(config.out) for config in configs.values()]


def _stage(stage: Callable[..., object], config: Config, *, progress: Progress) -> None:
    """One stage of one run in a process of its own; its bars carry the run's name."""
    run = Path(config.out).name
    stage(config, base_dir=Path(), progress=lambda task, *more, **notes: progress(f"{run}: {task}", *more, **notes))
