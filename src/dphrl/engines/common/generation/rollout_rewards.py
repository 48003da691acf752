"""A generation's rewards over all reward functions, and its advantages where they are not the engine's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dphrl.engines.common.processes import Processes
from dphrl.errors import VerifierError
from dphrl.method.advantages import Advantage, advantage


def chosen_advantage(args: Any) -> Advantage | None:
    """The advantage that a trainer's arguments ask for; None for the engine's own."""
    k, penalty = args.pass_k or 0, args.rank_penalty or 0.0  # None where the advantage does not read them
    return advantage(args.advantage, pass_k=k, rank_penalty=penalty)


def weighted_rewards(
    rewards_NF: Float[Tensor, "rows functions"], weights_F: Float[Tensor, " functions"]
) -> Float[Tensor, " rows"]:
    """The weighted sum over the functions that judged a completion; nan where none did.

    Raises:
        VerifierError: no completion was judged, so that there is nothing to train on.
    """
    if rewards_NF.isnan().all():
        raise VerifierError(
            f"not one of the {len(rewards_NF)} completions of this generation was judged; look at the verifier (or "
            "what it asks), then run the same command: it goes on from the last checkpoint"
        )
    rewards_N = (rewards_NF * weights_F.to(rewards_NF.device)).nansum(1)
    return torch.where(rewards_NF.isnan().all(1), torch.nan, rewards_N)


def group_advantages(
    advantage: Advantage,
    rewards_N: Float[Tensor, " rows"],
    logps_BT: Callable[[], Tensor],
    mask_BT: Tensor,
    group_size: int,
    processes: Processes,
) -> Float[Tensor, " own"]:
    """This process's advantages.

    Args:
        rewards_N: of all processes. mask_BT: True on this process's completion tokens.
        logps_BT: gives the log-probabilities of those tokens under the sampling policy; asked for where they are read.
    """
    mean_N = torch.zeros_like(rewards_N)
    if advantage.reads_logps:
        mean_N = processes.gather((logps_BT() * mask_BT).sum(1) / mask_BT.sum(1).clamp(min=1))
    advantages_GN = advantage.of(*(x.view(-1, group_size) for x in (rewards_N, mean_N)))
    return processes.own_rows(advantages_GN.flatten(), len(mask_BT))
