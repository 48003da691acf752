"""Stage 2: online training of the policy with one of the methods; checkpoints, metrics.jsonl, the final model."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dphrl.config import Config
from dphrl.errors import AnchorError
from dphrl.files import write_text
from dphrl.models import load_policy, save_policy
from dphrl.progress import Progress, silent
from dphrl.stages.prompts import fitting, load_prompts
from dphrl.stages.rundir import RunDir, base_of, open_run
from dphrl.stages.sets import training_ids
from dphrl.stages.trainer import make_trainer, open_anchors

LOG_U_TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2, "float16": 1e-2}
"""Largest mean |log u| of the untrained policy on its own anchors (nats): beyond it they were scored otherwise."""


def train(config: Config, *, base_dir: Path, progress: Progress = silent) -> RunDir:
    """Make RUN/train/final; goes on from the last whole checkpoint.

    Raises:
        KeyboardInterrupt: Ctrl-C; a checkpoint was saved at the end of the running generation.
        DphrlError: bad input, see the parts.
    """
    from transformers import PrinterCallback

    run = open_run(config)
    if (run.final / "config.json").exists():
        return run
    policy = load_policy(config)
    task = load_prompts("task", config.task, policy, base_dir=base_dir)
    base = base_of(config, run)
    ids = set(training_ids(config, task, base, progress)) & set(fitting(task, policy, config, progress).encoded)
    anchors = open_anchors(config, policy, base)
    trainer = make_trainer(config, run, task, policy, ids, anchors)
    checkpoint = last_checkpoint(run.train)
    _start_metrics(run.metrics, checkpoint)
    if anchors and checkpoint is None:
        log_u = trainer.initial_log_u()
        _check_reference(log_u, config)
        progress("check anchors", len(anchors), len(anchors), f"mean |log u| {log_u:.1e} nats")
    trainer.remove_callback(PrinterCallback)  # metrics go to a file, progress to the screen
    with _stop_on_interrupt() as interrupted:
        for callback in _callbacks(config, run, progress, interrupted):
            trainer.add_callback(callback)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if interrupted():
        raise KeyboardInterrupt
    if trainer.accelerator.is_main_process:
        save_policy(policy, trainer.accelerator.unwrap_model(trainer.model), run.final)
    trainer.accelerator.wait_for_everyone()
    return run


def last_checkpoint(folder: Path) -> Path | None:
    """The whole checkpoint with the highest step; one that was torn by a kill does not count."""
    from dphrl.trainers.trl import CHECKPOINT_DONE

    whole = [p for p in folder.glob("checkpoint-*") if (p / CHECKPOINT_DONE).exists()]
    return max(whole, key=lambda p: int(p.name.rpartition("-")[2]), default=None)


def _check_reference(log_u_abs_mean: float, config: Config) -> None:
    """The untrained policy must give its anchors the stored log-probabilities."""
    tolerance = LOG_U_TOLERANCE[config.model.dtype]
    if not log_u_abs_mean <= tolerance:
        raise AnchorError(
            f"before the first step the anchors' mean |log u| is {log_u_abs_mean:.2g} nats, more than {tolerance}: "
            "they were scored with other settings or another padding rule; pre-sample again on this machine"
        )


def _start_metrics(path: Path, checkpoint: Path | None) -> None:
    """Drop lines of steps that are trained again."""
    step = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    kept = [line for line in lines if line and json.loads(line)["step"] <= step]
    write_text(path, "".join(f"{line}\n" for line in kept))


@contextmanager
def _stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C asks for a stop at the end of the generation, the second one stops at once."""
    asked = threading.Event()

    def handler(number: int, frame: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:  # a parent process handles it
        yield asked.is_set
        return
    signal.signal(signal.SIGINT, handler)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def _callbacks(config: Config, run: RunDir, progress: Progress, interrupted: Callable[[], bool]) -> list[Any]:
    from dphrl.trainers.callbacks import MetricsFile, ShowProgress, StopAtGeneration

    return [
        MetricsFile(run.metrics),
        ShowProgress(progress, f"train {config.method}", config.train.updates),
        StopAtGeneration(interrupted, config.train.updates),
    ]
