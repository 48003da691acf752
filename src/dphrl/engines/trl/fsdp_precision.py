"""What FSDP2 rounds to 16 bits beside the products that a launch with mixed precision asks for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch


def round_products_alone(plugin: Any) -> None:
    """Let FSDP2 add up gradients, and give log-probabilities back, in float32, as DDP does.

    accelerate's policy for bf16 rounds the gradients of each rank before they are added up, and all that the model's
    forward returns: to 16 bits a log-probability of -5 is known to 0.03. Weights are still gathered in 16 bits: kept in
    float32, autocast would hold a 16-bit copy of every layer on every rank until backward.

    Args:
        plugin: accelerate's settings of FSDP, before a model is wrapped; those without mixed precision, and FSDP1's,
            stay as they are.
    """
    policy = plugin.mixed_precision_policy
    if plugin.fsdp_version == 2 and policy is not None:
        plugin.mixed_precision_policy = replace(policy, reduce_dtype=torch.float32, output_dtype=None)
