"""The whole training loss in plain PyTorch, read from the papers and not from the trainer: rows one by one, no padding.

Beside nothing of the project: `model(ids).logits`, autograd and the formulas. The tests compare gradients with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

F_OF_U: dict[str, Callable[[Tensor], Tensor]] = {
    "forward_kl": lambda u: u - 1 - u.log(),
    "reverse_kl": lambda u: u * u.log() - u + 1,
    "js": lambda u: u * u.log() - (u + 1) * ((u + 1) / 2).log(),
    "alpha": lambda u: (u**0.7 - 0.7 * u - 0.3) / (0.3 * -0.7),  # order 0.3
    "jeffreys": lambda u: (u - 1) * u.log(),
    "squared_hellinger": lambda u: (u.sqrt() - 1) ** 2,
}
ON_ANCHORS: dict[str, Callable[[Tensor], Tensor]] = {
    "forward_kl": lambda u: -u.log(),
    "js": lambda u: -((u + 1) / 2).log(),
    "reverse_kl": lambda u: 0 * u,
}
ON_FRESH: dict[str, Callable[[Tensor], Tensor]] = {
    "forward_kl": lambda u: 0 * u,
    "js": lambda u: (2 * u / (u + 1)).log(),
    "reverse_kl": lambda u: u.log().detach(),  # the rest, grad ln pi, has mean 0
}
"""The two halves of the definition form: KL(ref || m) and KL(pi || m), or one KL."""
KL_TERMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "k2": lambda logp, ref: (logp - ref) ** 2 / 2,
    "k3": lambda logp, ref: (ref - logp).exp() - (ref - logp) - 1,
}


@dataclass(frozen=True)
class Row:
    """A completion of the generation; `group` numbers its prompt's group."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    reward: float
    group: int


def logps(model: Any, prompt: Sequence[int], completion: Sequence[int], temperature: float) -> Tensor:
    """ln pi(token | what stands before it) of each completion token."""
    logits = model(torch.tensor([[*prompt, *completion]])).logits[0, len(prompt) - 1 : -1].double() / temperature
    return logits.log_softmax(-1).gather(1, torch.tensor(completion)[:, None])[:, 0]


def f_capped(name: str, log_u: Tensor, cap: float) -> Tensor:
    """f(u), along its tangent (in ln u) where ln u > cap."""
    edge = torch.tensor(cap, dtype=torch.float64, requires_grad=True)
    value = F_OF_U[name](edge.exp())
    (slope,) = torch.autograd.grad(value, edge)
    beyond = value.detach() + slope * (log_u - cap)
    return torch.where(log_u > cap, beyond, F_OF_U[name](log_u.clamp(max=cap).exp()))


def exploration_loss(
    model: Any, old: Any, ref: Any, generation: Sequence[Row], step: Sequence[Row], s: dict[str, Any]
) -> Tensor:
    """PPO-clip with group advantages and the KL term, token-mean over the step; N = generation tokens / updates."""
    kl_sums = [0.0] * len(generation)
    if s["kl"] == "k1_reward":
        with torch.no_grad():
            for i, row in enumerate(generation):
                both = [logps(m, row.prompt, row.completion, s["T"]) for m in (old, ref)]
                kl_sums[i] = (both[0] - both[1]).sum().item()
    total = torch.zeros((), dtype=torch.float64)
    for row in step:
        group = [i for i, other in enumerate(generation) if other.group == row.group]
        r = torch.tensor([generation[i].reward for i in group])
        k = [kl_sums[i] for i in group]
        advantage = (row.reward - r.mean()) / (r.std() + 1e-4)
        advantage = advantage - s["beta"] * (kl_sums[generation.index(row)] - sum(k) / len(k))
        logp = logps(model, row.prompt, row.completion, s["T"])
        with torch.no_grad():
            old_logp, ref_logp = (logps(m, row.prompt, row.completion, s["T"]) for m in (old, ref))
        ratio = (logp - old_logp).exp()
        clipped = ratio.clamp(1 - s["low"], 1 + s["high"])
        terms = -torch.minimum(ratio * advantage, clipped * advantage)
        if s["kl"] in ("k2", "k3", "k3_corrected"):
            kl = KL_TERMS[s["kl"][:2]](logp, ref_logp)
            terms = terms + s["beta"] * kl * (ratio if s["kl"] == "k3_corrected" else 1)
        total = total + terms.sum()
    return total / (sum(len(row.completion) for row in generation) / s["updates"])


def fresh_loss(model: Any, ref: Any, generation: Sequence[Row], step: Sequence[Row], s: dict[str, Any]) -> Tensor:
    """eta * E_pi[g(u)] of the definition form; the ratio to itself carries the gradient of the tokens' own law."""
    total = torch.zeros((), dtype=torch.float64)
    for row in step:
        logp = logps(model, row.prompt, row.completion, s["T"])
        with torch.no_grad():
            ref_logp = logps(ref, row.prompt, row.completion, s["T"])
        total = total + ((logp - logp.detach()).exp() * ON_FRESH[s["f"]]((logp - ref_logp).exp())).sum()
    return s["eta"] * total / (sum(len(row.completion) for row in generation) / s["updates"])


def anchor_loss(model: Any, anchors: Sequence[Any], s: dict[str, Any]) -> Tensor:
    """eta * sum f(u) / N over the step's anchors; replay: eta * sum -ln pi / N."""
    total = torch.zeros((), dtype=torch.float64)
    for a in anchors:
        logp = logps(model, a.prompt_ids, a.completion_ids, s["T"])
        log_u = logp - torch.tensor(a.ref_logps, dtype=torch.float64)
        if s.get("form") == "definition":
            terms = ON_ANCHORS[s["f"]](log_u.exp())
        else:
            terms = -logp if s["f"] == "replay" else f_capped(s["f"], log_u, s["cap"])
        total = total + terms.sum()
    return s["eta"] * total / max(1, sum(len(a.completion_ids) for a in anchors))
