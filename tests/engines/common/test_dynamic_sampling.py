"""The pure part of dynamic sampling: fresh groups take the place of flat ones in padded batches."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dphrl.engines.common.generation.dynamic_sampling import (
    Batch,
    fresh_prompts,
    merge_generations,
    put_rows,
    replace_flat_groups,
)
from dphrl.engines.common.processes import Processes
from dphrl.errors import ConfigError


def test_merged_generations_are_padded_on_the_right_sides() -> None:
    old = {
        "prompt_ids": torch.tensor([[1, 2], [3, 4]]),
        "completion_ids": torch.tensor([[5], [6]]),
        "n": torch.tensor(2),
    }
    new = {"prompt_ids": torch.tensor([[9, 8, 7]]), "completion_ids": torch.tensor([[1, 2]]), "n": torch.tensor(1)}
    merged = merge_generations(old, new, 0, lambda a, b: put_rows([(1, 0)], 1, a, b))
    assert merged["prompt_ids"].tolist() == [[0, 1, 2], [9, 8, 7]]
    assert merged["completion_ids"].tolist() == [[5, 0], [1, 2]]
    assert merged["n"] == 2


def generation(rewards: list[float]) -> Batch:
    rows = len(rewards)
    tensors = {"rewards": torch.tensor(rewards), "completion_mask": torch.ones(rows, 2)}
    return {**tensors, "num_items_in_batch": torch.tensor(0)}


def test_flat_groups_are_drawn_anew_until_none_is_left() -> None:
    """Groups 0 and 2 of three are flat; of the fresh ones of round 1 the second is flat too."""
    asked: list[tuple[int, int]] = []

    def draw(groups: int, attempt: int) -> Batch:
        asked.append((groups, attempt))
        return generation([0.0, 1.0, 5.0, 5.0] if attempt == 1 else [7.0, 8.0])

    batch = generation([1.0, 1.0, 0.0, 2.0, 3.0, 3.0])
    found = replace_flat_groups(batch, draw, size=2, most=5, pad_id=0, processes=Processes())
    assert asked == [(2, 1), (1, 2)] and (found.rounds, found.flat_left) == (2, 0.0)
    assert found.batch["rewards"].tolist() == [0.0, 1.0, 0.0, 2.0, 7.0, 8.0]
    assert found.batch["num_items_in_batch"] == 12


def test_rounds_end_and_what_is_left_is_said() -> None:
    rounds = iter(range(9))

    def draw(groups: int, attempt: int) -> Batch:
        next(rounds)
        return generation([1.0, 1.0] * groups)

    found = replace_flat_groups(generation([1.0, 1.0, 0.0, 1.0]), draw, size=2, most=2, pad_id=0, processes=Processes())
    assert (found.rounds, found.flat_left, next(rounds)) == (2, 0.5, 2)


def test_a_process_draws_along_with_those_that_need_more() -> None:
    """Generation is a collective: this one lacks nothing, another lacks two groups in the first round."""
    others = iter([2, 0])
    processes = replace(
        Processes(), gather=lambda rows: torch.cat([rows, torch.tensor([next(others)])]) if rows.dim() else rows
    )
    asked: list[int] = []

    def draw(groups: int, attempt: int) -> Batch:
        asked.append(groups)
        return generation([8.0, 9.0] * groups)

    found = replace_flat_groups(generation([0.0, 1.0]), draw, size=2, most=3, pad_id=0, processes=processes)
    assert asked == [2] and found.batch["rewards"].tolist() == [0.0, 1.0]


def test_a_group_on_two_processes_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"3 completions a process is no multiple of group_size=2"):
        replace_flat_groups(generation([1.0] * 3), lambda *_: {}, size=2, most=1, pad_id=0, processes=Processes())


def test_fresh_prompts_follow_from_seed_step_round_and_rank() -> None:
    def picked(**changes: int) -> list[int]:
        return fresh_prompts(50, 1000, tuple({"seed": 1, "step": 2, "round": 1, "rank": 0, **changes}.values()))

    assert picked() == picked() and max(picked()) < 1000
    assert all(picked(**{name: 7}) != picked() for name in ("seed", "step", "round", "rank"))
