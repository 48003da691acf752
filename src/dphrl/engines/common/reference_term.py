"""Fresh completions against the reference policy: the KL of method rkl in the loss or as a reward, and the half of
dph's definition form that anchors cannot give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from dphrl.engines.common.processes import Processes
from dphrl.method.definition_form import definition
from dphrl.method.kl_estimators import KLEstimator, k1, k2


@dataclass(frozen=True, slots=True)
class ReferenceTerm:
    """The term that a method adds on fresh completions; exactly one of its three ways acts."""

    metric: str
    """The name under which its mean is logged."""
    in_loss: KLEstimator | None = None
    """(logp, ref_logp) -> terms that are added to the loss, as a token-mean over the optimiser step."""
    as_reward: bool = False
    """Whether -k1, summed over a completion and centred in its group, is added to the advantage."""
    by_engine: bool = False
    """Whether the method asks for the k3 term that the engine itself has."""


KL_TERMS: dict[str, ReferenceTerm] = {
    "k3": ReferenceTerm("kl", by_engine=True),
    "k3_corrected": ReferenceTerm("kl", by_engine=True),
    "k2": ReferenceTerm("kl", in_loss=k2),
    "k1_reward": ReferenceTerm("kl", as_reward=True),
}
"""`kl_estimator` of method rkl -> its term."""


def reference_term(args: Any) -> ReferenceTerm | None:
    """The term of a method, or None, by a trainer's arguments; those that the method does not read may be None."""
    if args.method == "rkl":
        return KL_TERMS[args.kl_estimator]
    fresh = definition(args.divergence).fresh if args.method == "dph" and args.form == "definition" else None
    if fresh is None:
        return None
    return ReferenceTerm("fresh/penalty", in_loss=lambda logp, ref_logp: fresh(logp - ref_logp))


def token_mean(terms_BT: Tensor, mask_BT: Tensor, tokens: Tensor) -> tuple[Tensor, float]:
    """Masked terms over `tokens`, the completion tokens of the optimiser step a process; and their own mean, to log."""
    masked_BT = terms_BT * mask_BT
    logged = masked_BT.detach().sum() / mask_BT.sum().clamp(min=1)
    return masked_BT.sum() / tokens, logged.item()


def centred_k1(
    logp_BT: Tensor, ref_logp_BT: Tensor, mask_BT: Tensor, group_size: int, processes: Processes
) -> tuple[Tensor, float]:
    """k1 summed over each completion, less its group's mean; and the mean over all completions, to log.

    Divided by the group's deviation instead, it would be blown up to unit size wherever all completions are right.
    """
    kl = processes.gather((k1(logp_BT, ref_logp_BT) * mask_BT).sum(1))
    centred = kl - kl.view(-1, group_size).mean(1).repeat_interleave(group_size)
    return processes.own_rows(centred, len(logp_BT)), kl.mean().item()
