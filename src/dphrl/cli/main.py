"""The command line. A command imports its stage when it runs: `dphrl --help` must answer at once."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from dphrl import __version__
from dphrl.cli import export_commands as exports
from dphrl.cli import result_commands as results
from dphrl.cli import stage_commands as stages
from dphrl.cli import tool_commands as tools
from dphrl.errors import DphrlError, Stopped
from dphrl.runs.lock import disk_errors
from dphrl.signals import heard, known

FAILED = 1
BAD_INPUT = 2
SIGNALLED = 128
"""Added to the number of the signal that ended a command, as a shell does."""

ENDING = known("SIGTERM", "SIGUSR1")
"""What ends a command as Ctrl-C does, with a line of its own: `kill`, `timeout` and clusters send it."""

COMPLETE = "_DPHRL_COMPLETE"
"""Set by the script of --completion while the shell asks for completions."""

SECTIONS: dict[str, tuple[click.Command, ...]] = {
    "A run": (
        *(stages.demo, stages.run, stages.plan, stages.presample, stages.merge, stages.train, stages.verl_command),
        stages.evaluate,
    ),
    "Results": (results.report, results.watch, results.compare, results.import_files),
    "Pieces": (tools.verify, tools.tasks, tools.anchors, exports.export),
    "Help": (tools.recipes, tools.docs, tools.doctor),
}
"""The commands as `dphrl --help` lists them."""

MOVED = {
    ("run", "--dry-run"): "`dphrl plan FILE` checks and plans a run",
    ("run", "--gpus"): "--gpus is an option of `dphrl plan`",
    ("report", "--watch"): "`dphrl watch RUN` serves the page while a run goes on",
    ("report", "--port"): "--port is an option of `dphrl watch`",
    ("report", "--samples"): "`dphrl import FILE... --out DIR` reads the samples of other tools",
    ("report", "--base"): "--base is an option of `dphrl import`",
    ("report", "--threshold"): "--threshold is an option of `dphrl import`",
    ("report", "--reward"): "--reward is an option of `dphrl import`",
}
"""(command, option that it once had) -> the command that does it now."""

AFTER_INTERRUPT = {
    "watch": "the page is no longer served, and the runs were not touched",
    **dict.fromkeys(("verify", "anchors", "export"), "nothing was written"),
}
"""Command -> what to know after Ctrl-C; the others go on where they were."""


class _Commands(click.Group):
    """The group `dphrl`, whose help lists the commands by SECTIONS."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(command.name or "", command.get_short_help_str(200)) for command in commands])


def _print_completion(context: click.Context, option: click.Parameter, shell: str | None) -> None:
    """Print the script that teaches a shell to complete commands, options and settings."""
    from click.shell_completion import get_completion_class

    kind = None if shell is None else get_completion_class(shell)
    if kind is not None:
        click.echo(kind(dphrl, {}, "dphrl", COMPLETE).source())
        context.exit()


@click.group(
    cls=_Commands,
    commands={command.name or "": command for commands in SECTIONS.values() for command in commands},
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="Exit status: 0 done, 2 wrong use or bad input, 130 interrupted, 143 or 138 ended by SIGTERM or SIGUSR1 "
    "(run it again to go on), 1 a bug, or output into a pipe that nobody reads.",
)
@click.version_option(__version__, message="dphrl %(version)s")
@click.option(
    "--completion",
    type=click.Choice(["bash", "zsh", "fish"]),
    is_eager=True,
    expose_value=False,
    callback=_print_completion,
    help='Print a script of shell completion. In ~/.bashrc: eval "$(dphrl --completion bash)".',
)
def dphrl() -> None:
    """Post-train a language model with verifiable rewards, keeping its Pass@k and its other skills."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the words after `dphrl`; None = those of this process.
    Returns:
        0 done, 2 wrong use or bad input, 130 interrupted, 143 and 138 ended by SIGTERM and SIGUSR1, 1 standard output
        was closed. A bug ends with a traceback and status 1.
    """
    with heard(ENDING, _end):
        return _main(arguments)


def _main(arguments: Sequence[str] | None) -> int:
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # idle threads that spin would starve the other core's work
    if COMPLETE in os.environ:
        dphrl.main(prog_name="dphrl", complete_var=COMPLETE)
    context: click.Context | None = None
    try:
        context = dphrl.make_context("dphrl", list(sys.argv[1:] if arguments is None else arguments))
        with context, disk_errors(Path.cwd()):
            dphrl.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.ClickException as error:
        print(_explained(error), file=sys.stderr)
        return BAD_INPUT
    except DphrlError as error:
        print(f"dphrl: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt as stop:
        return _interrupted(stop, None if context is None else context.invoked_subcommand)
    except BrokenPipeError:
        if not _closed_output():
            raise
        return FAILED
    return 0


def _end(number: int, frame: Any) -> None:
    """Ends the command; later signals are not heard, since launchers pass on what all were sent."""
    for each in ENDING:
        signal.signal(each, signal.SIG_IGN)
    raise Stopped(number, f"ended by {signal.Signals(number).name}")


def _explained(error: click.ClickException) -> str:
    """A usage error in one message, with the command that took over where an option has moved."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return error.format_message()
    if isinstance(error, click.NoSuchOption) and error.ctx is not None:
        moved = MOVED.get((error.ctx.command.name or "", error.option_name))
        if moved is not None:
            return f"dphrl: `dphrl {error.ctx.command.name}` has no {error.option_name}: {moved}"
    where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx is not None else "dphrl"
    return f"dphrl: {error.format_message()} See `{where} --help`."


def _interrupted(stop: KeyboardInterrupt, command: str | None) -> int:
    """Say what to do after Ctrl-C or a signal; of several processes, the first alone says it."""
    number = stop.number if isinstance(stop, Stopped) else signal.SIGINT
    if not isinstance(stop, Stopped) or os.environ.get("RANK", "0") == "0":
        text = stop if isinstance(stop, Stopped) else "interrupted"
        after = AFTER_INTERRUPT.get(command or "", "the same command goes on from there")
        print(f"dphrl: {text}; {after}", file=sys.stderr)
    return SIGNALLED + number


def _closed_output() -> bool:
    """Whether the reader of standard output has gone; what is still to be written is then dropped."""
    try:
        print(flush=True)  # a flush alone does not fail again
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more at its end
        return True
    return False
