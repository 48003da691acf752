"""A step whose loss or gradient is not finite changes nothing, is kept for replay, and ends training if it recurs."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from exact_cases import CONFIG, Unchecked, anchors, by_length, dataset, moved_model, settings
from safetensors.torch import load_file
from torch import Tensor
from transformers import TrainerCallback

from dphrl import DPHConfig
from dphrl.errors import TrainingError
from dphrl.models.policy import load_policy

__all__ = ["anchors"]

Spoil = Callable[[Any, Tensor], Tensor]


class Spoiled(Unchecked):
    """Does something to the loss of the second micro-batch of some optimiser steps."""

    steps: tuple[int, ...] = ()
    spoil: Spoil

    def compute_loss(self, *args: Any, **kwargs: Any) -> Tensor:
        loss = super().compute_loss(*args, **kwargs)
        if self.state.global_step in self.steps and self._step % 2 == 1:
            return type(self).spoil(self, loss)
        return loss


class States(TrainerCallback):
    """Weights, moments and learning rate after each optimiser step."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []
        self.moments: list[Any] = []
        self.rates: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any, optimizer: Any, **kwargs: Any) -> None:
        self.weights.append(copy.deepcopy(model.state_dict()))
        self.moments.append(copy.deepcopy(optimizer.state_dict()["state"]))
        self.rates.append(optimizer.param_groups[0]["lr"])


def nan_gradient(trainer: Any, loss: Tensor) -> Tensor:
    return loss * math.nan


def nan_loss_alone(trainer: Any, loss: Tensor) -> Tensor:
    """The gradient stays finite."""
    return loss + math.nan


def inf_gradient_alone(trainer: Any, loss: Tensor) -> Tensor:
    """The loss stays finite; the gradient of one weight does not."""
    weight = next(trainer.model.parameters())
    return loss + torch.sqrt(weight.flatten()[0] - weight.flatten()[0].detach())


def trained(folder: Path, stored: Any, steps: tuple[int, ...], spoil: Spoil, **changes: Any) -> tuple[Any, States, Any]:
    """The trainer after 4 optimiser steps of 2 micro-batches on 2 generations, what was recorded and what was said."""
    changes = {"method": "dph", "max_steps": 4, "optim": "adamw_torch", "learning_rate": 1e-3, **changes}
    policy = load_policy(CONFIG)
    kind = type("Case", (Spoiled,), {"steps": steps, "spoil": staticmethod(spoil)})
    trainer = kind(
        model=moved_model(),
        reward_funcs=by_length,
        args=DPHConfig(**settings(folder, lr_scheduler_type="linear", **changes)),
        train_dataset=dataset(),
        processing_class=policy.tokenizer,
        anchors=stored if changes["method"] == "dph" else None,
        encode=policy.encode,
    )
    states, said = States(), []
    trainer.add_callback(states)
    trainer.step_guard.report = lambda bad, line: said.append((bad, line))
    torch.manual_seed(1)
    try:
        trainer.train()
    except TrainingError as error:
        said.append(str(error))
    return trainer, states, said


def same(one: Any, other: Any) -> bool:
    """Of nested dicts of tensors, to the bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(v, other[k]) for k, v in one.items())
    return bool(torch.equal(torch.as_tensor(one), torch.as_tensor(other)))


@pytest.mark.parametrize(
    ("spoil", "clip"),
    [
        (nan_gradient, 1.0),
        pytest.param(nan_loss_alone, 1.0, marks=pytest.mark.slow),
        pytest.param(inf_gradient_alone, 1.0, marks=pytest.mark.slow),
        pytest.param(inf_gradient_alone, 0.0, marks=pytest.mark.slow),
    ],
)
def test_a_bad_step_changes_nothing_and_the_next_one_goes_on(
    spoil: Spoil, clip: float, anchors: Any, tmp_path: Path
) -> None:
    trainer, states, said = trained(tmp_path, anchors, (1,), spoil, max_grad_norm=clip)
    assert same(states.weights[1], states.weights[0]) and same(states.moments[1], states.moments[0])
    assert not same(states.weights[2], states.weights[1]) and not same(states.moments[2], states.moments[1])
    assert all(p.isfinite().all() for p in trainer.model.parameters())
    assert states.rates == pytest.approx([7.5e-4, 5e-4, 2.5e-4, 0.0])  # a step is a step, taken or not
    ((bad, line),) = said
    assert bad.step == 2 and "step 2 is left out" in line and str(tmp_path / "out/bad-steps/step-2.json") in line
    assert trainer.state.global_step == 4


@pytest.mark.slow
def test_what_is_kept_is_the_batch_of_the_step(anchors: Any, tmp_path: Path) -> None:
    trainer, _, said = trained(tmp_path, anchors, (3,), nan_gradient)
    facts = json.loads((tmp_path / "out/bad-steps/step-4.json").read_text())
    said[0][0].write(tmp_path)
    assert facts == json.loads((tmp_path / "step-4.json").read_text())
    assert facts["step"] == 4 and facts["grad_norm"] == "nan" and facts["in_a_row"] == 1
    (rank,) = facts["ranks"]
    first, second = rank["micro_batches"]
    assert math.isfinite(float(first["loss"])) and second["loss"] == "nan"
    kept = load_file(tmp_path / "out/bad-steps" / rank["file"])
    batch = trainer._buffered_inputs[3]  # of the last micro-batch that was trained
    for name in ("prompt_ids", "completion_ids", "completion_mask", "advantages", "rewards", "old_per_token_logps"):
        assert torch.equal(kept[f"micro-1/{name}"], batch[name])
    tokens = {
        tuple(ids[mask.bool()].tolist()) for ids, mask in zip(batch["prompt_ids"], batch["prompt_mask"], strict=True)
    }
    policy = load_policy(CONFIG)
    of_id = {row["prompt_id"]: tuple(trainer._tokenize_prompts([row["prompt"]])[0][0]) for row in dataset()}
    assert {of_id[i] for i in second["prompts"]} == tokens and policy
    assert len(kept["rng_state"]) == len(torch.random.get_rng_state())
    named = {a["prompt_id"] for m in (first, second) for a in m["anchors"]}
    assert len(first["anchors"]) == len(second["anchors"]) == 4 and named <= {a.prompt_id for a in anchors}
    assert all(len(a["ref_logps"]) == len(a["completion_ids"]) for a in second["anchors"])
    assert all(i in said[0][1] for i in second["prompts"])
    assert not any(
        i in said[0][1].partition("prompts ")[2].partition(";")[0]
        for i in set(first["prompts"]) - set(second["prompts"])
    )


@pytest.mark.slow
@pytest.mark.parametrize(("steps", "most", "ends_at"), [((1, 2), 2, 3), ((0,), 1, 1), ((0, 2), 2, None)])
def test_bad_steps_in_a_row_end_the_training(
    steps: tuple[int, ...], most: int, ends_at: int | None, tmp_path: Path
) -> None:
    trainer, states, said = trained(tmp_path, None, steps, nan_gradient, method="grpo", max_bad_steps=most)
    assert len([told for told in said if isinstance(told, tuple)]) == len(steps)
    errors = [told for told in said if isinstance(told, str)]
    if ends_at is None:
        assert errors == [] and trainer.state.global_step == 4
        return
    (error,) = errors
    assert trainer.state.global_step == ends_at and f"of {most} optimiser steps in a row" in error
    assert all(f"step-{n + 1}.json" in error for n in steps) and f"checkpoint-{ends_at}" in error
    saved = load_file(tmp_path / f"out/checkpoint-{ends_at}/model.safetensors")
    before = states.weights[0]  # of the step before the bad ones, or spoiled by none
    assert all(torch.equal(saved[k], before[k]) for k in saved)


@pytest.mark.slow
class OverflowingSteps(TrainerCallback):
    """The optimiser's second step leaves a weight that is not finite."""

    def on_optimizer_step(self, args: Any, state: Any, control: Any, model: Any, **kwargs: Any) -> None:
        if state.global_step == 1:
            next(model.parameters()).data.view(-1)[3] = math.inf


def test_weights_that_a_step_left_infinite_are_not_saved(tmp_path: Path) -> None:
    policy = load_policy(CONFIG)
    how = settings(tmp_path, method="grpo", max_steps=3, save_strategy="steps", save_steps=1)
    trainer = Unchecked(
        model=policy.model,
        reward_funcs=by_length,
        args=DPHConfig(**how),
        train_dataset=dataset(),
        processing_class=policy.tokenizer,
        encode=policy.encode,
    )
    trainer.callback_handler.callbacks.insert(0, OverflowingSteps())
    with pytest.raises(TrainingError, match="step 2 left weights that are not finite"):
        trainer.train()
    assert [path.name for path in tmp_path.rglob("checkpoint-*")] == ["checkpoint-1"]


def test_finite_steps_are_those_of_a_trainer_without_a_guard(anchors: Any, tmp_path: Path) -> None:
    """The guard reads; the moments after 4 steps are the same to the bit as with it taken out."""
    _, guarded, _ = trained(tmp_path, anchors, (), nan_gradient)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dphrl.engines.trl.callbacks.GuardSteps.on_pre_optimizer_step", lambda *a, **k: None)
        _, bare, _ = trained(tmp_path / "bare", anchors, (), nan_gradient)
    assert same(guarded.weights[-1], bare.weights[-1]) and same(guarded.moments[-1], bare.moments[-1])


@pytest.mark.slow
def test_what_steps_within_backward_ends_at_the_first_bad_step(tmp_path: Path) -> None:
    """DeepSpeed is not here: the guard is only told that it trains."""

    def spoil(trainer: Any, loss: Tensor) -> Tensor:
        trainer.step_guard.applied_in_backward = True
        return loss * math.nan

    trainer, _, said = trained(tmp_path, None, (1,), spoil, method="grpo")
    assert trainer.state.global_step == 1 and "DeepSpeed has applied it already" in said[-1]
    assert (tmp_path / "out/bad-steps/step-2.json").exists()
