"""What each command of `cli` does once its arguments are read: imports of the stage, a progress bar, the last line."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dphrl.errors import ConfigError

if TYPE_CHECKING:
    from dphrl.config import Config
    from dphrl.progress import Progress
    from dphrl.stages.rundir import RunDir


def _config(options: argparse.Namespace, rest: list[str]) -> tuple[Config, Path]:
    from dphrl.config_io import load_config, parse_overrides

    if options.config is None:
        raise ConfigError("--config FILE is missing; recipes/ holds examples")
    base_dir = options.config.parent
    return load_config(options.config, parse_overrides(rest), base_dir), base_dir


def run_stage(options: argparse.Namespace, rest: list[str]) -> None:
    """`presample`, `train`, `eval` or `run`: a config, a progress bar, and where the results lie."""
    from dphrl.progress import shown

    config, base_dir = _config(options, rest)
    if options.stage == "run" and (options.dry_run or options.gpus is not None):
        _dry_run(options, config, base_dir)
        return
    with shown() as progress:
        run = _STAGES[options.stage](options, config, base_dir, progress)
    if options.stage in ("eval", "run"):
        _show_run(run, as_json=options.json)
    if not getattr(options, "json", False):
        print(f"{options.stage}: done, see {run.root}")


def _presample(options: argparse.Namespace, config: Config, base_dir: Path, progress: Progress) -> RunDir:
    from dphrl.stages.presample import presample
    from dphrl.stages.shard import parse_shard

    shard = None if options.shard is None else parse_shard(options.shard)
    return presample(config, base_dir=base_dir, progress=progress, shard=shard)


def _train(options: argparse.Namespace, config: Config, base_dir: Path, progress: Progress) -> RunDir:
    from dphrl.stages.train import train

    return train(config, base_dir=base_dir, progress=progress)


def _evaluate(options: argparse.Namespace, config: Config, base_dir: Path, progress: Progress) -> RunDir:
    from dphrl.stages.evaluate import MODELS, evaluate

    models = MODELS if options.model == "both" else (options.model,)
    return evaluate(config, base_dir=base_dir, models=models, progress=progress)


def _run(options: argparse.Namespace, config: Config, base_dir: Path, progress: Progress) -> RunDir:
    from dphrl.stages.run import run

    return run(config, base_dir=base_dir, progress=progress)


_STAGES: dict[str, Callable[[argparse.Namespace, Config, Path, Progress], RunDir]] = {
    "presample": _presample,
    "train": _train,
    "eval": _evaluate,
    "run": _run,
}


def _show_run(run: RunDir, *, as_json: bool) -> None:
    """The tables of one evaluated run against its base."""
    from dphrl.report.terminal import show
    from dphrl.stages.compare import compare

    show(compare([run.root], run.root / "report", baseline="base"), as_json=as_json)


def _dry_run(options: argparse.Namespace, config: Config, base_dir: Path) -> None:
    from dphrl.progress import shown
    from dphrl.stages.plan import DEFAULT_GPUS, plan
    from dphrl.stages.plan_text import plan_text

    if not options.dry_run:
        raise ConfigError("--gpus is of the plan only; add --dry-run, or choose the GPUs of a run where it is launched")
    with shown() as progress:
        found = plan(
            config, base_dir=base_dir, gpus=DEFAULT_GPUS if options.gpus is None else options.gpus, progress=progress
        )
    print(plan_text(found))


def merge(options: argparse.Namespace, rest: list[str]) -> None:
    from dphrl.progress import shown
    from dphrl.stages.merge import merge

    base_dir = None if options.config is None else options.config.parent
    with shown() as progress:
        run = merge(options.runs, options.out, base_dir=base_dir, progress=progress)
    print(f"merge: done, see {run.root}")


def demo(options: argparse.Namespace, rest: list[str]) -> None:
    """Every method on the built-in world."""
    from dphrl.stages.demo import DemoSettings, demo

    demo(
        DemoSettings.of(
            methods=None if options.methods is None else tuple(m for m in options.methods.split(",") if m),
            seeds=options.seeds,
            steps=options.steps,
            n=options.n,
            eta=options.eta,
            out=options.out,
            jobs=options.jobs,
            quick=options.quick,
            sweep=options.sweep,
        ),
        as_json=options.json,
    )


def _runs(options: argparse.Namespace) -> list[Path]:
    """The run directories named, and the one of --config."""
    if options.config is None:
        if not options.runs:
            raise ConfigError("no run is named; give run directories, or --config FILE of one")
        return list(options.runs)
    return [*options.runs, Path(_config(options, [])[0].out)]


def report(options: argparse.Namespace, rest: list[str]) -> None:
    from dphrl.stages.report import report

    print(report(_runs(options), options.out))


def compare(options: argparse.Namespace, rest: list[str]) -> None:
    from dphrl.report.terminal import show
    from dphrl.stages.compare import compare

    show(compare(_runs(options), options.out, baseline=options.baseline), as_json=options.json)


def verify(options: argparse.Namespace, rest: list[str]) -> None:
    from dphrl.progress import shown
    from dphrl.stages.verify import verify_file

    with shown() as progress:
        summary = verify_file(options.task, options.file, arguments=options.arg, out=options.out, progress=progress)
    print(summary.text())
    if options.out is not None:
        print(f"verdicts: {options.out}")


def list_tasks(options: argparse.Namespace, rest: list[str]) -> None:
    from rich.console import Console

    from dphrl.stages.tasks import list_tasks

    list_tasks(Console())


def show_task(options: argparse.Namespace, rest: list[str]) -> None:
    from rich.console import Console

    from dphrl.config_io import parse_overrides
    from dphrl.stages.tasks import show_task

    show_task(
        options.name,
        Console(),
        data=options.data,
        split=options.split,
        prompt=options.prompt,
        overrides=parse_overrides(rest),
    )


def anchors(options: argparse.Namespace, rest: list[str]) -> None:
    from dphrl.stages import anchors as store

    if options.action == "inspect":
        print(store.inspect(options.folder, model=options.model, show=options.show))
    elif options.action == "verify":
        print(store.verify(options.folder))
    elif options.action == "merge":
        print(store.merge(options.folders, options.out))
    else:
        print(store.export(options.folder, options.out))


def doctor(options: argparse.Namespace, rest: list[str]) -> None:
    from dphrl.stages.doctor import doctor

    doctor()
