"""Config, policy, prompts and anchors -> the trainer of stage 2."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from dphrl.config.objective import ANCHOR_METHODS
from dphrl.config.root import Config
from dphrl.errors import ConfigError, DataError
from dphrl.models.fingerprint import fingerprint
from dphrl.models.policy import Policy
from dphrl.progress import Progress, silent
from dphrl.runs.run_dir import RunDir
from dphrl.stages.train.launch import Launch, check_gpus, check_launch, check_precision
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
    config: Config,
    run: RunDir,
    task: Task,
    policy: Policy,
    ids: set[str],
    anchors: Sequence[Anchor] | None,
    progress: Progress = silent,
) -> Any:
    """A `DPHTrainer` on the prompts with these ids; says how many processes train, and how weights lie among them.

    With `config.lora` the policy's own weights stay as they are, frozen, and the adapter beside them is trained.

    Raises:
        DataError: fewer prompts than a generation needs. ConfigError: batches that do not divide, or a launch that gave
            less than it asked for.
    """
    from datasets import Dataset

    from dphrl.engines.trl.dph_config import DPHConfig
    from dphrl.engines.trl.trainer import DPHTrainer
    from dphrl.engines.trl.tried_options import refused_by_libraries
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
    settings = _settings(config, run, policy)
    with refused_by_libraries(config):
        args = DPHConfig(**settings)
    with _refused_by_libraries(config):
        trainer = DPHTrainer(
            model=policy.model,
            reward_funcs=task_reward(task),
            args=args,
            train_dataset=Dataset.from_list(rows),
            processing_class=policy.tokenizer,
            peft_config=adapter(config),
            anchors=anchors,
            encode=policy.encode,
        )
    launch = Launch.of(trainer.accelerator.state)
    check_launch(launch)
    if trainer.accelerator.is_main_process:
        progress("processes", launch.ranks, launch.ranks, str(launch))
    return trainer


def adapter(config: Config) -> Any:
    """PEFT's settings of the LoRA adapter; None where all weights are trained.

    Raises:
        ConfigError: PEFT is not installed.
    """
    lora = config.lora
    if lora.r is None:
        return None
    try:
        from peft import LoraConfig
    except ImportError:
        raise ConfigError("lora.r trains an adapter, which needs PEFT: pip install 'dphrl[lora]'") from None
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.scale,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules or "all-linear",
        task_type="CAUSAL_LM",
    )


def _settings(config: Config, run: RunDir, policy: Policy) -> dict[str, Any]:
    """Arguments of `DPHConfig` on the processes there are."""
    import torch
    from accelerate import PartialState

    from dphrl.engines.trl.config_to_trl import trainer_settings
    from dphrl.engines.trl.vllm_options import engine_settings

    check_precision(config.method, config.model.dtype)
    device = policy.model.device.type
    processes = PartialState(cpu=device == "cpu").num_processes
    check_gpus(device, processes, torch.cuda.device_count())
    settings = trainer_settings(config, run.train, processes=processes) | {"use_cpu": device == "cpu"}
    return engine_settings(settings, policy.stop_ids)


@contextmanager
def _refused_by_libraries(config: Config) -> Iterator[None]:
    """What PEFT, TRL and the hub refuse in the user's settings, as the user's mistake."""
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    try:
        yield
    except (HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled) as error:
        raise ConfigError(
            f"train.trl.push_to_hub: the repository cannot be made: {error}; log in, or leave it out"
        ) from None
    except ValueError as error:
        if config.lora.r is None:
            raise
        raise ConfigError(f"lora.target_modules={config.lora.target_modules}: {error}") from None
