"""Anchor penalties: the terms of the training loss on anchors.

The loss of an optimiser step is L_exp + eta * L_pef. Each penalty below is a micro-batch's share of L_pef: a sum over
its anchor tokens, divided by the anchor tokens of the whole step over all micro-batches and processes. The shares add
up to L_pef however the step is split; a framework that averages gradients over W processes needs W times the share.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dphrl.method.divergences import GeneratorFn, topk_divergence


def anchor_penalty(
    logp_BT: Float[Tensor, "batch time"],
    ref_logp_BT: Float[Tensor, "batch time"],
    mask_BT: Bool[Tensor, "batch time"],
    f: GeneratorFn,
    step_tokens: int | float,
) -> Float[Tensor, ""]:
    """A micro-batch's share of the anchor penalty, sum f(u_t) / N with u_t = pi_theta(y_t) / pi_ref(y_t).

    Args:
        logp_BT: ln pi_theta of the anchor tokens, in nats; anything, nan included, where mask_BT is False.
        ref_logp_BT: ln pi_ref of the same tokens, in nats, as stored with the anchors; likewise.
        mask_BT: True on completion tokens, False on prompt and padding; may be all False.
        f: generator function of log_u, see `divergences.generator`.
        step_tokens: N, anchor tokens of the whole optimiser step over micro-batches and processes (count, > 0).
    Returns:
        A value >= 0 in nats per anchor token; 0 for an all-False mask.
    Raises:
        ValueError: step_tokens is not positive.
    Source: DPH-RL, arXiv:2509.07430, the generator form.
    """
    _check_step_tokens(step_tokens)
    log_u_BT = torch.where(mask_BT, logp_BT - ref_logp_BT, 0.0)  # padding becomes u = 1: f(1) = 0, no NaN gradient
    return f(log_u_BT).sum() / step_tokens


def topk_penalty(
    logp_NK: Float[Tensor, "tokens top"],
    ref_logp_NK: Float[Tensor, "tokens top"],
    f: GeneratorFn,
    step_tokens: int | float,
) -> Float[Tensor, ""]:
    """A micro-batch's share of the penalty over the vocabulary: sum of D_f over K entries and the rest, over N.

    Where `anchor_penalty` sees one token drawn from pi_ref at each position, this sees the distribution it was drawn
    from, as far as the K stored entries tell: no sampling noise, and never more than D_f over the whole vocabulary.

    Args:
        logp_NK: ln pi_theta of the entries at the micro-batch's anchor tokens, in nats, from a float32 log-softmax.
        ref_logp_NK: ln pi_ref of the same entries, in nats, as stored with the anchors.
        f: generator function of log_u.
        step_tokens: as in `anchor_penalty` (count, > 0).
    Returns:
        A value >= 0 in nats per anchor token; 0 for no token.
    Raises:
        ValueError: step_tokens is not positive.
    Source: `divergences.topk_divergence`.
    """
    _check_step_tokens(step_tokens)
    return topk_divergence(logp_NK, ref_logp_NK, f).sum() / step_tokens


def anchor_nll(
    logp_BT: Float[Tensor, "batch time"], mask_BT: Bool[Tensor, "batch time"], step_tokens: int | float
) -> Float[Tensor, ""]:
    """A micro-batch's share of plain replay, sum -ln pi_theta(y_t) / N: the baseline without a reference.

    Its slope in logp is -1 on every token, forward-KL's is u - 1. The gradients agree in the mean over pi_ref, since
    E_ref[u grad ln pi_theta] = 0; token by token, replay pulls even where the policy equals the reference.

    Args:
        logp_BT: ln pi_theta of the anchor tokens, in nats; anything, nan included, where mask_BT is False.
        mask_BT: as in `anchor_penalty`.
        step_tokens: as in `anchor_penalty` (count, > 0).
    Returns:
        A value >= 0 in nats per anchor token; 0 for an all-False mask.
    Raises:
        ValueError: step_tokens is not positive.
    """
    _check_step_tokens(step_tokens)
    return torch.where(mask_BT, -logp_BT, 0.0).sum() / step_tokens


def _check_step_tokens(step_tokens: int | float) -> None:
    if not step_tokens > 0:
        raise ValueError(
            f"step_tokens={step_tokens} must be the positive number of anchor tokens of the whole optimiser step; "
            "give the step at least one anchor with a completion token (train without anchors only as eta = 0)"
        )
