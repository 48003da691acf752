"""The policy as TRL draws with it: whole, unwrapped, without gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from trl.distributed import DistributedBackend
from trl.models.utils import unwrap_model_for_generation


@contextmanager
def drawing_model(wrapped: Any, accelerator: Any, args: Any) -> Iterator[Any]:
    """TRL's own contexts around its `generate`.

    Args:
        wrapped: the model as the trainer calls it. args: a `DPHConfig`.
    """
    with (
        unwrap_model_for_generation(
            wrapped,
            accelerator,
            gather_deepspeed3_params=args.ds3_gather_for_generation,
            gradient_checkpointing_kwargs=args.gradient_checkpointing_kwargs,
        ) as model,
        torch.no_grad(),
        DistributedBackend(accelerator).summon_full_params(wrapped, recurse=False),
    ):
        yield getattr(model, "_orig_mod", model)  # a compiled model would be traced anew for every length


def is_sharded(accelerator: Any, *, fsdp: bool) -> bool:
    """Whether the weights lie on several processes, which must then make the same forwards."""
    return accelerator.num_processes > 1 and (fsdp or DistributedBackend(accelerator).is_zero3)
