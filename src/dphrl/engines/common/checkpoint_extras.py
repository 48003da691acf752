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

from dphrl.engines.common.processes import Processes
from dphrl.errors import RunDirError
from dphrl.method.anchor_stats import AnchorStats

_NO_SETTING = frozenset({"params", "lr", "initial_lr"})
"""Entries of an optimiser's parameter group that its settings do not determine alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InFlight:
    """The state of one process between two optimiser steps that a checkpoint of transformers lacks."""

    loss: Tensor
    """Sum of losses since the last log line."""
    last_logged: int
    """Optimiser step of that line."""
    metrics: Mapping[str, Sequence[float | int]]
    """Metrics of the next log line, in its order."""
    anchor_stats: Sequence[AnchorStats]
    batches: Sequence[Mapping[str, Tensor]]
    """Micro-batches of the generation in use; none between two generations."""
    micro_step: int
    """Micro-batches that the generation was used for."""
    bad_in_a_row: int

    def save(self, checkpoint: str, processes: Processes) -> None:
        """Write this process's file of the checkpoint."""
        tensors = {"loss": self.loss}
        numbered = enumerate(self.metrics.items())  # a log line keeps their order
        tensors |= {f"metric/{i:04d}/{name}": torch.tensor(v, dtype=torch.float64) for i, (name, v) in numbered}
        if self.anchor_stats:
            tensors["anchors"] = torch.stack([stats.pack() for stats in self.anchor_stats])
        tensors |= {f"batch/{i}/{name}": x for i, batch in enumerate(self.batches) for name, x in batch.items()}
        whole = {name: x.detach().cpu().clone() for name, x in tensors.items()}  # slices of one tensor are refused
        facts = {name: str(getattr(self, name)) for name in ("last_logged", "micro_step", "bad_in_a_row")}
        save_file(whole, _file(checkpoint, processes), metadata=facts)

    @classmethod
    def load(
        cls, checkpoint: str, processes: Processes, *, micro_batches: int, rows: int, within: bool
    ) -> InFlight | None:
        """Read this process's file; None where there is none, of other ranks or an earlier version.

        Args:
            micro_batches: of a generation on this process now (count). rows: completions of each.
            within: whether the checkpoint was saved within a generation; between two nothing is lost but a mean.
        Raises:
            RunDirError: within a generation, and the file is missing or was cut into other batches.
        """
        path = _file(checkpoint, processes)
        if not path.exists():
            if within:
                raise _other_batches(path)
            return None
        with safe_open(path, "pt") as file:
            facts = {name: int(value) for name, value in file.metadata().items()}
            tensors = {name: file.get_tensor(name).to(processes.device) for name in file.keys()}  # noqa: SIM118
        batches: dict[int, dict[str, Tensor]] = {}
        for name in (n for n in tensors if n.startswith("batch/")):
            _, number, key = name.split("/", 2)
            batches.setdefault(int(number), {})[key] = tensors[name]
        sizes = {len(batch["completion_ids"]) for batch in batches.values()}
        if facts["micro_step"] and (len(batches) != micro_batches or sizes != {rows}):
            raise _other_batches(path)
        return cls(
            loss=tensors["loss"],
            metrics={n.split("/", 2)[2]: tensors[n].tolist() for n in sorted(tensors) if n.startswith("metric/")},
            anchor_stats=[AnchorStats.unpack(row[None]) for row in tensors.get("anchors", ())],
            batches=[batches[i] for i in sorted(batches)],
            **facts,
        )


def _file(checkpoint: str, processes: Processes) -> Path:
    return Path(checkpoint) / f"in-flight-{processes.rank}-of-{processes.count}.safetensors"


def _other_batches(path: Path) -> RunDirError:
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
    """Advance a new sampler by the permutations of the prompts that were already drawn, one for each pass."""
    generator = getattr(sampler, "generator", None)
    if generator is not None:
        for _ in range(passes):
            torch.randperm(sampler.num_samples, generator=generator)
