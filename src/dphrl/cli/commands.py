"""What each command of `cli` does once its arguments are read: imports of the stage, a progress bar, the last line."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dphrl.errors import ConfigError

if TYPE_CHECKING:
    from dphrl.config.root import Config
    from dphrl.progress import Progress
    from dphrl.runs.run_dir import RunDir


def _config(options: argparse.Namespace, rest: list[str]) -> tuple[Config, Path]:
    from dphrl.config.load import load_config, parse_overrides

    if options.config is None:
        raise ConfigError("--config FILE is missing; recipes/ holds examples")
    base_dir = options.config.parent
    return load_config(options.config, parse_overrides(rest), base_dir), base_dir


def run_stage(options: argparse.Namespace, rest: list[str]) -> None:
    """`presample`, `train`, `eval` or `run`: a config, a progress bar, and where the results lie."""
    from dphrl.progress import shown
    from dphrl.stages.train.launch import check_alone

    if options.stage == "eval":
        _check_eval(options)
        _harness_tasks(options)
        if _without_run(options):
            _evaluate_models(options, rest)
            return
        rest = [*rest, *_eval_overrides(options, rest)]
    if options.stage != "train":
        check_alone(options.stage)
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
    from dphrl.stages.presample.presample import presample
    from dphrl.stages.presample.prompt_share import parse_share

    shard = None if options.shard is None else parse_share(options.shard)
    return presample(config, base_dir=base_dir, progress=progress, shard=shard)


def _train(options: argparse.Namespace, config: Config, base_dir: Path, progress: Progress) -> RunDir:
    from dphrl.stages.train.train import train

    return train(config, base_dir=base_dir, progress=progress, allow_change=options.allow_change)


def _evaluate(options: argparse.Namespace, config: Config, base_dir: Path, progress: Progress) -> RunDir:
    from dphrl.stages.evaluate.evaluate import MODELS, evaluate

    named = set(options.model or ["both"])
    models = MODELS if named != {"base"} and named != {"final"} else tuple(named)
    run = evaluate(config, base_dir=base_dir, models=models, progress=progress)
    tasks, arguments = _harness_tasks(options)
    if tasks:
        from dphrl.stages.evaluate.lm_eval import measure, targets_of_run

        measure(config, targets_of_run(config, models), tasks, arguments, progress)
    return run


RUN_MODELS = ("base", "final", "both")
"""What --model of `eval` names in a run; any other word is a model itself."""


def _without_run(options: argparse.Namespace) -> bool:
    return any(word not in RUN_MODELS for word in options.model or ())


def _check_eval(options: argparse.Namespace) -> None:
    """Refuse what the chosen form of `eval` does not read."""
    mixed = [word for word in options.model or () if word in RUN_MODELS]
    if _without_run(options) and mixed:
        raise ConfigError(
            f"--model {mixed[0]} names a model of a run, and the others are models themselves; give its folder, "
            f"e.g. --model {mixed[0]}=RUN/train/final"
        )
    for flag, value in (("--tasks", options.tasks), ("--base", options.base)):
        if value is not None and not _without_run(options):
            raise ConfigError(f"{flag} needs models: --model NAME=PATH; a run says what it measures (eval_tasks)")


def _eval_overrides(options: argparse.Namespace, rest: list[str]) -> list[str]:
    """--n and --drift as the settings that they are."""
    from dphrl.config.load import parse_overrides
    from dphrl.stages.evaluate.options import DRIFT_DRAWS

    given = parse_overrides(rest)
    values = {"eval.n": options.n, "eval.drift": DRIFT_DRAWS if options.drift else None}
    twice = [key for key, value in values.items() if value is not None and key in given]
    if twice:
        raise ConfigError(f"--{twice[0].removeprefix('eval.')} and --{twice[0]} say the same thing; give one of them")
    return [f"--{key}={value}" for key, value in values.items() if value is not None]


def _harness_tasks(options: argparse.Namespace) -> tuple[list[str], dict[str, Any]]:
    """--lm-eval and its arguments, checked before anything is drawn; no task where it is not asked for."""
    if options.lm_eval is None:
        if options.lm_eval_arg:
            raise ConfigError("--lm-eval-arg is of lm-evaluation-harness; add --lm-eval TASKS, or take it out")
        return [], {}
    from dphrl.stages.evaluate.lm_eval import check_harness, parse_arguments

    arguments = parse_arguments(options.lm_eval_arg or [])
    return check_harness(options.lm_eval, arguments), arguments


def _evaluate_models(options: argparse.Namespace, rest: list[str]) -> None:
    """Models without a run: an evaluation directory, and its tables."""
    from dphrl.config.load import parse_overrides
    from dphrl.progress import shown
    from dphrl.report.terminal import show
    from dphrl.stages.compare.compare import compare
    from dphrl.stages.evaluate.evaluate import evaluate_models
    from dphrl.stages.evaluate.options import asked

    overrides = parse_overrides([*rest, *_eval_overrides(options, rest)])
    found = asked(options.model, tasks=options.tasks, base=options.base, config=options.config, overrides=overrides)
    with shown() as progress:
        where = evaluate_models(found.config, found.models, base_dir=found.base_dir, progress=progress)
        tasks, arguments = _harness_tasks(options)
        if tasks:
            from dphrl.stages.evaluate.lm_eval import measure, targets_of_evaldir

            targets = targets_of_evaldir(where, [model.name for model in found.models])
            measure(found.config, targets, tasks, arguments, progress)
    show(compare([where.root], where.root / "report", baseline="base"), as_json=options.json)
    if not options.json:
        print(f"eval: done, see {where.root}")


def _run(options: argparse.Namespace, config: Config, base_dir: Path, progress: Progress) -> RunDir:
    from dphrl.stages.run import run

    return run(config, base_dir=base_dir, progress=progress, allow_change=options.allow_change)


_STAGES: dict[str, Callable[[argparse.Namespace, Config, Path, Progress], RunDir]] = {
    "presample": _presample,
    "train": _train,
    "eval": _evaluate,
    "run": _run,
}


def _show_run(run: RunDir, *, as_json: bool) -> None:
    """The tables of one evaluated run against its base."""
    from dphrl.report.terminal import show
    from dphrl.stages.compare.compare import compare

    show(compare([run.root], run.root / "report", baseline="base"), as_json=as_json)


def _dry_run(options: argparse.Namespace, config: Config, base_dir: Path) -> None:
    from dphrl.progress import shown
    from dphrl.stages.plan.plan import DEFAULT_GPUS, plan_run
    from dphrl.stages.plan.plan_text import plan_text

    if options.allow_change:
        raise ConfigError("--allow-change is of a training that goes on; --dry-run starts none, leave one of them out")
    if not options.dry_run:
        raise ConfigError("--gpus is of the plan only; add --dry-run, or choose the GPUs of a run where it is launched")
    with shown() as progress:
        plan = plan_run(
            config, base_dir=base_dir, gpus=DEFAULT_GPUS if options.gpus is None else options.gpus, progress=progress
        )
    print(plan_text(plan))


def merge(options: argparse.Namespace, rest: list[str]) -> None:
    from dphrl.progress import shown
    from dphrl.stages.presample.merge_shards import merge

    base_dir = None if options.config is None else options.config.parent
    with shown() as progress:
        run = merge(options.runs, options.out, base_dir=base_dir, progress=progress)
    print(f"merge: done, see {run.root}")


def demo(options: argparse.Namespace, rest: list[str]) -> None:
    """Every method on the built-in world."""
    from dphrl.stages.demo.demo import DemoSettings, demo

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
    if options.samples:
        _report_samples(options)
        return
    for flag in ("base", "threshold", "reward"):
        if getattr(options, flag) is not None:
            raise ConfigError(f"--{flag} is of files of samples; add --samples FILE, or take --{flag} out")
    runs = _runs(options)
    base_dir = Path() if options.config is None else options.config.parent
    if options.watch:
        _watch(options, runs, base_dir)
        return
    if options.port is not None:
        raise ConfigError("--port is of the page that --watch serves; add --watch, or take --port out")
    from dphrl.progress import shown
    from dphrl.stages.report.write_report import report

    with shown() as progress:
        page = report(runs, options.out, base_dir=base_dir, drift=not options.no_drift, progress=progress)
    print(page)


def _report_samples(options: argparse.Namespace) -> None:
    """Other tools' samples as an evaluation directory, and its report."""
    from dphrl.progress import shown
    from dphrl.stages.import_samples.import_samples import import_samples, parse_source
    from dphrl.stages.import_samples.shapes import Scale
    from dphrl.stages.report.write_report import report

    others = {"a run": options.runs, "--config": options.config, "--watch": options.watch, "--port": options.port}
    others["--no-drift"] = options.no_drift
    given = [name for name, value in others.items() if value not in (None, False, [])]
    if given:
        raise ConfigError(f"{given[0]} and --samples exclude each other; report samples alone, with an --out of theirs")
    if options.out is None:
        raise ConfigError("--samples needs a folder to write; name it with --out, e.g. --out reports/first")
    with shown() as progress:
        where, notes = import_samples(
            [parse_source(text) for text in options.samples],
            options.out,
            base=options.base,
            scale=Scale(options.reward, options.threshold),
            progress=progress,
        )
        page = report([where.root], progress=progress)
    for note in notes:
        print(note)
    print(page)


def _watch(options: argparse.Namespace, runs: list[Path], base_dir: Path) -> None:
    """Serve the page until Ctrl-C."""
    from dphrl.stages.report.watch import server

    if options.no_drift:
        raise ConfigError("--watch loads no model anyway; take --no-drift out")
    with server(runs, options.out, port=options.port or 0, base_dir=base_dir) as served:
        print(f"{served.url} shows {', '.join(map(str, runs))}; Ctrl-C ends it", flush=True)
        served.serve_forever()


def compare(options: argparse.Namespace, rest: list[str]) -> None:
    from dphrl.report.terminal import show
    from dphrl.stages.compare.compare import compare

    show(compare(_runs(options), options.out, baseline=options.baseline), as_json=options.json)


def verify(options: argparse.Namespace, rest: list[str]) -> None:
    from dphrl.progress import shown
    from dphrl.stages.verify_file import verify_file

    with shown() as progress:
        summary = verify_file(options.task, options.file, arguments=options.arg, out=options.out, progress=progress)
    print(summary.text())
    if options.out is not None:
        print(f"verdicts: {options.out}")


def list_tasks(options: argparse.Namespace, rest: list[str]) -> None:
    from rich.console import Console

    from dphrl.stages.show_tasks import list_tasks

    list_tasks(Console())


def show_task(options: argparse.Namespace, rest: list[str]) -> None:
    from rich.console import Console

    from dphrl.config.load import parse_overrides
    from dphrl.stages.show_tasks import show_task

    show_task(
        options.name,
        Console(),
        data=options.data,
        split=options.split,
        prompt=options.prompt,
        overrides=parse_overrides(rest),
    )


def anchors(options: argparse.Namespace, rest: list[str]) -> None:
    from dphrl.stages import anchor_store as store

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
