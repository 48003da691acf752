"""The command line. Nothing heavy is imported before a command needs it: `dphrl --help` must answer at once."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dphrl import __version__
from dphrl.errors import ConfigError, DphrlError

if TYPE_CHECKING:
    from dphrl.config import Config

BAD_INPUT = 2
INTERRUPTED = 130

STAGES = {
    "presample": "draw from the initial policy, verify, partition, make the anchors",
    "train": "train the policy on the prompts and anchors",
    "eval": "sample from base and trained model, measure Pass@k with intervals",
    "run": "all of these, and the report",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 done, 2 wrong use or bad input, 130 interrupted. A bug ends with a traceback and status 1.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # idle threads that spin would starve the other core's work
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and not hasattr(options, "stage"):
        parser.error(f"unexpected arguments: {' '.join(rest)}")
    try:
        command: Callable[[argparse.Namespace, list[str]], None] = options.command
        command(options, rest)
    except DphrlError as error:
        print(f"dphrl: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("dphrl: interrupted; the same command goes on from there", file=sys.stderr)
        return INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dphrl",
        description="Post-train a language model with verifiable rewards, keeping its Pass@k and its other skills.",
        epilog="Exit status: 0 done, 2 wrong use or bad input, 130 interrupted (run it again to go on), 1 a bug.",
    )
    parser.add_argument("--version", action="version", version=f"dphrl {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _demo_parser(commands)
    for name, text in STAGES.items():
        stage = commands.add_parser(name, help=text, description=text.capitalize() + ".", add_help=False)
        stage.add_argument("--config", type=Path, help="YAML file of settings; recipes/ holds examples")
        stage.add_argument("-h", "--help", action=_SettingsHelp, nargs=0, help="show this help and every setting")
        if name == "eval":
            stage.add_argument("--model", choices=("base", "final", "both"), default="both", help="which to measure")
        stage.set_defaults(command=_run_stage, stage=name)
    report = commands.add_parser("report", help="write the page and figures of one or several runs")
    report.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="run directories")
    report.add_argument("--config", type=Path, help="name a run by its config instead")
    report.add_argument("--out", type=Path, help="where to write (default: RUN/report of a single run)")
    report.set_defaults(command=_report)
    compare = commands.add_parser("compare", help="join runs into one table with paired intervals")
    compare.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="run directories")
    compare.add_argument("--config", type=Path, help="name one more run by its config")
    compare.add_argument("--out", type=Path, required=True, help="folder for summary.json")
    compare.add_argument("--baseline", default="grpo", help="method that differences refer to (default: grpo)")
    compare.set_defaults(command=_compare)
    doctor = commands.add_parser("doctor", help="what is installed, what works, what to install")
    doctor.set_defaults(command=_doctor)
    return parser


def _demo_parser(commands: Any) -> None:
    demo = commands.add_parser(
        "demo",
        help="compare methods on a small built-in world, on this machine",
        description="Compare methods on a small built-in world: text-to-SQL questions with several right readings. "
        "It was built to show diversity collapse; see docs/demo.md.",
    )
    demo.add_argument(
        "--methods",
        help="of base, grpo, dapo, rkl, dph_f, dph_js, dph_alpha, replay (default: base,grpo,rkl,dph_f,dph_js)",
    )
    demo.add_argument("--seeds", type=int, help="training runs of each method, >= 1 (default: 1; --sweep 3)")
    demo.add_argument("--steps", type=int, help="generations of each run, >= 1 (default: 60; --sweep 120; --quick 4)")
    demo.add_argument("--n", type=int, help="samples per prompt when measuring, >= 8 (default: 64; --quick 8)")
    demo.add_argument("--eta", type=float, help="weight of the anchor penalty (default: each method's own)")
    demo.add_argument("--out", type=Path, help="folder of the runs (default: runs/demo, runs/sweep, runs/quick)")
    demo.add_argument("--jobs", type=int, help="runs side by side, a thread each (default: the number of cores)")
    only = demo.add_mutually_exclusive_group()
    only.add_argument("--quick", action="store_true", help="a smoke run of every stage, at most a minute")
    only.add_argument("--sweep", action="store_true", help="many weights of each method: the frontier figure")
    demo.set_defaults(command=_demo)


class _SettingsHelp(argparse.Action):
    """--help of a stage: its options, then every setting with unit, range and default."""

    def __call__(self, parser: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> None:
        from dphrl.config_io import settings

        parser.print_help()
        print("\nsettings, in the YAML file or as --dotted.key VALUE (task settings also as eval_tasks.NAME.*):")
        for s in settings():
            facts = "; ".join(f for f in (s.unit, s.range or s.type, f"default {s.default}") if f)
            print(f"  {s.key}\n      {s.help} ({facts})")
        parser.exit()


def _config(options: argparse.Namespace, rest: list[str]) -> tuple[Config, Path]:
    from dphrl.config_io import load_config, parse_overrides

    if options.config is None:
        raise ConfigError("--config FILE is missing; recipes/ holds examples")
    base_dir = options.config.parent
    return load_config(options.config, parse_overrides(rest), base_dir), base_dir


def _run_stage(options: argparse.Namespace, rest: list[str]) -> None:
    from dphrl.progress import shown

    config, base_dir = _config(options, rest)
    with shown() as progress:
        if options.stage == "presample":
            from dphrl.stages.presample import presample

            run = presample(config, base_dir=base_dir, progress=progress)
        elif options.stage == "train":
            from dphrl.stages.train import train

            run = train(config, base_dir=base_dir, progress=progress)
        elif options.stage == "eval":
            from dphrl.stages.evaluate import MODELS, evaluate

            models = MODELS if options.model == "both" else (options.model,)
            run = evaluate(config, base_dir=base_dir, models=models, progress=progress)
        else:
            from dphrl.stages.run import run as run_all

            run = run_all(config, base_dir=base_dir, progress=progress)
    print(f"{options.stage}: done, see {run.root}")


def _demo(options: argparse.Namespace, rest: list[str]) -> None:
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
        )
    )


def _runs(options: argparse.Namespace) -> list[Path]:
    """The run directories named, and the one of --config."""
    if options.config is None:
        if not options.runs:
            raise ConfigError("no run is named; give run directories, or --config FILE of one")
        return list(options.runs)
    return [*options.runs, Path(_config(options, [])[0].out)]


def _report(options: argparse.Namespace, rest: list[str]) -> None:
    from dphrl.stages.report import report

    print(report(_runs(options), options.out))


def _compare(options: argparse.Namespace, rest: list[str]) -> None:
    from rich.console import Console

    from dphrl.report.terminal import print_summary
    from dphrl.stages.compare import compare

    summary = compare(_runs(options), options.out, baseline=options.baseline)
    print_summary(summary, Console())


def _doctor(options: argparse.Namespace, rest: list[str]) -> None:
    from dphrl.stages.doctor import doctor

    doctor()
