"""What the parts of `engines.common` are told of accelerate: the processes, and what a forward needs."""

from __future__ import annotations

from functools import partial
from typing import Any

from accelerate.utils import gather_object
from trl.models.utils import disable_gradient_checkpointing

from dphrl.engines.common.forward.row_scorer import Surroundings
from dphrl.engines.common.processes import Processes


def processes_of(accelerator: Any) -> Processes:
    """The processes that train together, as this one sees them."""
    rank, count = int(accelerator.process_index), int(accelerator.num_processes)
    return Processes(rank, count, accelerator.device, accelerator.gather, gather_object)


def surroundings_of(accelerator: Any, args: Any) -> Surroundings:
    """Of a forward under these trainer's arguments."""
    checkpoints = {"gradient_checkpointing_kwargs": args.gradient_checkpointing_kwargs}
    return Surroundings(
        autocast=accelerator.autocast,
        unwrap=accelerator.unwrap_model,
        without_checkpoints=partial(disable_gradient_checkpointing, **checkpoints),
        bfloat16=args.bf16,
    )
