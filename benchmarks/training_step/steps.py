"""A step of TRL's trainer, of ours, and of a plain loop over as many tokens; their time and their memory."""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer
from trl.kernels.chunked_logprob import ChunkedLogProbFunction

from dphrl import DPHConfig, DPHTrainer
from dphrl.anchors import mean_prompt_length, open_store, prompt_numbers
from dphrl.config.objective import ANCHOR_METHODS
from dphrl.method.anchor_order import AnchorOrder, together_by_length
from dphrl.models.scoring import pad_sequences
from dphrl.types import Anchor
from training_step.world import MADE, PAD, World

HEAD_COLUMNS = 32_768
"""Of the vocabulary that TRL's head has at once."""

VARIANTS: dict[str, dict[str, Any]] = {
    "trl": {},
    "grpo": {"method": "grpo"},
    "bf16": {"method": "grpo", "bf16": True},
    "dph": {"method": "dph", "divergence": "forward_kl", "eta": 0.2},
    "rkl": {"method": "rkl", "kl_estimator": "k3", "beta": 0.1},
    "replay": {"method": "replay", "eta": 0.2},
    "definition": {"method": "dph", "form": "definition", "divergence": "js", "eta": 0.2},
}
"""TRL's own GRPOTrainer, and settings of ours."""

Seconds = tuple[float, float]
"""By the clock and by the processor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How completions are cut into steps."""

    group: int
    groups: int = 1
    """Of a micro-batch, which is an optimiser step."""
    updates: int = 2
    """Optimiser steps of a generation; from 2 on a generation is scored once more, for PPO's ratio."""
    trl_splits: int = 1
    """Micro-batches that TRL's trainer cuts an optimiser step into, where its memory would not do."""
    ratio: float = 0.125
    """Anchors a completion."""
    gpu: bool = False

    @property
    def micro(self) -> int:
        return self.group * self.groups

    @property
    def prompts(self) -> int:
        """Of a generation."""
        return self.groups * self.updates


def seconds(called: Callable[[], object], *, gpu: bool) -> Seconds:
    """Until the device has finished too."""
    if gpu:
        torch.cuda.synchronize()
    clock, processor = time.perf_counter(), time.process_time()
    called()
    if gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - clock, time.process_time() - processor


class Drawing:
    """Beside a trainer: it draws as it does, on a stopwatch, or is handed completions instead."""

    completions: Sequence[list[int]] | None = None
    """Of the next generation, in the rows' order."""
    drawing: Seconds = (0.0, 0.0)
    """What the last generation's drawing took."""
    drawn = 0
    """Tokens of the last generation."""

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        given: Any = None if self.completions is None else (list(map(list, self.completions)), None)
        found = []
        own = partial(super()._generate_single_turn, *args, **kwargs)  # type: ignore[misc]
        gpu = self.accelerator.device.type == "cuda"  # type: ignore[attr-defined]
        self.drawing = seconds(lambda: found.append(given or own()), gpu=gpu)
        self.drawn = sum(map(len, found[0][0]))
        return found[0]


class TRLTrainer(Drawing, GRPOTrainer):  # type: ignore[misc]
    """TRL's own."""


class OurTrainer(Drawing, DPHTrainer):
    """Ours."""


def reward(completion_ids: list[list[int]], **columns: Any) -> list[float]:
    return [float(sum(ids) % 2) for ids in completion_ids]


def trainer_of(name: str, world: World, folder: Path, shape: Shape) -> Any:
    """One variant's trainer with a model and an AdamW of its own, as if training had begun."""
    own = VARIANTS[name]
    splits = shape.trl_splits if name == "trl" else 1
    anchored = own.get("method") in ANCHOR_METHODS
    settings = {
        "output_dir": str(folder / name),
        "num_generations": shape.group,
        "per_device_train_batch_size": shape.micro // splits,
        "gradient_accumulation_steps": splits,
        "steps_per_generation": shape.updates * splits,
        "max_completion_length": world.task.completion[1],
        "loss_type": "dapo",
        "disable_dropout": True,
        "learning_rate": 1e-6,
        "use_cpu": not shape.gpu,
        "bf16": shape.gpu,
        "activation_checkpointing": False,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        **({"anchor_ratio": shape.ratio} if anchored else {}),
        **own,
    }
    rows = [{"prompt": prompt} for prompt in world.prompts[: shape.prompts] for _ in range(shape.group)]
    given = {
        "model": AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32),
        "reward_funcs": reward,
        "train_dataset": Dataset.from_list(rows),
        "processing_class": AutoTokenizer.from_pretrained(folder / "model"),
    }
    if name == "trl":
        trainer: Any = TRLTrainer(args=GRPOConfig(beta=0.0, **settings), **given)
    else:
        anchors = open_store(folder / "store", MADE) if anchored else None
        trainer = OurTrainer(args=DPHConfig(**settings), anchors=anchors, **given)
    trainer.current_gradient_accumulation_steps = splits
    trainer.model_wrapped, trainer.optimizer = trainer.accelerator.prepare(trainer.model, trainer.create_optimizer())
    trainer.model_wrapped.train()
    return trainer


def generation(trainer: Any, prompts: Sequence[str]) -> None:
    """What `Trainer.train` does with one generation, its callbacks included, but for logging and saving."""
    args, model, callbacks = trainer.args, trainer.model_wrapped, trainer.callback_handler
    rows = [{"prompt": prompt} for prompt in prompts for _ in range(args.num_generations)]
    told = (args, trainer.state, trainer.control)
    splits = args.gradient_accumulation_steps
    for _ in range(args.steps_per_generation // splits):
        callbacks.on_step_begin(*told)
        for _ in range(splits):
            trainer.training_step(model, rows, None)
        trainer._get_grad_norm(model, grad_norm=trainer._clip_grad_norm(model))
        callbacks.on_pre_optimizer_step(*told)
        trainer.optimizer.step()
        callbacks.on_optimizer_step(*told)
        model.zero_grad()
        trainer.state.global_step += 1
        callbacks.on_step_end(*told)


def distinct(prompts: Sequence[Sequence[int]]) -> int:
    """Tokens of the prompts where beginnings in common count once."""
    rows = sorted(map(tuple, prompts))
    common = [takewhile(lambda both: both[0] == both[1], zip(a, b, strict=False)) for a, b in pairwise(rows)]
    return sum(map(len, rows)) - sum(len(list(same)) for same in common)


@dataclass(frozen=True, slots=True)
class Plain:
    """A micro-batch's distinct tokens as a plain causal batch."""

    ids: Tensor
    """[rows, length]"""
    scored: int
    """Tokens at whose place the head is needed, at most rows x length."""

    @classmethod
    def of(cls, prompts: Sequence[Sequence[int]], completions: Sequence[int], world: World, device: Any) -> Plain:
        """From the ids of the prompts and the lengths of the completions; a row is about as long as a sequence."""
        total = distinct(prompts) + sum(completions)
        mean = sum(map(len, prompts)) / len(prompts) + sum(completions) / len(completions)
        rows = max(1, round(total / mean))
        ids = torch.randint(2, world.size.vocabulary, (rows, -(-total // rows)), device=device)
        return cls(ids, sum(completions))

    def nll(self, trainer: Any) -> Tensor:
        """Through the model's body, and at the last `scored` places through TRL's head."""
        model = trainer.model
        with trainer.accelerator.autocast():
            states = model.base_model(input_ids=self.ids, use_cache=False).last_hidden_state
            states, targets = states.flatten(0, 1)[-self.scored :], self.ids.flatten()[-self.scored :]
            weight = model.get_output_embeddings().weight
            head = (states, weight, None, targets, 1.0, HEAD_COLUMNS, None, 1.0, ("log_probs",))
            return -ChunkedLogProbFunction.apply(*head)[0].mean()


def plain_generation(trainer: Any, micro_batches: Sequence[Plain]) -> None:
    """Old log-probabilities where a generation needs them, then forward, backward and AdamW of each micro-batch."""
    if len(micro_batches) > 1:
        with torch.no_grad():
            for micro_batch in micro_batches:
                micro_batch.nll(trainer)
    for micro_batch in micro_batches:
        micro_batch.nll(trainer).backward()
        trainer.optimizer.step()
        trainer.model_wrapped.zero_grad()


def plain_of(world: World, prompts: Sequence[str], completions: Sequence[list[int]], shape: Shape) -> list[Plain]:
    """The micro-batches of a generation whose groups stay together."""
    found, device = [], "cuda" if shape.gpu else "cpu"
    for first in range(0, len(prompts), shape.groups):
        own = completions[first * shape.group : (first + shape.groups) * shape.group]
        ids = [world.ids(prompt) for prompt in prompts[first : first + shape.groups]]
        found.append(Plain.of(ids, list(map(len, own)), world, device))
    return found


class Anchors:
    """The anchors of a generation without a trainer's step."""

    def __init__(self, world: World, folder: Path, shape: Shape, seed: int) -> None:
        self._world, self._shape = world, shape
        self._store = open_store(folder / "store", MADE)
        together = together_by_length(mean_prompt_length(self._store), float(self._store.lengths.mean()))
        self._order = AnchorOrder(len(self._store), seed, prompt_numbers(self._store), together)
        self._device = "cuda" if shape.gpu else "cpu"

    def of(self, step: int) -> list[Anchor]:
        count = max(1, round(self._shape.ratio * self._shape.micro))
        return [self._store[int(i)] for i in self._order.step(step, count)]

    def load(self, step: int) -> None:
        """Read, padded and made into tensors, as for the steps of one generation."""
        for s in range(step, step + self._shape.updates):
            found = self.of(s)
            pad_sequences([a.prompt_ids for a in found], [a.completion_ids for a in found], PAD, self._device)
            logps = [torch.tensor(a.ref_logps, device=self._device) for a in found]
            torch.nn.utils.rnn.pad_sequence(logps, batch_first=True)

    def plain(self, step: int) -> Plain:
        found = self.of(step)
        lengths = [len(a.completion_ids) for a in found]
        return Plain.of([a.prompt_ids for a in found], lengths, self._world, self._device)

    def tokens(self, step: int, prompts: Sequence[str]) -> int:
        """Those of a generation's steps that are not in its prompts, which stand in the same micro-batches."""
        added = 0
        for update in range(self._shape.updates):
            found = self.of(step + update)
            own = prompts[update * self._shape.groups : (update + 1) * self._shape.groups]
            ids = [self._world.ids(prompt) for prompt in own]
            added += distinct([*ids, *(a.prompt_ids for a in found)]) - distinct(ids)
            added += sum(len(a.completion_ids) for a in found)
        return added


def held(trainer: Any) -> int:
    """Bytes of weights, of the reference's weights and of AdamW."""
    modules = [m for m in (trainer.model, trainer.ref_model) if m is not None]
    tensors = [t for m in modules for t in (*m.parameters(), *m.buffers())]
    tensors += [t for state in trainer.optimizer.state.values() for t in state.values() if torch.is_tensor(t)]
    return sum({t.data_ptr(): t.nbytes for t in tensors}.values())


def peak(called: Callable[[], object], *, gpu: bool) -> tuple[int, int]:
    """Bytes of tensors beyond those there were: the most while it runs, and what its result still holds at the end."""
    if gpu:
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        result = called()
        torch.cuda.synchronize()
        after, most = torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()
        del result
        return most - before, after - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        result = called()
    with tempfile.TemporaryDirectory() as folder:
        profile.export_chrome_trace(f"{folder}/trace.json")
        events = json.loads(Path(f"{folder}/trace.json").read_text())["traceEvents"]
    del result
    changes = sorted((e["ts"], e["args"]["Bytes"]) for e in events if e.get("name") == "[memory]")
    level = most = 0
    for _, change in changes:
        level += change
        most = max(most, level)
    return most, level


def completions_of(world: World, shape: Shape, number: int) -> list[list[int]]:
    """Those of a round's generation; every variant is handed the same."""
    return world.completions(shape.prompts * shape.group, random.Random(number))
