"""The terms of the training loss that are ours: anchor penalties, their metrics and KL estimators.

The loss of an optimiser step is L_exp + eta * L_pef. Each penalty below is a micro-batch's share of L_pef: a sum over
its anchor tokens, divided by the anchor tokens of the whole step over all micro-batches and processes. The shares add
up to L_pef however the step is split; a framework that averages gradients over W processes needs W times the share.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from dphrl.errors import ConfigError, nearest
from dphrl.method.divergences import GeneratorFn, forward_kl, topk_divergence


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


@dataclass(frozen=True, slots=True)
class AnchorStats:
    """Sums and extremes over anchor tokens, as 0-dim float32 tensors: records add exactly, where means do not."""

    tokens: Float[Tensor, ""]
    """Anchor tokens (count; exact up to 2^24)."""
    penalty_sum: Float[Tensor, ""]
    """Sum of the penalty's terms (nats)."""
    log_u_sum: Float[Tensor, ""]
    log_u_abs_sum: Float[Tensor, ""]
    log_u_min: Float[Tensor, ""]
    """+inf without tokens."""
    log_u_max: Float[Tensor, ""]
    """-inf without tokens."""

    @classmethod
    def measure(
        cls,
        logp_BT: Float[Tensor, "batch time"],
        ref_logp_BT: Float[Tensor, "batch time"],
        mask_BT: Bool[Tensor, "batch time"],
        penalty: Float[Tensor, ""],
        step_tokens: int | float,
    ) -> AnchorStats:
        """The record of one micro-batch, detached and without a device synchronisation.

        Args:
            logp_BT, ref_logp_BT, mask_BT: as in `anchor_penalty`; an all-False mask gives the neutral record.
            penalty: what `anchor_penalty`, `topk_penalty` or `anchor_nll` returned for them (nats per token).
            step_tokens: the denominator it was called with (count, > 0).
        Returns:
            The record; log_u is not clamped, and a nan among the anchor tokens stays visible as nan.
        """
        with torch.no_grad():
            log_u_BT = torch.where(mask_BT, logp_BT - ref_logp_BT, 0.0).float()
            edge = log_u_BT.new_full((1,), torch.inf)  # amin and amax refuse a batch of no rows
            return cls(
                tokens=mask_BT.sum().float(),
                penalty_sum=penalty.float() * step_tokens,
                log_u_sum=log_u_BT.sum(),
                log_u_abs_sum=log_u_BT.abs().sum(),
                log_u_min=torch.cat([torch.where(mask_BT, log_u_BT, torch.inf).flatten(), edge]).amin(),
                log_u_max=torch.cat([torch.where(mask_BT, log_u_BT, -torch.inf).flatten(), -edge]).amax(),
            )

    def __add__(self, other: AnchorStats) -> AnchorStats:
        """The record of both sets of tokens together."""
        return AnchorStats.unpack(torch.stack([self.pack(), other.pack()]))

    def pack(self) -> Float[Tensor, " fields"]:
        """The six fields in order, as one tensor that processes can gather."""
        return torch.stack(
            [self.tokens, self.penalty_sum, self.log_u_sum, self.log_u_abs_sum, self.log_u_min, self.log_u_max]
        )

    @classmethod
    def unpack(cls, rows: Float[Tensor, "records fields"]) -> AnchorStats:
        """The merged record of `pack`ed ones, one a row, such as `accelerator.gather(stats.pack()[None])`."""
        tokens, penalty_sum, log_u_sum, log_u_abs_sum = rows[:, :4].sum(0)
        return cls(tokens, penalty_sum, log_u_sum, log_u_abs_sum, rows[:, 4].amin(), rows[:, 5].amax())

    def metrics(self) -> dict[str, Float[Tensor, ""]]:
        """What to log once every micro-batch and process is merged; 0-dim tensors, in nats.

        Returns:
            `anchor/penalty`: mean of the penalty's terms. `anchor/forward_kl`: mean of -log_u (k1), an estimate of
            KL(pi_ref || pi_theta) whatever the generator, of either sign. `anchor/log_u_min`, `anchor/log_u_max`,
            `anchor/log_u_abs_mean`: extremes and mean size of log_u = logp - ref_logp, unclamped.
        Raises:
            ValueError: no anchor token was measured. Reads one number from the device.
        """
        if self.tokens == 0:
            raise ValueError(
                "0 anchor tokens were measured; merge the records of all micro-batches and processes first, and give "
                "every optimiser step at least one anchor with a completion token"
            )
        return {
            "anchor/penalty": self.penalty_sum / self.tokens,
            "anchor/forward_kl": -self.log_u_sum / self.tokens,
            "anchor/log_u_min": self.log_u_min,
            "anchor/log_u_max": self.log_u_max,
            "anchor/log_u_abs_mean": self.log_u_abs_sum / self.tokens,
        }


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


KL_ESTIMATORS: dict[str, KLEstimator] = {"k1": k1, "k2": k2, "k3": k3}
"""Name -> estimator on policy samples. k1 belongs in the reward; k2 and k3 in the loss."""


def kl_estimator(name: str) -> KLEstimator:
    """The estimator called `name`.

    Raises:
        ConfigError: not a key of KL_ESTIMATORS.
    """
    if name not in KL_ESTIMATORS:
        raise ConfigError(
            f"KL estimator {name!r} is not one of {', '.join(KL_ESTIMATORS)}{nearest(name, KL_ESTIMATORS)}"
        )
    return KL_ESTIMATORS[name]


# -- the definition form -----------------------------------------------------------------------------------------------


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
