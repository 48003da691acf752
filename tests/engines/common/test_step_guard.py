"""The guard of each step, without a trainer: processes are made up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from dphrl.engines.common.bad_step import MicroBatch, prompt_names
from dphrl.engines.common.processes import Processes
from dphrl.engines.common.step_guard import StepGuard
from dphrl.errors import TrainingError

BATCH = MicroBatch({"prompt_ids": torch.tensor([[0, 4]]), "prompt_mask": torch.tensor([[0, 1]])}, ())


def judged(guard: StepGuard, step: int, losses: Sequence[float], norm: Any = 1.0) -> bool:
    guard.losses += [torch.tensor(loss) for loss in losses]
    return guard.judge(step, norm, lambda count: [BATCH] * count, lambda wanted: {tokens: ["p"] for tokens in wanted})


def test_a_finite_step_is_let_through_and_leaves_nothing(tmp_path: Path) -> None:
    guard = StepGuard(tmp_path / "bad", 3, Processes())
    assert not judged(guard, 1, [0.5, 0.25]) and not judged(guard, 2, [0.5], None)
    assert guard.losses == [] and not guard.ends_training and not (tmp_path / "bad").exists()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_that_a_step_left_without_a_number_end_the_training(
    value: float, dtype: torch.dtype, tmp_path: Path
) -> None:
    guard = StepGuard(tmp_path, 3, Processes())
    weights = [torch.nn.Parameter(torch.full((300, 4), 6e4, dtype=dtype)) for _ in range(2)]
    frozen = torch.nn.Parameter(torch.tensor([value]), requires_grad=False)
    guard.check_weights(1, [*weights, frozen])
    weights[1].data[7, 2] = value
    with pytest.raises(TrainingError, match="optimiser step 5 left weights that are not finite"):
        guard.check_weights(5, weights)


@pytest.mark.parametrize(
    ("losses", "norm"), [([0.5, math.nan], 1.0), ([0.5], math.inf), ([-math.inf], torch.tensor(1))]
)
def test_what_is_not_finite_is_bad_and_kept(losses: list[float], norm: Any, tmp_path: Path) -> None:
    guard, told = StepGuard(tmp_path, 3, Processes()), []
    guard.report = lambda bad, line: told.append((bad.step, bad.in_a_row, line))
    assert judged(guard, 4, losses, norm) and not guard.ends_training
    assert (tmp_path / "step-4.json").exists() and (tmp_path / "step-4-rank-0.safetensors").exists()
    ((step, in_a_row, line),) = told
    assert (step, in_a_row) == (4, 1) and line.startswith("step 4 is left out") and "prompts p;" in line


def test_bad_steps_in_a_row_end_the_training_behind_its_checkpoint(tmp_path: Path) -> None:
    guard = StepGuard(tmp_path, 2, Processes())
    for step, loss in enumerate([math.nan, 0.5, math.nan], 1):  # not in a row
        assert judged(guard, step, [loss]) == math.isnan(loss) and not guard.ends_training
    guard.raise_failure()
    assert judged(guard, 4, [math.nan]) and guard.ends_training
    with pytest.raises(TrainingError, match=r"of 2 optimiser steps in a row.*step-3.json, step-4.json.*checkpoint-4"):
        guard.raise_failure()
    guard.begin()
    assert not guard.ends_training


def test_all_processes_agree_on_a_bad_step_and_a_signal(tmp_path: Path) -> None:
    """This one is finite and heard nothing; the other had a loss of nan and SIGTERM. It is not the one that reports."""
    other = torch.tensor([[1.0, 15.0]])
    processes = Processes(rank=1, count=2, gather=lambda rows: torch.cat([other, rows]))
    guard = StepGuard(tmp_path, 3, processes)
    guard.report = lambda bad, line: pytest.fail("the main process reports")
    assert judged(guard, 2, [0.5]) and guard.stopped == 15 and guard.ends_training
    assert not (tmp_path / "step-2.json").exists() and (tmp_path / "step-2-rank-1.safetensors").exists()


def test_a_step_that_is_applied_already_ends_at_once(tmp_path: Path) -> None:
    guard = StepGuard(tmp_path, 3, Processes())
    guard.applied_in_backward = True
    with pytest.raises(TrainingError, match="has applied it already"):
        judged(guard, 2, [math.nan])


def test_prompts_are_named_by_their_tokens() -> None:
    rows = [{"prompt": "ab", "prompt_id": "x"}, {"prompt": "c"}, {"prompt": "ab", "prompt_id": "y"}]
    names = prompt_names(rows, lambda text: [ord(c) for c in text], frozenset({(97, 98), (99,), (7,)}))
    assert names == {(97, 98): ["x", "y"], (99,): ["1"], (7,): []}
