"""What a checkpoint of transformers lacks: the generation in use, the metrics of the next log line, the settings given
now, the order of prompts. With it a run that goes on from any optimiser step ends with the same weights and metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from dphrl.errors import RunDirError
from dphrl.method.anchor_stats import AnchorStats

_NO_SETTING = frozenset({"params", "lr", "initial_lr"})
"""Entries of an optimiser's group that its settings do not say, or not alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InFlight:
    """What one process has in hand between two optimiser steps."""

    loss: Tensor
    """Sum since the last log line."""
    last_logged: int
    """Optimiser step of that line."""
    metrics: Mapping[str, Sequence[float]]
    """Of the next log line, in its order."""
    anchor_stats: Sequence[AnchorStats]
    batches: Sequence[Mapping[str, Tensor]]
    """Micro-batches of the generation in use; none between two generations."""
    micro_step: int
    """Micro-batches that the generation was used for."""
    bad_in_a_row: int

    def save(self, path: Path) -> None:
        """A safetensors file."""
        tensors = {"loss": self.loss}
        numbered = enumerate(self.metrics.items())  # a log line keeps their order
        tensors |= {f"metric/{i:04d}/{name}": torch.tensor(v, dtype=torch.float64) for i, (name, v) in numbered}
        if self.anchor_stats:
            tensors["anchors"] = torch.stack([stats.pack() for stats in self.anchor_stats])
        for i, batch in enumerate(self.batches):
            tensors |= {f"batch/{i}/{name}": x for name, x in batch.items()}
        facts = {
            "last_logged": self.last_logged,
            "micro_step": self.micro_step,
            "bad_in_a_row": self.bad_in_a_row,
        }
        whole = {name: x.detach().cpu().clone() for name, x in tensors.items()}  # slices of one tensor are refused
        save_file(whole, path, metadata={name: str(value) for name, value in facts.items()})

    @classmethod
    def load(cls, path: Path, device: torch.device) -> InFlight:
        """The record of a file that `save` wrote."""
        with safe_open(path, "pt") as file:
            facts = {name: int(value) for name, value in file.metadata().items()}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
        batches: dict[int, dict[str, Tensor]] = {}
        for name in (n for n in tensors if n.startswith("batch/")):
            _, number, key = name.split("/", 2)
            batches.setdefault(int(number), {})[key] = tensors[name].to(device)
        metrics = sorted(name for name in tensors if name.startswith("metric/"))
        stats = tensors.get("anchors", torch.empty(0, 6))
        return cls(
            loss=tensors["loss"].to(device),
            metrics={name.split("/", 2)[2]: tensors[name].tolist() for name in metrics},
            anchor_stats=[AnchorStats.unpack(row[None].to(device)) for row in stats],
            batches=[batches[i] for i in sorted(batches)],
            **facts,
        )

    def check_fits(self, path: Path, *, micro_batches: int, rows: int) -> None:
        """Refuse a generation in use that was cut otherwise than now.

        Args:
            micro_batches: of a generation on this process (count). rows: completions of each.
        Raises:
            RunDirError: by the settings that decide it.
        """
        sizes = {len(batch["completion_ids"]) for batch in self.batches}
        if self.micro_step and (len(self.batches) != micro_batches or sizes != {rows}):
            raise other_batches(path)


def in_flight_file(checkpoint: str, rank: int, ranks: int) -> Path:
    """Where a process keeps its record in a checkpoint."""
    return Path(checkpoint) / f"in-flight-{rank}-of-{ranks}.safetensors"


def other_batches(path: Path) -> RunDirError:
    """Of a checkpoint within a generation whose record `path` is missing or does not fit."""
    return RunDirError(
        f"{path.parent} was saved within a generation, and {path.name} does not fit the batches of now: it goes on "
        "only with the number of processes, train.micro_batch, train.prompts_per_step and train.group_size that it was "
        f"saved with; set them as they were, or delete {path.parent} to go on from the checkpoint before it"
    )


class GivenSettings:
    """Settings of an optimiser and its schedule as they were given, which win over those in a checkpoint."""

    def __init__(self, optimizer: Any, scheduler: Any) -> None:
        self._groups = [{k: v for k, v in g.items() if k not in _NO_SETTING} for g in optimizer.param_groups]
        self._base_lrs = list(getattr(scheduler, "base_lrs", ()))

    def put_back(self, optimizer: Any, scheduler: Any) -> None:
        """Set them again, and the learning rate that they give at the scheduler's step."""
        for group, settings in zip(optimizer.param_groups, self._groups, strict=True):
            group.update(settings)
        if not isinstance(scheduler, LambdaLR):
            return
        scheduler.base_lrs = self._base_lrs
        factors = [course(scheduler.last_epoch) for course in scheduler.lr_lambdas]
        for group, base, factor in zip(optimizer.param_groups, self._base_lrs, factors, strict=True):
            group["initial_lr"], group["lr"] = base, base * factor
        scheduler._last_lr = [group["lr"] for group in optimizer.param_groups]  # what is logged


def pass_over(sampler: Any, passes: int) -> None:
    """Lead a sampler that starts anew on by the permutations of the prompts that were drawn, one for each pass."""
    generator = getattr(sampler, "generator", None)
    if generator is not None:
        for _ in range(passes):
            torch.randperm(sampler.num_samples, generator=generator)
