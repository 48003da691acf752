"""Advantages of a group's completions from their rewards: baselines to compare with. Pure; `group` is TRL's own.

Axes: G groups (completions of one prompt), N completions of a group. A reward of nan was not judged: such a completion
counts nowhere and its advantage is 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dphrl.errors import ConfigError, nearest

GROUP_EPSILON = 1e-4
"""Added to a group's deviation, as TRL does."""


def maxrl_advantages(rewards_GN: Float[Tensor, "groups size"]) -> Float[Tensor, "groups size"]:
    """MaxRL advantage (r - m) / m, m the mean reward of the completion's group.

    Args:
        rewards_GN: rewards >= 0, no unit; nan = could not be judged.
    Returns:
        Advantages, no unit, >= -1; m is taken over the judged completions. 0 where the reward is nan, and in a group
        with m = 0 or with no judged completion: no gradient from either.
    Raises:
        ConfigError: a reward is negative, so that m no longer measures success and may change the sign.
    Source: MaxRL, arXiv:2602.02710; derived there for rewards 0 and 1.
    """
    if (rewards_GN < 0).any():
        raise ConfigError(
            f"a reward of {rewards_GN[rewards_GN < 0][0].item():g} is negative; train.advantage=maxrl divides by the "
            "group's mean and needs rewards >= 0: shift them, or choose another advantage"
        )
    mean_G1 = rewards_GN.nanmean(dim=1, keepdim=True)
    return torch.where((mean_G1 > 0) & ~rewards_GN.isnan(), (rewards_GN - mean_G1) / mean_G1, 0.0)


def passk_advantages(rewards_GN: Float[Tensor, "groups size"], k: int) -> Float[Tensor, "groups size"]:
    """Pass@k training: the group advantage of subsets of k completions, averaged over the subsets a completion is in.

    A subset's reward is 1 if one of its k completions is right. Over all C(n, k) subsets its mean is
    m = 1 - C(n-c, k) / C(n, k) with c right of n, its deviation s = sqrt(m (1-m)). A right completion is only in
    subsets of reward 1, so A = (1-m) / s; a wrong one is in a share q = C(n-c-1, k-1) / C(n-1, k-1) of all-wrong
    subsets, so A = (1-m-q) / s.

    Args:
        rewards_GN: rewards 0 or 1; nan = could not be judged.
        k: completions of a subset (count, >= 1).
    Returns:
        Advantages, no unit, of sum 0 over a group. 0 where m is 0 or 1, and in a group with fewer than k judged.
    Raises:
        ConfigError: a reward that is neither 0 nor 1.
    Source: Pass@k training, arXiv:2508.10751, the analytical form.
    """
    judged_GN = ~rewards_GN.isnan()
    other_GN = judged_GN & (rewards_GN != 0) & (rewards_GN != 1)
    if other_GN.any():
        raise ConfigError(
            f"a reward of {rewards_GN[other_GN][0].item():g} is neither 0 nor 1, which train.advantage=passk needs; "
            "choose train.advantage=pkpo, which takes any reward"
        )
    right_GN = judged_GN & (rewards_GN == 1)
    advantages_GN = torch.zeros_like(rewards_GN)
    for g, (n, c) in enumerate(zip(judged_GN.sum(1).tolist(), right_GN.sum(1).tolist(), strict=True)):
        all_wrong = math.comb(n - c, k) / math.comb(n, k) if n >= k else 0.0
        if not 0 < all_wrong < 1:
            continue
        deviation = math.sqrt(all_wrong * (1 - all_wrong))
        q = math.comb(n - c - 1, k - 1) / math.comb(n - 1, k - 1)
        advantages_GN[g, right_GN[g]] = all_wrong / deviation
        advantages_GN[g, judged_GN[g] & ~right_GN[g]] = (all_wrong - q) / deviation
    return advantages_GN


def pkpo_advantages(rewards_GN: Float[Tensor, "groups size"], k: int) -> Float[Tensor, "groups size"]:
    """PKPO: what a completion adds to the best of k, n / C(n, k) * sum over k-subsets with it of max - max without it.

    With rewards in ascending order, a subset's other k-1 completions have their best at place j (from 0) in C(j, k-2)
    ways, so the sum is over lower places j: (r_i - r_j) C(j, k-2). The factor n is for losses that average over
    completions: then the mean of A grad ln pi estimates the gradient of E[best of k] without bias.

    Args:
        rewards_GN: any finite rewards; nan = could not be judged.
        k: completions of a subset (count, >= 2; below, nothing is left to subtract).
    Returns:
        Advantages >= 0 in units of the reward; 0 in a group with fewer than k judged.
    Raises:
        ValueError: k < 2.
    Source: PKPO, arXiv:2505.15201, the estimator with the leave-one-out baseline of k-1 ("loo minus one").
    """
    if k < 2:
        raise ValueError(f"k={k} must be at least 2: the baseline is the best of the other k - 1")
    advantages_GN = torch.zeros_like(rewards_GN)
    for g, row_N in enumerate(rewards_GN):
        places = (~row_N.isnan()).nonzero()[:, 0]
        n = len(places)
        if n < k:
            continue
        order_n = places[row_N[places].argsort()]
        sorted_n = row_N[order_n].double()
        ways_n = torch.tensor(
            [math.comb(j, k - 2) / math.comb(n, k) * n for j in range(n)], device=row_N.device
        ).double()
        gains_nn = (sorted_n[:, None] - sorted_n[None, :]).clamp(min=0).tril()
        advantages_GN[g, order_n] = (gains_nn * ways_n).sum(1).to(row_N.dtype)
    return advantages_GN


def unlikeliness_advantages(
    rewards_GN: Float[Tensor, "groups size"], logp_GN: Float[Tensor, "groups size"], penalty: float
) -> Float[Tensor, "groups size"]:
    """Unlikeliness reward: r (1 - penalty * rank / n), then the group advantage; likely right ones earn less.

    Args:
        rewards_GN: rewards, 0 = wrong; nan = could not be judged.
        logp_GN: mean ln pi of each completion's tokens under the sampling policy (nats); its rank is the number of
            judged completions of the group that are less likely, 0..n-1.
        penalty: share of the reward taken from the likeliest, in [0, 1]; 0 gives TRL's group advantage.
    Returns:
        Advantages, no unit: (r' - mean) / (deviation + 1e-4), over the n judged completions.
    Raises:
        Nothing.
    Source: He, Fried and Welleck, "Rewarding the Unlikely", arXiv:2506.02355, and the rank of its released code.
    """
    judged_GN = ~rewards_GN.isnan()
    n_G1 = judged_GN.sum(1, keepdim=True).clamp(min=1)
    less_likely_GNN = (logp_GN[:, None, :] < logp_GN[:, :, None]) & judged_GN[:, None, :]
    rewards_GN = rewards_GN * (1 - penalty * less_likely_GNN.sum(2) / n_G1)
    centred_GN = torch.where(judged_GN, rewards_GN - rewards_GN.nanmean(1, keepdim=True), 0.0)
    variance_G1 = centred_GN.square().sum(1, keepdim=True) / (n_G1 - 1).clamp(min=1)
    return centred_GN / (variance_G1.sqrt() + GROUP_EPSILON)


@dataclass(frozen=True, slots=True)
class Advantage:
    """An advantage with its settings filled in."""

    of: Callable[[Tensor, Tensor], Tensor]
    """(rewards_GN, logp_GN) -> advantages_GN."""
    reads_logps: bool = False
    """Whether logp_GN, the mean ln pi of each completion's tokens, is looked at."""


ADVANTAGES: dict[str, Callable[[int, float], Advantage | None]] = {
    "group": lambda k, penalty: None,
    "maxrl": lambda k, penalty: Advantage(lambda rewards, logp: maxrl_advantages(rewards)),
    "passk": lambda k, penalty: Advantage(lambda rewards, logp: passk_advantages(rewards, k)),
    "pkpo": lambda k, penalty: Advantage(lambda rewards, logp: pkpo_advantages(rewards, k)),
    "unlikeliness": lambda k, penalty: Advantage(
        lambda rewards, logp: unlikeliness_advantages(rewards, logp, penalty), reads_logps=True
    ),
}
"""Name -> advantage, given `pass_k` and `rank_penalty`; None leaves it to TRL."""


def advantage(name: str, *, pass_k: int, rank_penalty: float) -> Advantage | None:
    """The advantage called `name`, or None for TRL's own.

    Args:
        name: a key of ADVANTAGES.
        pass_k: completions of a subset, for passk and pkpo (count, >= 2).
        rank_penalty: for unlikeliness, in [0, 1].
    Raises:
        ConfigError: not a key of ADVANTAGES.
    """
    if name not in ADVANTAGES:
        raise ConfigError(f"advantage={name!r} is not one of {', '.join(ADVANTAGES)}{nearest(name, ADVANTAGES)}")
    return ADVANTAGES[name](pass_k, rank_penalty)
