"""RUN/train/checkpoint-N: which checkpoints are whole, and at which step each was saved."""

from __future__ import annotations

import shutil
from pathlib import Path

CHECKPOINT_DONE = "dphrl-complete"
"""An empty file that the trainer writes into a checkpoint last: a kill while saving leaves a checkpoint without it."""


def last_checkpoint(folder: Path) -> Path | None:
    """The whole checkpoint with the highest step; one that was torn by a kill does not count."""
    whole = [path for path in folder.glob("checkpoint-*") if (path / CHECKPOINT_DONE).exists()]
    return max(whole, key=checkpoint_step, default=None)


def checkpoint_step(checkpoint: Path | None) -> int:
    """Optimiser steps that were done when the checkpoint was saved; 0 without a checkpoint."""
    return 0 if checkpoint is None else int(checkpoint.name.rpartition("-")[2])


def remove_torn_checkpoints(folder: Path) -> None:
    """Remove torn checkpoints, which would count among those that are kept and push out the last whole one."""
    for path in folder.glob("checkpoint-*"):
        if not (path / CHECKPOINT_DONE).exists():
            shutil.rmtree(path)
