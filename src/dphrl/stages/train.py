"""Stage 2: online training of the policy with one of the methods; checkpoints, metrics.jsonl, the final model."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from dphrl.config import Config
from dphrl.errors import AnchorError, ConfigError, DataError, nearest
from dphrl.files import write_text
from dphrl.models import Policy, check_lengths, fingerprint, load_policy, save_policy
from dphrl.progress import Progress, silent
from dphrl.stages.presample import training_ids
from dphrl.stages.rundir import RunDir, base_of, open_run
from dphrl.tasks import load_task
from dphrl.types import Anchor, Task

LOG_U_TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2, "float16": 1e-2}
"""Largest mean |log u| of the untrained policy on its own anchors (nats): beyond it they were scored otherwise."""

CLIP_HIGHER = 0.28
"""DAPO's upper clip (arXiv:2503.14476), also of DPH-RL; plain GRPO clips at `clip_low` on both sides."""


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
    task = load_task("task", config.task, base_dir=base_dir)
    policy = load_policy(config)
    base = base_of(config, run)
    ids = set(training_ids(config, task, base))
    anchors = _anchors(config, policy, base)
    trainer = _trainer(config, run, task, policy, ids, anchors)
    checkpoint = last_checkpoint(run.train)
    _start_metrics(run.metrics, checkpoint)
    if anchors and checkpoint is None:
        _check_reference(trainer.initial_log_u(), config)
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


def trainer_settings(config: Config, output_dir: Path, *, processes: int = 1) -> dict[str, Any]:
    """Arguments of `DPHConfig` for a config.

    Raises:
        ConfigError: batches that do not divide over updates, micro-batches and processes; a wrong key of `train.trl`.
    """
    train, objective, sampling = config.train, config.objective, config.sampling
    per_update = train.prompts_per_step * train.group_size // train.updates
    micro = min(train.micro_batch, per_update // processes)
    if micro == 0 or per_update % (micro * processes):
        raise ConfigError(
            f"{per_update} completions an update do not divide into micro-batches of {micro} on {processes} processes; "
            "change train.micro_batch, train.prompts_per_step or train.updates"
        )
    accumulation = per_update // (micro * processes)
    clip_high = train.clip_high or (train.clip_low if config.method == "grpo" else CLIP_HIGHER)
    ours: dict[str, Any] = {
        "output_dir": str(output_dir),
        "method": config.method,
        "divergence": objective.divergence,
        "alpha": objective.alpha,
        "eta": objective.eta,
        "log_u_cap": objective.log_u_cap,
        "anchors_per_step": objective.anchors_per_step,
        "beta": objective.beta if config.method == "rkl" else 0.0,
        "kl_estimator": objective.kl_estimator,
        "advantage": train.advantage,
        "max_resample": train.max_resample,
        "epsilon": train.clip_low,
        "epsilon_high": clip_high,
        "loss_type": "dapo",  # token-mean over the optimiser step
        "scale_rewards": "group",
        "num_generations": train.group_size,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": accumulation,
        "steps_per_generation": accumulation * train.updates,
        "max_steps": train.steps * train.updates,
        "max_completion_length": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "learning_rate": train.learning_rate,
        "lr_scheduler_type": train.lr_schedule if train.warmup_steps == 0 else _with_warmup(train.lr_schedule),
        "warmup_steps": train.warmup_steps,
        "weight_decay": train.weight_decay,
        "max_grad_norm": train.max_grad_norm,
        "save_steps": train.save_every * train.updates,  # at the end of a generation, so that resuming draws anew
        "save_total_limit": 2,
        "logging_steps": train.log_every,
        "logging_first_step": False,
        "seed": config.seed,
        "bf16": config.model.dtype == "bfloat16",
        "fp16": False,
        "gradient_checkpointing": train.gradient_checkpointing,
        "use_cpu": config.model.device == "cpu",
        "chat_template_kwargs": dict(config.model.chat_template_args) or None,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    return ours | _extra_settings(config.train.trl, ours)


def _with_warmup(schedule: str) -> str:
    return "constant_with_warmup" if schedule == "constant" else schedule


def _extra_settings(extra: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    from trl import GRPOConfig

    free = {"report_to", "loss_type", "scale_rewards", "logging_first_step", "save_total_limit", "dataloader_pin_memory"}
    known = {f.name for f in fields(GRPOConfig)}
    for key in extra:
        if key not in known:
            raise ConfigError(f"train.trl.{key} is no setting of TRL's GRPOConfig{nearest(key, known)}")
        if key in ours and key not in free:
            raise ConfigError(f"train.trl.{key} is set by dphrl itself; use the setting of dphrl (`dphrl train --help`)")
    return extra


def _anchors(config: Config, policy: Policy, base: RunDir) -> tuple[Anchor, ...] | None:
    from dphrl.anchors import read_anchors
    from dphrl.trainers.trl import ANCHOR_METHODS

    if config.method not in ANCHOR_METHODS:
        return None
    return read_anchors(base.anchors, fingerprint(policy, config))


def _trainer(
    config: Config, run: RunDir, task: Task, policy: Policy, ids: set[str], anchors: tuple[Anchor, ...] | None
) -> Any:
    from accelerate import PartialState
    from datasets import Dataset

    from dphrl.trainers.trl import DPHConfig, DPHTrainer
    from dphrl.verifiers import reward_function

    prompts = [p for p in task.prompts if p.id in ids]
    if len(prompts) < config.train.prompts_per_step:
        raise DataError(
            f"{len(prompts)} prompts to train on are fewer than train.prompts_per_step="
            f"{config.train.prompts_per_step}; lower it, give more prompts, or set --train.prompts all"
        )
    check_lengths(policy, prompts, [policy.encode(p) for p in prompts], config.sampling.max_new_tokens)
    rows = [
        {"prompt": p.prompt if isinstance(p.prompt, str) else [dict(m) for m in p.prompt], "prompt_id": p.id}
        for p in prompts
    ]
    settings = trainer_settings(config, run.train, processes=PartialState().num_processes)
    if policy.model.device.type == "cpu":
        settings["use_cpu"] = True
    return DPHTrainer(
        model=policy.model,
        reward_funcs=reward_function(task),
        args=DPHConfig(**settings),
        train_dataset=Dataset.from_list(rows),
        processing_class=policy.tokenizer,
        anchors=anchors,
        encode=policy.encode,
    )


def _check_reference(log_u_abs_mean: float, config: Config) -> None:
    """The untrained policy must give its anchors the stored log-probabilities."""
    tolerance = LOG_U_TOLERANCE[config.model.dtype]
    if not log_u_abs_mean <= tolerance:
        raise AnchorError(
            f"before the first step the anchors' mean |log u| is {log_u_abs_mean:.2g} nats, more than {tolerance}: they "
            "were scored with other settings or another padding rule; pre-sample again on this machine"
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
