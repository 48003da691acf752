"""Whether the weights that were loaded from a checkpoint are those that were trained when it was saved."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dphrl.errors import RunDirError, listed


def weight_digests(model: nn.Module) -> dict[str, str]:
    """Name -> CRC-32 of the bytes of each weight that is trained, 8 hex digits; of divided weights this process's part.

    Frozen weights are left out: they are those of the initial model, which the training's own record compares.
    """
    return {name: _crc32(weight) for name, weight in model.named_parameters() if weight.requires_grad}


def check_weights(
    found: Mapping[str, str], saved: Sequence[Mapping[str, str]], checkpoint: Path, part: tuple[int, int] = (0, 1)
) -> None:
    """Compare the weights in memory with those that were trained.

    Args:
        found: `weight_digests` of the model that was loaded.
        saved: the same of each process when the checkpoint was saved, or of one where all of them held all weights;
            none where nothing was found out.
        part: which part of divided weights this process holds, and of how many; (0, 1) = all. Weights that were divided
            otherwise cannot be compared.
    Raises:
        RunDirError: names the weights that differ.
    """
    number, parts = part
    if len(saved) != parts:
        return
    wanted = saved[number]
    wrong = sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))
    if wrong:
        raise RunDirError(
            f"{checkpoint} was read, but {len(wrong)} of {len(wanted)} weights are not those that were saved: "
            f"{listed(wrong)}; the versions of transformers and PEFT may have changed: set them as they were "
            "(versions.json), or delete the checkpoints to begin the training anew"
        )


def _crc32(weight: Tensor) -> str:
    own = getattr(weight, "to_local", lambda: weight)()
    content: Any = own.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    return f"{zlib.crc32(content):08x}"
