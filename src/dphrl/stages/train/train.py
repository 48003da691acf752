"""Stage 2: online training of the policy with one of the methods; checkpoints, metrics.jsonl, the final model."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from dphrl.config.root import Config
from dphrl.engines.trl import check_installed
from dphrl.engines.trl.config_to_trl import check_options_of_trl
from dphrl.errors import Stopped
from dphrl.method.collapse import TrainingWarning
from dphrl.models.policy import load_policy
from dphrl.progress import Progress, silent
from dphrl.runs.checkpoints import checkpoint_step, last_checkpoint, refuse_damaged
from dphrl.runs.lock import disk_errors, exclusive
from dphrl.runs.run_dir import RunDir, base_of, cannot_be_made, open_run, run_dir_of
from dphrl.runs.training_log import append_warning
from dphrl.sampling.encoded_prompts import encode_prompts, task_for_policy
from dphrl.signals import heard, known
from dphrl.stages.model_check import check_model
from dphrl.stages.presample.training_prompts import training_ids
from dphrl.stages.train.check_resume import check_unchanged, find_checkpoint, prepare_to_go_on, training_start
from dphrl.stages.train.final_model import save_final
from dphrl.stages.train.launch import asked_ranks, is_first
from dphrl.stages.train.make_trainer import make_trainer, open_anchors

SIGNALS = known("SIGINT", "SIGTERM", "SIGUSR1")
"""What ends training after the running optimiser step, with a checkpoint: Ctrl-C, and how a cluster says time is up."""


def train(
    config: Config, *, base_dir: Path = Path(), progress: Progress = silent, allow_change: bool = False
) -> RunDir:
    """Make RUN/train/final; goes on from the last whole checkpoint.

    Args:
        allow_change: go on with other settings, data or processes than it was begun with, where its checkpoint can.
    Raises:
        Stopped: SIGINT, SIGTERM or SIGUSR1 came; a checkpoint was saved at the end of the running optimiser step.
        RunDirError: another training or pre-sampling is at work in the run.
        DphrlError: bad input, see the parts; or a loss that stays not finite.
    """
    run = run_dir_of(config)
    if not is_first():  # the first process holds the run for all that were launched with it
        with disk_errors(run.root):
            _train(run, config, base_dir, progress, allow_change=allow_change)
        return run
    with cannot_be_made(run):
        run.root.mkdir(parents=True, exist_ok=True)
    with exclusive(run.root), disk_errors(run.root):
        open_run(config, allow_change=allow_change)
        _train(run, config, base_dir, progress, allow_change=allow_change)
    return run


def _train(run: RunDir, config: Config, base_dir: Path, progress: Progress, *, allow_change: bool) -> None:
    """As `train`, in a run that no other training writes to."""
    if run.is_trained:
        if is_first():
            refuse_damaged(run.final)
        return
    check_installed()
    if asked_ranks() == 1:
        check_options_of_trl(config)
    from transformers import PrinterCallback

    from dphrl.engines.trl.accelerated import processes_of

    policy = load_policy(config)
    task = task_for_policy("task", config.task, policy, base_dir=base_dir)
    base = base_of(config, run)
    ids = set(training_ids(config, task, base, progress)) & set(encode_prompts(task, policy, config, progress).encoded)
    anchors = open_anchors(config, policy, base)
    prompts = [prompt for prompt in task.prompts if prompt.id in ids]
    start = training_start(config, policy, base, prompts, anchors, ranks=1)  # before an adapter renames the weights
    check_model(config, policy)
    trainer = make_trainer(config, run, task, policy, ids, anchors, progress)
    main = trainer.accelerator.is_main_process
    found = find_checkpoint(run.train, processes_of(trainer.accelerator))
    checkpoint = found.checkpoint
    start = replace(start, ranks=trainer.accelerator.num_processes)
    check_unchanged(run, start, checkpoint, allow=allow_change, write=main, progress=progress)
    if main:
        prepare_to_go_on(run, found, progress)
    if anchors and main:
        count = len(anchors)
        trainer.report_log_u = lambda log_u: progress("check anchors", count, count, f"mean |log u| {log_u:.1e} nats")
    trainer.report_note = lambda text: progress("warning", 0, 0, text)
    trainer.remove_callback(PrinterCallback)  # metrics go to a file, progress to the screen
    warn = partial(_warn, run, progress)
    trainer.step_guard.report = lambda bad, line: warn(TrainingWarning(bad.step, "loss", None, None, line))
    for callback in _callbacks(config, run, progress, warn):
        trainer.add_callback(callback)
    with _caught_signals() as asked:
        trainer.step_guard.asked = asked
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if trainer.step_guard.stopped and trainer.state.global_step < trainer.state.max_steps:
        raise _stopped(trainer.step_guard.stopped, last_checkpoint(run.train))
    save_final(config, run, policy, trainer)


def _stopped(number: int, checkpoint: Path | None) -> Stopped:
    return Stopped(number, f"ended by {signal.Signals(number).name}; step {checkpoint_step(checkpoint)} is saved")


@contextmanager
def _caught_signals() -> Iterator[Callable[[], int]]:
    """The number of the signal that asked this process to stop, 0 before.

    A second Ctrl-C stops at once. A second signal of the others does not: launchers pass on what the cluster has sent
    to every process already.
    """
    asked: list[int] = []

    def handler(number: int, frame: Any) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(number)

    with heard(SIGNALS, handler):
        yield lambda: asked[0] if asked else 0


def _callbacks(config: Config, run: RunDir, progress: Progress, warn: Callable[[TrainingWarning], None]) -> list[Any]:
    from dphrl.engines.trl.callbacks import CollapseWarnings, MetricsFile, ShowProgress

    return [
        MetricsFile(run.metrics),
        ShowProgress(progress, f"train {config.method}", config.train.updates),
        CollapseWarnings(run.metrics, run.warnings, warn),
    ]


def _warn(run: RunDir, progress: Progress, warning: TrainingWarning) -> None:
    """To the screen, and a line of RUN/train/warnings.jsonl."""
    append_warning(run.warnings, warning)
    progress(f"warning, step {warning.step}", 0, 0, warning.text)
