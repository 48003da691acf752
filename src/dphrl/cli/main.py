"""The command line. Nothing heavy is imported before a command needs it: `dphrl --help` must answer at once."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dphrl import __version__
from dphrl.cli import commands
from dphrl.errors import DphrlError, Stopped

BAD_INPUT = 2
SIGNALLED = 128
"""Added to the number of the signal that ended a command, as a shell does."""

JSON_HELP = "print the summary as one line of JSON instead of tables"

STAGES = {
    "presample": "draw from the initial policy, verify, partition, make the anchors",
    "train": "train the policy on the prompts and anchors",
    "eval": "sample from models, measure Pass@k with intervals, and what is kept and found",
    "run": "all of these, and the report",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 done, 2 wrong use or bad input, 130 interrupted, 143 and 138 training ended by SIGTERM and SIGUSR1. A bug ends
        with a traceback and status 1.
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
    except KeyboardInterrupt as stop:
        if isinstance(stop, Stopped) and os.environ.get("RANK", "0") != "0":  # of several processes one says it
            return SIGNALLED + stop.number
        after = getattr(options, "interrupted", "the same command goes on from there")
        print(f"dphrl: {stop if isinstance(stop, Stopped) else 'interrupted'}; {after}", file=sys.stderr)
        return SIGNALLED + (stop.number if isinstance(stop, Stopped) else signal.SIGINT)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dphrl",
        description="Post-train a language model with verifiable rewards, keeping its Pass@k and its other skills.",
        epilog="Exit status: 0 done, 2 wrong use or bad input, 130 interrupted and 143 or 138 "
        "ended by SIGTERM or SIGUSR1 (run it again to go on), 1 a bug.",
    )
    parser.add_argument("--version", action="version", version=f"dphrl {__version__}")
    choices = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _demo_parser(choices)
    for name, text in STAGES.items():
        stage = choices.add_parser(name, help=text, description=text.capitalize() + ".", add_help=False)
        stage.add_argument("--config", type=Path, help="YAML file of settings; recipes/ holds examples")
        stage.add_argument("-h", "--help", action=_SettingsHelp, nargs=0, help="show this help and every setting")
        if name == "presample":
            stage.add_argument("--shard", metavar="i/N", help="draw for a share of the prompts only; see dphrl merge")
        if name in ("train", "run"):
            stage.add_argument(
                "--allow-change", action="store_true", help="go on with a training though settings or data changed"
            )
        if name == "eval":
            _eval_arguments(stage)
        if name == "run":
            stage.add_argument(
                "--dry-run", action="store_true", help="check everything and print the plan; run nothing"
            )
            stage.add_argument("--gpus", type=int, help="of the plan: GPUs that train, >= 1 (default: 8)")
        if name in ("eval", "run"):
            stage.add_argument("--json", action="store_true", help=JSON_HELP)
        stage.set_defaults(command=commands.run_stage, stage=name)
    merge = choices.add_parser("merge", help="join the runs of `dphrl presample --shard i/N` into one")
    merge.add_argument("runs", nargs="+", type=Path, metavar="SHARD_RUN", help="a run directory for each share")
    merge.add_argument("--out", type=Path, required=True, help="the new run directory")
    merge.add_argument("--config", type=Path, help="take its folder for relative paths (default: as the shares had it)")
    merge.set_defaults(command=commands.merge, interrupted="`dphrl presample` in --out goes on, if it is there")
    report = choices.add_parser("report", help="write the page and figures of one or several runs")
    report.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="run directories")
    report.add_argument("--config", type=Path, help="name a run by its config instead")
    report.add_argument("--out", type=Path, help="where to write (default: RUN/report of a single run)")
    report.add_argument("--no-drift", action="store_true", help="load no trained model to look at its anchors")
    report.add_argument("--watch", action="store_true", help="serve the page on 127.0.0.1 while the runs go on")
    report.add_argument("--port", type=int, help="of --watch; 0 takes a free one (default: 0)")
    _samples_arguments(report)
    report.set_defaults(command=commands.report)
    compare = choices.add_parser("compare", help="join runs into one table with paired intervals")
    compare.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="run and evaluation directories")
    compare.add_argument("--config", type=Path, help="name one more run by its config")
    compare.add_argument("--out", type=Path, required=True, help="folder for summary.json")
    compare.add_argument("--baseline", help="method that differences refer to (default: grpo, or base)")
    compare.add_argument("--json", action="store_true", help=JSON_HELP)
    compare.set_defaults(command=commands.compare)
    _verify_parser(choices)
    _tasks_parser(choices)
    _anchors_parser(choices)
    doctor = choices.add_parser("doctor", help="what is installed, what works, what to install")
    doctor.set_defaults(command=commands.doctor)
    return parser


def _demo_parser(choices: Any) -> None:
    demo = choices.add_parser(
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
    demo.add_argument("--json", action="store_true", help=JSON_HELP)
    only = demo.add_mutually_exclusive_group()
    only.add_argument("--quick", action="store_true", help="a smoke run of every stage, at most a minute")
    only.add_argument("--sweep", action="store_true", help="many weights of each method: the frontier figure")
    demo.set_defaults(command=commands.demo)


def _eval_arguments(stage: Any) -> None:
    stage.add_argument(
        "--model",
        action="append",
        metavar="MODEL",
        help="of a run: base, final or both (default: both); without a run: NAME=PATH, a folder or name (the name may "
        "be left out; NAME@SEED=PATH for one of several training seeds); may be repeated",
    )
    stage.add_argument("--tasks", help="with --model PATH: ready tasks and demo:NAME, e.g. gsm8k,math500")
    stage.add_argument("--base", metavar="NAME", help="with --model PATH: what keep and explore refer to (the first)")
    stage.add_argument("--n", type=int, help="completions drawn per prompt, as --eval.n")
    stage.add_argument(
        "--lm-eval", metavar="TASKS", help="run these tasks of lm-evaluation-harness too (dphrl[lm-eval])"
    )
    stage.add_argument(
        "--lm-eval-arg",
        action="append",
        metavar="NAME=VALUE",
        help="an argument of lm_eval.simple_evaluate, e.g. limit=100 or apply_chat_template=true, or "
        "include_path=FOLDER of your own YAML tasks; may be repeated",
    )
    stage.add_argument(
        "--drift", action="store_true", help="measure entropy and KL to the base too, on 4 draws a prompt (eval.drift)"
    )


def _samples_arguments(report: Any) -> None:
    report.add_argument(
        "--samples",
        action="append",
        metavar="[NAME=]FILE",
        help="completions and verdicts of any tool (docs/other-tools.md), JSON lines or Parquet, which --out becomes "
        "an evaluation directory of; NAME is their model (NAME@SEED: one of several training seeds); may be repeated",
    )
    report.add_argument("--base", metavar="NAME", help="of --samples: the model that keep and explore refer to")
    report.add_argument("--threshold", type=float, help="of --samples: rewards from here on are right (default: 1)")
    report.add_argument("--reward", metavar="NAME", help="of --samples: the number that says what is right")


def _verify_parser(choices: Any) -> None:
    verify = choices.add_parser(
        "verify",
        help="judge completions in a file, without a model",
        description="Judge completions. Each line of the file is a JSON object: completion, gold, for SQL also db and "
        "perhaps mode, perhaps id; other keys reach a verifier of your own as columns. See docs/own-verifier.md.",
    )
    verify.add_argument("--task", required=True, help="the verifier: sql, math, exact or module:function")
    verify.add_argument("--file", required=True, help="file of JSON lines; - is standard input")
    verify.add_argument("--out", type=Path, help="write id, correct, reward, status, detail here, as JSON lines")
    verify.add_argument(
        "--arg",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an argument of the verifier, e.g. db_dir=databases; may be repeated",
    )
    verify.set_defaults(command=commands.verify, interrupted="nothing was written")


def _tasks_parser(choices: Any) -> None:
    tasks = choices.add_parser(
        "tasks",
        help="list the ready tasks, or show prompts of one",
        description="List the tasks that are ready to use, with verifier and data. See docs/tasks.md.",
    )
    tasks.set_defaults(command=commands.list_tasks)
    show = tasks.add_subparsers(title="commands", metavar="show").add_parser(
        "show",
        help="print three prompts of a task, their golds, and the verdicts on the golds",
        description="Print three prompts of a task, their golds, and the verdicts on the golds. Other settings of the "
        "task are given as --task.KEY VALUE, after these.",
    )
    show.add_argument("name", metavar="NAME", help="a ready task, or demo:NAME")
    show.add_argument("--data", help="its file, folder or `datasets` name (default: the task's own)")
    show.add_argument("--split", help="its split (default: the task's own)")
    show.add_argument("--prompt", metavar="ID", help="show this prompt alone")
    show.set_defaults(command=commands.show_task, stage="tasks show")


def _anchors_parser(choices: Any) -> None:
    anchors = choices.add_parser("anchors", help="look at, check, join or export anchors; docs/anchors.md")
    actions = anchors.add_subparsers(title="actions", metavar="ACTION", required=True)
    inspect = actions.add_parser("inspect", help="status, counts, lengths, tasks and a few anchors")
    inspect.add_argument("--model", help="folder or name whose tokenizer decodes the anchors (default: token ids)")
    inspect.add_argument("--show", type=int, default=3, help="anchors shown, >= 0 (default: 3)")
    verify = actions.add_parser("verify", help="compare every file's checksum, look for doubled anchors")
    export = actions.add_parser("export", help="write a folder that datasets.load_from_disk reads")
    for action in (inspect, verify, export):
        action.add_argument("folder", type=Path, metavar="DIR", help="the store, e.g. runs/first/anchors")
    merge = actions.add_parser("merge", help="join stores of one policy that were made in one way")
    merge.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="sealed stores of different prompts")
    for action in (merge, export):
        action.add_argument("--out", type=Path, required=True, help="folder to write; must not exist yet")
    for name, action in actions.choices.items():
        action.set_defaults(command=commands.anchors, action=name, interrupted="nothing was written")


class _SettingsHelp(argparse.Action):
    """--help of a stage: its options, then every setting with unit, range and default."""

    def __call__(self, parser: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> None:
        from dphrl.config.load import settings

        parser.print_help()
        print("\nsettings, in the YAML file or as --dotted.key VALUE (task settings also as eval_tasks.NAME.*):")
        for s in settings():
            facts = "; ".join(f for f in (s.unit, s.range or s.type, f"default {s.default}") if f)
            print(f"  {s.key}\n      {s.help} ({facts})")
        parser.exit()
