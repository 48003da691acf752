"""Estimates of KL(pi_theta || pi_ref) from tokens drawn from pi_theta, and which gradient each one follows."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from dphrl.method.divergences import forward_kl

KLEstimator = Callable[[Tensor, Tensor], Tensor]
"""(logp, ref_logp) of tokens drawn from pi_theta -> an estimate of KL(pi_theta || pi_ref), elementwise."""


def k1(logp: Float[Tensor, "*shape"], ref_logp: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """ln pi_theta - ln pi_ref, elementwise: subtract it, detached, from the *reward*.

    On policy, E[k1 * grad ln pi_theta] = grad KL(pi_theta || pi_ref), the true **reverse**-KL gradient. In the *loss*
    it does nothing: E[grad k1] = E[grad ln pi_theta] = 0.

    Args:
        logp, ref_logp: log-probabilities of tokens drawn from pi_theta, in nats; finite.
    Returns:
        An unbiased estimate of KL(pi_theta || pi_ref) in nats, of either sign.
    Raises:
        Nothing.
    Source: Schulman, "Approximating KL Divergence" (2020), joschu.net/blog/kl-approx.html.
    """
    return logp - ref_logp


def k2(logp: Float[Tensor, "*shape"], ref_logp: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """(ln pi_theta - ln pi_ref)^2 / 2, elementwise: add it to the *loss*.

    On policy, E[grad k2] = E[(ln pi_theta - ln pi_ref) grad ln pi_theta] = grad KL(pi_theta || pi_ref): the true
    **reverse**-KL gradient, though its value is a biased estimate.

    Args:
        logp, ref_logp: log-probabilities of tokens drawn from pi_theta, in nats; finite.
    Returns:
        A value >= 0, in nats.
    Raises:
        Nothing.
    Source: Schulman (2020), as for `k1`; the gradient: DPH-RL notes, "What RKL really is".
    """
    return (logp - ref_logp).square() / 2


def k3(logp: Float[Tensor, "*shape"], ref_logp: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """r - 1 - ln r with r = pi_ref / pi_theta, elementwise: what TRL, verl and DPH-RL's baseline add to the *loss*.

    On policy, E[grad k3] = E[(1 - r) grad ln pi_theta] = -E_ref[grad ln pi_theta] = grad KL(pi_ref || pi_theta): a
    **forward**-KL gradient, though its value is an unbiased estimate of reverse-KL.

    Args:
        logp, ref_logp: log-probabilities of tokens drawn from pi_theta, in nats; finite.
    Returns:
        A value >= 0, in nats; along its tangent where ln r > 80, so finite.
    Raises:
        Nothing.
    Source: Schulman (2020), as for `k1`; PPO-style use: GRPO, arXiv:2402.03300.
    """
    return forward_kl(ref_logp - logp)
