"""Rewards over several functions, and advantages over several processes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dphrl.engines.common.generation.rollout_rewards import group_advantages, weighted_rewards
from dphrl.engines.common.processes import Processes
from dphrl.errors import VerifierError
from dphrl.method.advantages import advantage

nan = float("nan")


def test_a_completion_that_no_function_judged_has_no_reward() -> None:
    found = weighted_rewards(torch.tensor([[1.0, 2.0], [nan, 2.0], [nan, nan]]), torch.tensor([1.0, 0.5]))
    assert found[:2].tolist() == [2.0, 1.0] and found[2].isnan()


def test_a_generation_that_nothing_judged_ends_the_training() -> None:
    with pytest.raises(VerifierError, match="not one of the 2 completions"):
        weighted_rewards(torch.tensor([[nan, nan], [nan, nan]]), torch.tensor([1.0, 0.5]))


def test_log_probabilities_are_asked_for_where_they_are_read() -> None:
    """maxrl on rewards 1, 0 | 1, 1 of two processes: this one, the second, has advantages 0."""
    processes = Processes(rank=1, count=2)
    rewards, mask = torch.tensor([1.0, 0.0, 1.0, 1.0]), torch.ones(2, 3)

    def unread() -> Tensor:
        raise AssertionError("maxrl reads rewards alone")

    chosen = advantage("maxrl", pass_k=2, rank_penalty=0.0)
    assert chosen is not None
    own = group_advantages(chosen, rewards, unread, mask, group_size=2, processes=processes)
    assert own.tolist() == [0.0, 0.0]


def test_unlikeliness_ranks_by_the_mean_over_real_tokens() -> None:
    """Sums would rank the long completion lower: -0.4 * 3 against -1 * 1; means rank it higher."""
    chosen = advantage("unlikeliness", pass_k=2, rank_penalty=0.5)
    assert chosen is not None
    logps = torch.tensor([[-0.4, -0.4, -0.4], [-1.0, -9.0, -9.0]])
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    own = group_advantages(chosen, torch.ones(2), lambda: logps, mask, group_size=2, processes=Processes())
    assert own[0] < 0 < own[1] and own.sum().item() == pytest.approx(0, abs=1e-5)
