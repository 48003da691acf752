"""What transformers leaves out of a checkpoint, so that a run that goes on from any optimiser step ends with the same
weights and the same metrics: the generation in use, the metrics of the next log line, the order of prompts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from trl import GRPOTrainer

from dphrl.errors import RunDirError
from dphrl.method.anchor_stats import AnchorStats

_NO_SETTING = frozenset({"params", "lr", "initial_lr"})
"""Entries of an optimiser's group that its settings do not say, or not alone."""


class ExactResume(GRPOTrainer):  # type: ignore[misc]
    """Checkpoints at any optimiser step that lose nothing, each rank's part in a file of its own."""

    _sampler: Any = None
    _anchor_stats: list[AnchorStats]

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        self._sampler = super()._get_train_sampler(*args, **kwargs)
        return self._sampler

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
        """Nothing more for a run that goes on from its last step: transformers would train one step too many."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return [], None
        batches: tuple[list[Any], Any] = super().get_batch_samples(*args, **kwargs)
        return batches

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        save_file(self._tensors(), self._file(output_dir), metadata={k: str(v) for k, v in self._facts().items()})

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)
        if checkpoint is not None:
            self._restore(self._file(checkpoint))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """The settings given now win over those in the checkpoint; TRL's sampler starts anew and is led on."""
        groups = [{k: v for k, v in g.items() if k not in _NO_SETTING} for g in self.optimizer.param_groups]
        base_lrs = list(getattr(self.lr_scheduler, "base_lrs", ()))
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        self.state.compute_steps(self.args, self.state.max_steps)  # log_every, save_every
        for group, settings in zip(self.optimizer.param_groups, groups, strict=True):
            group.update(settings)
        if isinstance(self.lr_scheduler, LambdaLR):
            self.lr_scheduler.base_lrs = base_lrs
            for group, base, share in zip(
                self.optimizer.param_groups, base_lrs, self.lr_scheduler.lr_lambdas, strict=True
            ):
                group["initial_lr"], group["lr"] = base, base * share(self.lr_scheduler.last_epoch)
            self.lr_scheduler._last_lr = [group["lr"] for group in self.optimizer.param_groups]  # what is logged
        generator = getattr(self._sampler, "generator", None)
        if generator is not None:  # one permutation of the prompts was drawn for each pass that is over
            for _ in range(int(self.state.epoch)):
                torch.randperm(self._sampler.num_samples, generator=generator)

    def _generation_steps(self) -> int:
        """Micro-batches that one generation is used for."""
        return int(self.args.steps_per_generation * self.num_iterations)

    def _tensors(self) -> dict[str, Tensor]:
        found = {"loss": self._tr_loss}
        metrics = enumerate(self._metrics["train"].items())  # numbered: a log line keeps their order
        found |= {f"metric/{i:04d}/{name}": torch.tensor(v, dtype=torch.float64) for i, (name, v) in metrics}
        if self._anchor_stats:
            found["anchors"] = torch.stack([stats.pack() for stats in self._anchor_stats])
        if self._step % self._generation_steps():
            for i, batch in enumerate(self._buffered_inputs):
                found |= {f"batch/{i}/{k}": v for k, v in batch.items() if isinstance(v, Tensor)}
        return {k: v.detach().cpu().clone() for k, v in found.items()}  # clones: slices of one tensor are refused

    def _facts(self) -> dict[str, int]:
        return {"last_logged": self._globalstep_last_logged, "micro_step": self._step % self._generation_steps()}

    def _take_facts(self, facts: Mapping[str, int]) -> None:
        self._globalstep_last_logged = facts["last_logged"]
        self._step = facts["micro_step"]

    def _file(self, checkpoint: str) -> Path:
        ranks = self.accelerator.num_processes
        return Path(checkpoint) / f"in-flight-{self.accelerator.process_index}-of-{ranks}.safetensors"

    def _restore(self, path: Path) -> None:
        if not path.exists():
            if self.state.global_step * self.args.gradient_accumulation_steps % self._generation_steps():
                raise _of_other_batches(path)
            return  # of other ranks, or of an earlier version: between two generations nothing is lost but a mean
        device = self.accelerator.device
        with safe_open(path, "pt") as file:
            facts = {name: int(value) for name, value in file.metadata().items()}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
        self._tr_loss = tensors["loss"].to(device)
        names = sorted(name for name in tensors if name.startswith("metric/"))
        self._metrics["train"].update({n.split("/", 2)[2]: tensors[n].tolist() for n in names})
        if "anchors" in tensors:
            self._anchor_stats[:] = [AnchorStats.unpack(row[None].to(device)) for row in tensors["anchors"]]
        batches: dict[int, dict[str, Tensor]] = {}
        for name in (n for n in tensors if n.startswith("batch/")):
            _, number, key = name.split("/", 2)
            batches.setdefault(int(number), {})[key] = tensors[name].to(device)
        if facts["micro_step"]:
            rows = {len(b["completion_ids"]) for b in batches.values()}
            if len(batches) != self.args.steps_per_generation or rows != {self.args.per_device_train_batch_size}:
                raise _of_other_batches(path)
            self._buffered_inputs = [batches[i] for i in range(len(batches))]
        self._take_facts(facts)


def _of_other_batches(path: Path) -> RunDirError:
    return RunDirError(
        f"{path.parent} was saved within a generation, and {path.name} does not fit the batches of now: it goes on "
        "only with the number of processes, train.micro_batch, train.prompts_per_step and train.group_size that it was "
        f"saved with; set them as they were, or delete {path.parent} to go on from the checkpoint before it"
    )
