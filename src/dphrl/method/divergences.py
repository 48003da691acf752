"""Generator functions f of D_f(policy || reference) = E_reference[f(u)], u = policy / reference, as functions of ln u.

Each is convex in u with f(1) = f'(1) = 0. Autograd through `exp` and `log` loses the value near u = 1 and overflows far
from it, so each generator states value and slope in closed form, and calling it uses exactly these two.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dphrl.errors import ConfigError, nearest

GeneratorFn = Callable[[Tensor], Tensor]
"""log_u -> f(u), elementwise, any shape; differentiable."""
ClosedForm = Callable[[Tensor], tuple[Tensor, Tensor]]
"""log_u in [finfo.min, MAX_LOG_U_CAP] -> (f(u), df/dlog_u), elementwise."""

MAX_LOG_U_CAP = 80.0
"""Largest `log_u_cap` (nats): u ln u still fits float32 there, and is e^80 * 80 = 4e36."""


@dataclass(frozen=True, slots=True)
class Generator:
    """A generator function: exact up to `log_u_cap`, and its tangent in log_u beyond."""

    closed_form: ClosedForm
    log_u_cap: float = MAX_LOG_U_CAP
    """Where the tangent takes over (nats, in (0, 80])."""

    def __call__(self, log_u: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """f(u), and under autograd df/dlog_u; both finite for every input but nan, which stays nan.

        With c = log_u_cap and g(log_u) = f(e^log_u): g(log_u) for log_u <= c, g(c) + g'(c) (log_u - c) beyond, so
        value and slope are continuous at c (C1) and the slope is g'(c) from there on. The tangent lies below g.

        Args:
            log_u: ln pi_theta - ln pi_ref of tokens drawn from pi_ref, in nats; any shape, +-inf included.
        Returns:
            f(u) >= 0 in nats; float64 for float64 input, else float32 (16-bit input is computed in float32). Where the
            exact value exceeds the largest float it is that float, and the slope is still that of the unbounded line.
        Raises:
            Nothing. Differentiate once only: torch's `once_differentiable` refuses, or leaves out, a second derivative.
        """
        wide = log_u if log_u.dtype == torch.float64 else log_u.float()
        value: Tensor = _ExactSlope.apply(wide, self)  # type: ignore[no-untyped-call]
        return value

    def capped(self, log_u_cap: float) -> Generator:
        """The same generator with its tangent from `log_u_cap` (nats) on.

        Raises:
            ValueError: log_u_cap is not in (0, 80].
        """
        if not 0.0 < log_u_cap <= MAX_LOG_U_CAP:
            raise ValueError(
                f"log_u_cap={log_u_cap} must be in (0, {MAX_LOG_U_CAP:g}] nats; 5 bounds forward-KL's slope at 147"
            )
        return replace(self, log_u_cap=log_u_cap)


class _ExactSlope(torch.autograd.Function):
    """Forward: value and tangent of a Generator. Backward: its closed-form slope."""

    @staticmethod
    def forward(ctx: Any, log_u: Tensor, generator: Generator) -> Tensor:
        limits = torch.finfo(log_u.dtype)
        finite = log_u.clamp(limits.min, limits.max)  # u = 0 at -inf is a limit of f, and 0 * inf is not
        inside = finite.clamp(max=generator.log_u_cap)
        value, slope = generator.closed_form(inside)
        ctx.save_for_backward(slope)
        return (value + slope * (finite - inside)).clamp(max=limits.max)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        return grad * slope, None


# 1/2!, 1/3!, ... 1/15!: at |x| = 1/2 the first term left out is below float64's resolution.
_REMAINDER_COEFFICIENTS = tuple(1.0 / math.factorial(n) for n in range(2, 16))


def _exp_remainder(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """e^x - 1 - x, elementwise: x^2/2 + x^3/6 + ... near 0, where expm1(x) - x has no correct digit left.

    Args:
        x: any value; the result overflows to inf above ln(finfo.max).
    Returns:
        A value >= 0, to a few units in the last place.
    """
    series = torch.zeros_like(x)
    for coefficient in reversed(_REMAINDER_COEFFICIENTS):
        series = series * x + coefficient
    return torch.where(x.abs() < 0.5, x * x * series, torch.expm1(x) - x)


def _log_mean_with_one(log_u: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """ln((u + 1)/2), the log-ratio of the even mixture to the reference; exact to a few ulp near u = 1."""
    return torch.log1p(torch.expm1(log_u) / 2)


@Generator
def forward_kl(log_u: Float[Tensor, "*shape"]) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """KL(pi_ref || pi_theta), DPH-F: f(u) = u - 1 - ln u, elementwise; f''(1) = 1, mass-covering.

    Args:
        log_u: as in `Generator.__call__`.
    Returns:
        f(u) in nats, ~ -ln u as u -> 0; and its slope u - 1, which is -1 there: the full pull on a forgotten token.
    Raises:
        Nothing; names, ranges and emptiness are checked once, where configs and anchors are loaded.
    Source: DPH-RL, arXiv:2509.07430.
    """
    return _exp_remainder(log_u), torch.expm1(log_u)


@Generator
def reverse_kl(log_u: Float[Tensor, "*shape"]) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """KL(pi_theta || pi_ref): f(u) = u ln u - u + 1, elementwise; f''(1) = 1, mode-seeking.

    Args:
        log_u: as in `Generator.__call__`.
    Returns:
        f(u) in nats, 1 as u -> 0; and its slope u ln u, which vanishes there: a forgotten token is not pulled back.
    Raises:
        Nothing; see `forward_kl`.
    Source: DPH-RL, arXiv:2509.07430.
    """
    slope = log_u.exp() * log_u
    # The first form cancels near u = 1; the second overflows as u -> 0.
    return torch.where(log_u < -1, slope - torch.expm1(log_u), log_u.exp() * _exp_remainder(-log_u)), slope


@Generator
def js(log_u: Float[Tensor, "*shape"]) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """Jensen-Shannon at the paper's scale, DPH-JS: f(u) = u ln u - (u+1) ln((u+1)/2), elementwise; f''(1) = 1/2.

    Args:
        log_u: as in `Generator.__call__`.
    Returns:
        f(u) in nats, ln 2 as u -> 0; and its slope u ln(2u/(u+1)), which vanishes there. The mean of f under pi_ref
        is twice the Jensen-Shannon divergence, in [0, 2 ln 2].
    Raises:
        Nothing; see `forward_kl`.
    Source: DPH-RL, arXiv:2509.07430.
    """
    log_m = _log_mean_with_one(log_u)
    slope = log_u.exp() * torch.where(log_u < 0, log_u - log_m, -_log_mean_with_one(-log_u))
    # With h = ln(u)/2, ln((u+1)/2) = h + ln cosh h, and the terms of first order in h cancel on paper.
    h = log_u.clamp(-1, 1) / 2
    log_cosh = torch.log1p(h.sinh().square()) / 2
    near = torch.expm1(2 * h) * h - (torch.expm1(2 * h) + 2) * log_cosh
    return torch.where(log_u.abs() < 1, near, slope - log_m), slope


def alpha(a: float) -> Generator:
    """The alpha generator, f(u) = (u^(1-a) - (1-a) u - a) / (a (a-1)), elementwise; f''(1) = 1.

    Args:
        a: order in (0, 1), no unit; a -> 1 is forward_kl, a -> 0 reverse_kl, a = 1/2 twice squared_hellinger.
    Returns:
        The generator: f(u) >= 0 in nats, 1/(1-a) as u -> 0, with slope u (1 - u^-a) / a.
    Raises:
        ValueError: a outside (0, 1).
    Source: DPH-RL, arXiv:2509.07430.
    """
    if not 0.0 < a < 1.0:
        raise ValueError(f"alpha={a} must be in (0, 1), ends excluded; 1 is forward_kl and 0 is reverse_kl")
    a = min(max(a, 1e-12), 1.0 - 1e-12)  # closer to an end than any float can show, and never 0 / 0
    b = 1.0 - a

    def f_of(order: float, log_u: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """f of that order >= 1/2, as a difference that does not cancel: near u = 1 without the terms of first order."""
        rest = 1.0 - order
        near = _exp_remainder(log_u) - _exp_remainder(rest * log_u) / rest
        far = torch.expm1(log_u) - torch.expm1(rest * log_u) / rest
        return torch.where(log_u.abs() < 1, near, far) / order

    @Generator
    def alpha_a(log_u: Float[Tensor, "*shape"]) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
        """Value and slope for the order above."""
        slope = (b * log_u).exp() * torch.expm1(a * log_u) / a
        if a >= 0.5:
            return f_of(a, log_u), slope
        mirrored = log_u.exp() * f_of(b, -log_u)  # f_a(u) = u f_(1-a)(1/u), which overflows as u -> 0
        return torch.where(log_u < -1, (slope - torch.expm1(log_u)) / b, mirrored), slope

    return alpha_a


@Generator
def jeffreys(log_u: Float[Tensor, "*shape"]) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """Jeffreys, KL(pi_ref || pi_theta) + KL(pi_theta || pi_ref): f(u) = (u - 1) ln u, elementwise; f''(1) = 2.

    Args:
        log_u: as in `Generator.__call__`.
    Returns:
        f(u) in nats, ~ -ln u as u -> 0; and its slope u - 1 + u ln u, which is -1 there.
    Raises:
        Nothing; see `forward_kl`.
    Source: Jeffreys, Proc. R. Soc. A 186 (1946), 453-461.
    """
    return torch.expm1(log_u) * log_u, torch.expm1(log_u) + log_u.exp() * log_u


@Generator
def squared_hellinger(log_u: Float[Tensor, "*shape"]) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """Squared Hellinger distance, f(u) = (sqrt(u) - 1)^2 = alpha(1/2) / 2, elementwise; f''(1) = 1/2.

    Args:
        log_u: as in `Generator.__call__`.
    Returns:
        f(u), no unit, 1 as u -> 0; and its slope u - sqrt(u), which vanishes there. The mean of f under pi_ref is
        sum (sqrt(pi_theta) - sqrt(pi_ref))^2, in [0, 2].
    Raises:
        Nothing; see `forward_kl`.
    Source: Liese and Vajda, "On Divergences and Informations in Statistics and Information Theory", IEEE TIT 52 (2006).
    """
    root = torch.expm1(log_u / 2)
    return root.square(), (log_u / 2).exp() * root


GENERATORS: dict[str, Callable[[float], Generator]] = {
    "forward_kl": lambda _: forward_kl,
    "reverse_kl": lambda _: reverse_kl,
    "js": lambda _: js,
    "alpha": alpha,
    "jeffreys": lambda _: jeffreys,
    "squared_hellinger": lambda _: squared_hellinger,
}
"""Name -> generator, given the order alpha, which only the alpha family reads."""


def generator(name: str, *, alpha: float = 0.5, log_u_cap: float = 5.0) -> Generator:
    """The generator function called `name`, continued along its tangent beyond `log_u_cap`.

    Args:
        name: a key of GENERATORS.
        alpha: order of the alpha generator, in (0, 1), no unit; the others do not read it.
        log_u_cap: where the tangent takes over, in nats, in (0, 80]; see `Generator.__call__`.
    Returns:
        The generator, to be called with log_u.
    Raises:
        ConfigError: name, alpha or log_u_cap is not allowed.
    """
    if name not in GENERATORS:
        raise ConfigError(f"divergence={name!r} is not one of {', '.join(GENERATORS)}{nearest(name, GENERATORS)}")
    try:
        return GENERATORS[name](alpha).capped(log_u_cap)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def topk_divergence(
    logp_TK: Float[Tensor, "*shape top"], ref_logp_TK: Float[Tensor, "*shape top"], f: GeneratorFn
) -> Float[Tensor, "*shape"]:
    """sum_i pi_ref,i f(pi_theta,i / pi_ref,i) over K vocabulary entries and one bucket with all others, per position.

    A lower bound of D_f over the whole vocabulary (data-processing inequality; f's tangent only lowers it), equal to it
    for K = V. Nothing is sampled, and the reference model is not needed.

    Args:
        logp_TK: ln pi_theta of the K entries, in nats, -inf allowed; from a float32 log-softmax, because the gradient
            of the bucket divides by its mass, and 16-bit rounding of it would drown the pull.
        ref_logp_TK: ln pi_ref of the same entries, in nats, -inf allowed (such an entry weighs nothing).
        f: generator function of log_u.
    Returns:
        One finite value >= 0 per position, in nats. A bucket that is empty on the reference's side adds 0; one that is
        empty on the policy's side counts with mass 16 eps, and its gradient lives.
    Raises:
        Nothing; shapes are the caller's, and sums above 1 by rounding are clamped.
    Source: Csiszar, Studia Sci. Math. Hungar. 2 (1967), 299-318; DPH-RL, arXiv:2509.07430, for f.
    """
    logp_TK, ref_logp_TK = (x if x.dtype == torch.float64 else x.float() for x in (logp_TK, ref_logp_TK))
    log_u_TK = torch.where(ref_logp_TK.isneginf(), 0.0, logp_TK - ref_logp_TK)
    entries_T = (ref_logp_TK.exp() * f(log_u_TK)).sum(-1)

    rest_T, ref_rest_T = 1 - logp_TK.exp().sum(-1), 1 - ref_logp_TK.exp().sum(-1)
    floor = 16 * torch.finfo(rest_T.dtype).eps  # 1 - sum is rounding noise below; flooring both only brings u nearer 1
    # A clamp would cut the gradient of a bucket the policy has emptied, just where it must be refilled.
    floored_T = rest_T + (rest_T.clamp(min=floor) - rest_T).detach()
    log_u_rest_T = floored_T.log() - ref_rest_T.clamp(min=floor).log()
    return entries_T + ref_rest_T.clamp(min=0) * f(log_u_rest_T)
