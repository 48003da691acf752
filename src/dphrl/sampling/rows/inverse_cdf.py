"""A token from one uniform number: the inverse of the cumulative distribution over the vocabulary."""

from __future__ import annotations

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

_BLOCK = 512
"""Tokens whose probabilities are added up as one before the search looks into them."""


def inverse_cdf(
    logits_BV: Float[Tensor, "batch vocab"], uniform_B: Float64[Tensor, batch], temperature: float, top_p: float
) -> Int64[Tensor, batch]:
    """The token at which the cumulative distribution first exceeds the uniform number, in the order of token ids.

    Args:
        logits_BV: unscaled logits; -inf forbids a token.
        uniform_B: numbers in [0, 1).
        temperature: > 0, divides the logits.
        top_p: in (0, 1]; below 1 only the smallest set of likeliest tokens with at least this mass is kept.
    Returns:
        Token ids, distributed as softmax(logits / temperature) when the numbers are uniform. Sums run in float64, so
        the rounding of another batch size flips a draw only when it lies within about 1e-7 of a boundary.
    """
    batch, vocab = logits_BV.shape
    padded_BV = logits_BV.new_full((batch, vocab + -vocab % _BLOCK), -torch.inf, dtype=torch.float64)
    padded_BV[:, :vocab] = logits_BV
    probs_BV = torch.softmax(padded_BV.div_(temperature), dim=-1)
    if top_p < 1:
        sorted_BV, order_BV = probs_BV.sort(dim=-1, descending=True, stable=True)
        before_BV = sorted_BV.cumsum(dim=-1) - sorted_BV
        sorted_BV = sorted_BV.masked_fill(before_BV >= top_p, 0.0)
        probs_BV = torch.zeros_like(probs_BV).scatter(-1, order_BV, sorted_BV)
    probs_BNK = probs_BV.view(batch, -1, _BLOCK)
    sums_BN = probs_BNK.sum(dim=-1)
    target_B = uniform_B * sums_BN.sum(dim=-1)  # the total mass: 1 up to rounding, less under top_p
    block_B, before_B = _first_above(sums_BN, target_B)
    rows_B = torch.arange(batch, device=logits_BV.device)
    inside_B, _ = _first_above(probs_BNK[rows_B, block_B], target_B - before_B)
    return block_B * _BLOCK + inside_B


def _first_above(
    masses_BN: Float64[Tensor, "batch n"], target_B: Float64[Tensor, batch]
) -> tuple[Int64[Tensor, batch], Float64[Tensor, batch]]:
    """The first place at which the running sum exceeds the target, and the sum before it.

    Rounding does not reach past the last place that has mass.
    """
    cdf_BN = masses_BN.cumsum(dim=-1)
    last_B = (masses_BN > 0).long().cumsum(-1).argmax(-1)
    place_B = torch.searchsorted(cdf_BN, target_B.unsqueeze(-1), right=True).squeeze(-1).minimum(last_B)
    before_BN = torch.nn.functional.pad(cdf_BN[:, :-1], (1, 0))
    return place_B, before_BN.gather(-1, place_B.unsqueeze(-1)).squeeze(-1)
