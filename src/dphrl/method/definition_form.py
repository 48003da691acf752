"""The definition form of a divergence: expectations over both policies, on anchors and on fresh completions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dphrl.errors import ConfigError, nearest
from dphrl.method.divergences import GeneratorFn


@dataclass(frozen=True, slots=True)
class Definition:
    """A divergence as it is defined: means over tokens of pi_ref (anchors) and of pi_theta (fresh completions).

    Each function takes log_u of such tokens and gives terms whose mean is that half of the divergence, and whose mean
    gradient is its gradient, the contexts of the tokens held fixed; None = no such half.
    """

    anchors: GeneratorFn | None
    fresh: GeneratorFn | None


def _value_and_slope(
    log_u: Float[Tensor, "*shape"], value: Float[Tensor, "*shape"], slope: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """That value, and under autograd that slope in log_u, which need not be the value's own."""
    return value.detach() + slope.detach() * (log_u - log_u.detach())


def forward_kl_on_anchors(log_u: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """KL(pi_ref || pi_theta) = E_ref[-ln u], elementwise: the generator u - 1 - ln u without its control variate.

    Its slope is -1 on every token, that of plain replay; u - 1 has mean 0 under pi_ref, so the mean gradients agree,
    but here noise pulls even where the policy equals the reference.

    Args:
        log_u: ln pi_theta - ln pi_ref of tokens drawn from pi_ref, in nats; finite.
    Returns:
        Terms in nats, of either sign.
    Raises:
        Nothing.
    Source: DPH-RL, arXiv:2509.07430, the definition form.
    """
    return -log_u


def js_on_anchors(log_u: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """KL(pi_ref || m) = E_ref[-ln((u+1)/2)], m = (pi_theta + pi_ref)/2, elementwise; slope -u/(u+1).

    Args:
        log_u: as in `forward_kl_on_anchors`.
    Returns:
        Terms in nats, ln 2 as u -> 0, of either sign.
    Raises:
        Nothing.
    Source: DPH-RL, arXiv:2509.07430; with `js_on_fresh` it is twice Jensen-Shannon, the scale of `divergences.js`.
    """
    return math.log(2.0) - F.softplus(log_u)


def js_on_fresh(log_u: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """KL(pi_theta || m) = E_theta[ln(2u/(u+1))], elementwise; slope ln(2u/(u+1)) + 1/(u+1).

    The tokens' own law moves with the policy: grad E_theta[g] = E_theta[(g + dg/dln u) grad ln pi_theta]. Autograd of
    g alone would leave the first part out; its second part cancels in the mean against the whole gradient of
    `js_on_anchors`, so that nothing at all would be left to pull.

    Args:
        log_u: ln pi_theta - ln pi_ref of tokens drawn from pi_theta, in nats; finite.
    Returns:
        Terms in nats, at most ln 2, of either sign.
    Raises:
        Nothing.
    Source: the score-function identity, Williams, Machine Learning 8 (1992), 229-256.
    """
    value = math.log(2.0) - F.softplus(-log_u)
    return _value_and_slope(log_u, value, value + torch.sigmoid(-log_u))


def reverse_kl_on_fresh(log_u: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """KL(pi_theta || pi_ref) = E_theta[ln u], elementwise; slope ln u, which is that of `k2`.

    Autograd of ln u alone has mean 0: E_theta[grad ln pi_theta] = 0.

    Args:
        log_u: as in `js_on_fresh`.
    Returns:
        Terms in nats, of either sign.
    Raises:
        Nothing.
    Source: as for `js_on_fresh`.
    """
    return _value_and_slope(log_u, log_u, log_u)


DEFINITIONS: dict[str, Definition] = {
    "forward_kl": Definition(forward_kl_on_anchors, None),
    "js": Definition(js_on_anchors, js_on_fresh),
    "reverse_kl": Definition(None, reverse_kl_on_fresh),
}
"""Divergence -> its definition form; the other generators have none here."""


def definition(name: str) -> Definition:
    """The definition form of the divergence called `name`.

    Raises:
        ConfigError: not a key of DEFINITIONS.
    """
    if name not in DEFINITIONS:
        raise ConfigError(
            f"the definition form is there for divergence {', '.join(DEFINITIONS)}, and {name!r} came"
            f"{nearest(name, DEFINITIONS)}; choose one of them, or form generator"
        )
    return DEFINITIONS[name]
