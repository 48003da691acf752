"""How many processes train, and how the weights lie among them.

A launch that gives fewer processes than were asked for is refused.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dphrl.config.objective import ANCHOR_METHODS
from dphrl.errors import ConfigError

SEVERAL = 2
"""Processes that were asked for at the least, where the launch says only that there should be more than one."""

LAYOUTS: dict[str, str] = {
    "NO": "the whole model on each",
    "MULTI_CPU": "DDP, the whole model on each",
    "MULTI_GPU": "DDP, the whole model on each",
    "FSDP": "FSDP2, the weights divided",
    "DEEPSPEED": "DeepSpeed ZeRO-{stage}, the weights {divided}",
}
"""accelerate's name of a layout -> in words."""

ASKED: dict[str, str] = {"ACCELERATE_USE_FSDP": "FSDP", "ACCELERATE_USE_DEEPSPEED": "DEEPSPEED"}
"""What `accelerate launch` sets -> accelerate's name of the layout it stands for."""

SHORT = {"float32": "", "bfloat16": "bf16", "pure_bfloat16": "", "float16": ""}
"""`model.dtype` -> accelerate's mixed precision that computes the same; "" = none."""

HOW = "launch with `torchrun --nproc_per_node N -m dphrl train ...` or `accelerate launch`, see `dphrl docs scale`"


@dataclass(frozen=True, slots=True)
class Launch:
    """The processes that really run."""

    ranks: int
    layout: str
    """accelerate's name: NO, MULTI_CPU, MULTI_GPU, FSDP, DEEPSPEED."""
    zero_stage: int | None
    """DeepSpeed's; None elsewhere."""
    device: str
    """cpu or cuda."""

    @classmethod
    def of(cls, state: Any) -> Launch:
        """Read accelerate's state, once a trainer has been made."""
        plugin = getattr(state, "deepspeed_plugin", None)
        stage = None if plugin is None else int(plugin.zero_stage)
        return cls(int(state.num_processes), state.distributed_type.name, stage, str(state.device.type))

    def __str__(self) -> str:
        words = LAYOUTS.get(self.layout, self.layout)
        words = words.format(stage=self.zero_stage, divided="divided" if self.zero_stage == 3 else "whole on each")
        if self.ranks == 1 and self.layout == "NO":
            return f"1 process on {self.device}"
        return f"{self.ranks} processes on {self.device}, {words}"


def asked_ranks(environment: Mapping[str, str] = os.environ) -> int:
    """Processes that whatever started this one wanted to train together; 1 where nothing says more."""
    for name in ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE"):
        if environment.get(name, "").isdigit():
            return int(environment[name])
    # `accelerate launch --cpu --num_processes 2` says where to meet, and starts one process that nobody meets.
    alone = "ACCELERATE_MIXED_PRECISION" in environment and "MASTER_PORT" in environment
    return SEVERAL if alone and "LOCAL_RANK" not in environment else 1


def is_first(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this is the first of the processes that were launched together, or the only one; known before they meet.

    As accelerate reads what launchers set.
    """
    names = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
    return next((environment[name] for name in names if name in environment), "0") == "0"


def check_alone(stage: str, environment: Mapping[str, str] = os.environ) -> None:
    """Refuse a stage other than training that was started several times over: each would write the same files.

    Raises:
        ConfigError: by the number of processes.
    """
    ranks = asked_ranks(environment)
    if ranks > 1:
        raise ConfigError(
            f"dphrl {stage} is one process, but {ranks} or more were launched; start it without torchrun or accelerate "
            "(sampling.tensor_parallel or --shard i/N use more GPUs), and launch `dphrl train` alone on all of them"
        )


def check_launch(launch: Launch, environment: Mapping[str, str] = os.environ) -> None:
    """Refuse a launch that gave less than it asked for; a training that runs alone in silence costs days.

    Raises:
        ConfigError: fewer processes than asked, or a layout that accelerate dropped.
    """
    ranks = asked_ranks(environment)
    if launch.ranks < ranks:
        raise ConfigError(
            f"{ranks} or more processes were asked for, but {launch.ranks} trains; on a CPU `accelerate launch --cpu` "
            f"starts a single one however many it is asked for: use torchrun. {HOW}"
        )
    for name, layout in ASKED.items():
        if environment.get(name, "false").lower() == "true" and launch.layout != layout:
            raise ConfigError(
                f"the launch asked for {layout}, but what runs is {launch}: accelerate divides weights on GPUs only; "
                "use the file of `dphrl recipes accelerate/ddp`, or torchrun, here"
            )


def check_gpus(launch_device: str, ranks: int, visible: int) -> None:
    """Refuse one process that sees several GPUs: nothing would use the others.

    Args:
        launch_device: cpu or cuda.
        ranks: processes that train (count).
        visible: GPUs that this process sees (count).
    Raises:
        ConfigError: with both remedies.
    """
    if launch_device == "cuda" and ranks == 1 and visible > 1:
        raise ConfigError(
            f"1 process sees {visible} GPUs and would train on one; {HOW}, or choose one with CUDA_VISIBLE_DEVICES=0"
        )


def check_precision(method: str, dtype: str, environment: Mapping[str, str] = os.environ) -> None:
    """Refuse to train anchors in another precision than they were scored in: u would not be 1 for the unchanged policy.

    Refuse float32 weights, too, where pure 16-bit ones were asked for by name.

    Args:
        method: of the config.
        dtype: `model.dtype`.
    Raises:
        ConfigError: the launch's mixed precision is neither off nor the model's own, or DeepSpeed is to train pure
            16-bit weights.
    """
    pure = dtype == "pure_bfloat16"
    if pure and environment.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true":
        raise ConfigError(
            "model.dtype=pure_bfloat16 under DeepSpeed, which keeps float32 weights beside 16-bit ones; use bfloat16"
        )
    launched = environment.get("ACCELERATE_MIXED_PRECISION", "no")
    if (pure or method in ANCHOR_METHODS) and launched not in ("no", SHORT[dtype]):
        fitting = f"no or {SHORT[dtype]}" if SHORT[dtype] else "no"
        raise ConfigError(
            f"the launch computes in {launched}, which model.dtype={dtype} does not; add --mixed_precision {fitting} "
            "to `accelerate launch`, or change model.dtype and, where anchors were scored with it, pre-sample again"
        )
