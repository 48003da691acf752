"""Config, policy, prompts and anchors -> the trainer of stage 2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dphrl.config import ANCHOR_METHODS, Config
from dphrl.errors import ConfigError, DataError
from dphrl.models import Policy, fingerprint
from dphrl.stages.rundir import RunDir
from dphrl.types import Anchor, Task


def open_anchors(config: Config, policy: Policy, base: RunDir) -> Sequence[Anchor] | None:
    """The anchors of a method that has use for them, else None.

    Raises:
        AnchorError: missing, damaged, or scored by another policy.
    """
    from dphrl.anchors import open_store

    if config.method not in ANCHOR_METHODS:
        return None
    return open_store(base.anchors, fingerprint(policy, config))


def make_trainer(
    config: Config, run: RunDir, task: Task, policy: Policy, ids: set[str], anchors: Sequence[Anchor] | None
) -> Any:
    """A `DPHTrainer` on the prompts with these ids.

    Raises:
        DataError: fewer prompts than a generation needs. ConfigError: batches that do not divide, or divided weights.
    """
    from accelerate import PartialState
    from datasets import Dataset

    from dphrl.trainers.settings import trainer_settings
    from dphrl.trainers.trl import DPHConfig, DPHTrainer
    from dphrl.verifiers import task_reward

    prompts = [p for p in task.prompts if p.id in ids]
    if len(prompts) < config.train.prompts_per_step:
        raise DataError(
            f"{len(prompts)} prompts to train on are fewer than train.prompts_per_step="
            f"{config.train.prompts_per_step}; lower it, give more prompts, or set --train.prompts all"
        )
    rows = [
        {"prompt": p.prompt if isinstance(p.prompt, str) else [dict(m) for m in p.prompt], "prompt_id": p.id}
        for p in prompts
    ]
    on_cpu = policy.model.device.type == "cpu"
    processes = PartialState(cpu=on_cpu).num_processes
    settings = trainer_settings(config, run.train, processes=processes) | {"use_cpu": on_cpu}
    trainer = DPHTrainer(
        model=policy.model,
        reward_funcs=task_reward(task),
        args=DPHConfig(**settings),
        train_dataset=Dataset.from_list(rows),
        processing_class=policy.tokenizer,
        anchors=anchors,
        encode=policy.encode,
    )
    if trainer.accelerator.num_processes != processes:
        raise ConfigError(
            f"batches were divided over {processes} processes, but {trainer.accelerator.num_processes} train; "
            "launch with torchrun --nproc_per_node N -m dphrl train ..."
        )
    _refuse_divided_weights(trainer.accelerator.state)
    return trainer


def _refuse_divided_weights(state: Any) -> None:
    """Said before the first step, not after the last: gathering weights for the final model is not built yet."""
    plugin = getattr(state, "deepspeed_plugin", None)
    if state.distributed_type.name == "FSDP" or (plugin is not None and plugin.zero_stage == 3):
        raise ConfigError(
            f"training with {state.distributed_type.name} divides the weights among ranks; the final model cannot be "
            "saved from there yet; launch with DDP or ZeRO-2 (recipes/accelerate), or save it yourself from DPHTrainer"
        )
