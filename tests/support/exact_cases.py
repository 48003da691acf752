"""The shipped model, anchors, settings and a recorder, shared by the tests of the trainer's exactness."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import reference_loss as reference
import torch
from datasets import Dataset
from torch import Tensor
from transformers import TrainerCallback

from dphrl import DPHConfig, DPHTrainer
from dphrl.config.load import build_config
from dphrl.demo.task import load_demo_task
from dphrl.models.policy import load_policy
from dphrl.models.scoring import score
from dphrl.types import Anchor

CONFIG = build_config({"model": {"path": "demo", "device": "cpu"}, "sampling": {"max_new_tokens": 24}})
GROUP, TEMPERATURE = 4, 0.9


@pytest.fixture(scope="module")
def anchors() -> tuple[Anchor, ...]:
    """Gold answers of 16 prompts of various lengths; two tokens far from the reference on either side."""
    policy = load_policy(CONFIG)
    prompts = load_demo_task("in_domain").prompts[:16]
    ids = [policy.encode(p) for p in prompts]
    gold = [[*policy.tokenizer(p.columns["gold"])["input_ids"], policy.stop_ids[0]] for p in prompts]
    scored = score(policy.model, ids, gold, pad_id=0, temperature=TEMPERATURE, batch_size=5)
    made = [Anchor(p.id, tuple(i), tuple(g), x.logps) for p, i, g, x in zip(prompts, ids, gold, scored, strict=True)]
    moved = [replace(a, ref_logps=(a.ref_logps[0] - 1.5, a.ref_logps[1] + 6.0, *a.ref_logps[2:])) for a in made]
    return tuple(moved)


class Unchecked(DPHTrainer):
    """Trains a model that has moved already, or anchors with log-probabilities that are not its own."""

    def check_anchors(self) -> None:
        """The trainer would refuse them."""


def by_length(completions: list[str], **columns: Any) -> list[float]:
    return [float(len(text.split()) < 14) + 0.01 * len(text.split()) for text in completions]


def right_or_wrong(completions: list[str], **columns: Any) -> list[float]:
    """Some groups have no spread."""
    return [float(len(text.split()) < 14) for text in completions]


def moved_model(seed: int = 0) -> Any:
    """The shipped model, a little away from where it was: ratios to the reference are not 1."""
    model = load_policy(CONFIG).model
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=noise))
    return model


OF_METHOD: dict[str, dict[str, Any]] = {
    "dph": {"eta": 0.2, "anchors_per_step": 8},
    "replay": {"eta": 0.2, "anchors_per_step": 8},
    "dapo": {"max_resample": 1},
}


def settings(folder: Path, **changes: Any) -> dict[str, Any]:
    """Two optimiser steps a generation, two micro-batches a step."""
    return {
        "output_dir": str(folder / "out"),
        "num_generations": GROUP,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "steps_per_generation": 4,
        "max_steps": 2,
        "max_completion_length": 24,
        "temperature": TEMPERATURE,
        "epsilon": 0.05,
        "epsilon_high": 0.08,
        "learning_rate": 0.5,
        "lr_scheduler_type": "constant",
        "optim": "sgd",
        "max_grad_norm": 0.0,
        "seed": 5,
        "share_prompts": "on",
        "use_cpu": True,
        "bf16": False,
        "activation_checkpointing": False,
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        **OF_METHOD.get(changes.get("method", "dph"), {}),
        **changes,
    }


def dataset(rows: int = 32) -> Dataset:
    return Dataset.from_list(
        [{"prompt": p.prompt, "prompt_id": p.id} for p in load_demo_task("in_domain").prompts[:rows]]
    )


class Recorder(TrainerCallback):
    """Of each optimiser step: the gradient, and the weights it was taken at; of each micro-batch: inputs and loss."""

    def __init__(self, trainer: DPHTrainer, fresh: Callable[[], Any] = lambda: load_policy(CONFIG).model) -> None:
        self.trainer, self.model, self.fresh = trainer, trainer.model, fresh
        self.inputs: list[dict[str, Any]] = []
        self.losses: list[float] = []
        self.gradients: list[Tensor] = []
        self.states: list[dict[str, Tensor]] = []
        compute_loss = trainer.compute_loss

        def recorded(model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
            self.inputs.append(inputs)
            loss = compute_loss(model, inputs, *args, **kwargs)
            self.losses.append(loss.item())
            return loss

        trainer.compute_loss = recorded
        trainer.add_callback(self)

    def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        self.gradients.append(gradient(self.model))
        self.states.append(copy.deepcopy(self.model.state_dict()))

    def model_at(self, step: int) -> Any:
        """An untouched model of transformers with the weights of that step."""
        model = self.fresh()
        model.load_state_dict(self.states[step])
        return model

    def rows(self, step: int | None = None) -> list[Any]:
        """Completions of one optimiser step, or of the generation, without padding."""
        inputs = self.inputs if step is None else self.inputs[2 * step : 2 * step + 2]
        found, groups = [], {}
        for batch in inputs:
            for p, pm, c, cm, r in zip(
                *(batch[k] for k in ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "rewards")),
                strict=True,
            ):
                prompt = tuple(p[pm.bool()].tolist())
                group = groups.setdefault(prompt, len(groups))
                found.append(reference.Row(prompt, tuple(c[cm.bool()].tolist()), r.item(), group))
        return found


def gradient(model: Any) -> Tensor:
    return torch.cat([p.grad.detach().flatten().double() for p in model.parameters() if p.grad is not None])


Recorded = Callable[..., Recorder]


@pytest.fixture
def record(tmp_path: Path) -> Recorded:
    """Two optimiser steps on one generation, recorded."""

    def run(anchors: Any = None, **changes: Any) -> Recorder:
        policy = load_policy(CONFIG)
        trainer = Unchecked(
            model=moved_model(),
            reward_funcs=right_or_wrong if changes["method"] == "dapo" else by_length,
            args=DPHConfig(**settings(tmp_path, **changes)),
            train_dataset=dataset(),
            processing_class=policy.tokenizer,
            anchors=anchors,
            encode=policy.encode,
        )
        if trainer.ref_model is not None:
            trainer.ref_model.load_state_dict(policy.model.state_dict())
        recorder = Recorder(trainer)
        torch.manual_seed(1)
        trainer.train()
        return recorder

    return run
