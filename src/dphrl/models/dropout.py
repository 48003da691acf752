"""Dropout and jitter off, also where a model reads them from a number instead of a module."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

JITTER = {"jitter_noise", "input_jitter_noise"}
"""What routers of mixtures multiply their input with in training alone. Not PhiMoE's `router_jitter_noise`, which also
says how near two experts must be to be drawn from, in every mode."""


def turn_off_dropout(model: nn.Module) -> None:
    """Set every dropout and router's jitter of a model to 0, in place; its config, saved with it, stays as it is.

    `nn.Dropout` modules, and numbers that modules keep by a name with "drop" in it and hand to
    `nn.functional.dropout` or an attention kernel: OPT, XGLM, BioGPT, GPT-BigCode, `attention_dropout`, `layerdrop`.
    What a module reads from its config in the forward itself is not reached.
    """
    for module in model.modules():
        numbers: dict[str, Any] = vars(module)
        for name, value in numbers.items():
            of_module = isinstance(module, nn.modules.dropout._DropoutNd)
            noise = name == "p" if of_module else "drop" in name.lower() or name in JITTER
            if noise and isinstance(value, float):
                setattr(module, name, 0.0)


@torch.no_grad()
def other_in_training(model: Any) -> bool:
    """Whether a causal LM gives other logits in train mode than in eval mode, once `turn_off_dropout` is done.

    Its mode and torch's random numbers stay; its dropout is off from here on.
    """
    turn_off_dropout(model)
    training, vocabulary = model.training, model.config.get_text_config().vocab_size
    ids = torch.arange(5, 37, device=model.device)[None] * 7919 % vocabulary
    with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
        evaluated, *trained = (
            model.train(mode)(input_ids=ids, use_cache=False).logits.float() for mode in (False, True, True)
        )
    model.train(training)
    allowed = 1e-4 + 4 * torch.finfo(model.dtype).eps * float(evaluated.abs().max())
    return any(not float((logits - evaluated).abs().mean()) <= allowed for logits in trained)
