"""How far a model has moved from its base: entropy and divergences a token, from log-probabilities of drawn tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dphrl.metrics.intervals import Interval, Scores, bootstrap

Pair = tuple[Sequence[float], Sequence[float]]
"""Log-probabilities of one completion's tokens (nats): by the model that drew it, and by the other one."""

LARGEST = 80.0
"""Log-ratio beyond which its exponential is no longer followed (nats): it stays a number."""

ESTIMATORS = {
    "entropy": "mean of -logp over the model's own tokens",
    "reverse_kl": "KL(model, base) by k3 over the model's own tokens",
    "forward_kl": "KL(base, model) by k3 over the base's tokens",
}
"""What each number is, in words that a page can show."""


@dataclass(frozen=True, slots=True)
class BaseDrift:
    """How far a model has moved from its base, in nats per token: means over tokens, intervals over prompts."""

    draws: int | None
    """Of each prompt, that were scored."""
    entropy: Interval | None
    reverse_kl: Interval | None
    """None for the base itself."""
    forward_kl: Interval | None
    """None for the base itself."""
    estimator: Mapping[str, str]
    """How each number that is there is estimated."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> BaseDrift:
        """The drift of {"draws", "entropy", "reverse_kl", "forward_kl", "estimator"}."""
        divergences = {name: Interval.from_json(values.get(name)) for name in ESTIMATORS}
        return cls(draws=values.get("draws"), estimator=values.get("estimator") or {}, **divergences)


def summed_k3(drawn: Sequence[float], other: Sequence[float]) -> float:
    """Sum over tokens of r - 1 - ln r with r = other / drawn: unbiased for KL(drawn, other), and never below 0.

    Args:
        drawn, other: log-probabilities by the policy that drew the tokens and by the other one (nats).
    Source: Schulman, Approximating KL Divergence, 2020 (http://joschu.net/blog/kl-approx.html); docs/decisions/0003.
    """
    log_r_T = np.minimum(np.asarray(other, dtype=np.float64) - np.asarray(drawn, dtype=np.float64), LARGEST)
    return float((np.expm1(log_r_T) - log_r_T).sum())


def drift_from_base(
    own: Mapping[str, Iterable[Pair]],
    bases: Mapping[str, Iterable[Pair]] | None,
    *,
    draws: int,
    rng: np.random.Generator,
    resamples: int,
) -> BaseDrift:
    """Entropy of a model, and its KL to and from the base, in nats per token.

    Args:
        own: prompt id -> the model's own completions, scored by it and by the base (for the base, twice by itself).
        bases: prompt id -> the base's completions, scored by it and by the model; None for the base itself.
        draws: completions of each prompt that were scored; the result carries it.
        rng, resamples: as for `bootstrap`.
    Returns:
        Means over tokens. A divergence estimated by k3 can depend on a few tokens, which a wide interval shows.
    """
    parts = {"entropy": _per_token(own, lambda drawn, other: -math.fsum(drawn))}
    if bases is not None:
        parts |= {"reverse_kl": _per_token(own, summed_k3), "forward_kl": _per_token(bases, summed_k3)}
    levels = {name: bootstrap(scores, rng=rng, resamples=resamples)["x"] for name, scores in parts.items()}
    divergences = {name: levels.get(name) for name in ESTIMATORS}
    return BaseDrift(draws=draws, estimator={name: ESTIMATORS[name] for name in parts}, **divergences)


def _per_token(pairs: Mapping[str, Iterable[Pair]], of: Callable[[Sequence[float], Sequence[float]], float]) -> Scores:
    """One column: mean over the tokens of each prompt, which counts for as much as it has tokens."""
    ids = tuple(sorted(pairs))
    sums, tokens = [], []
    for prompt_id in ids:
        completions = list(pairs[prompt_id])
        tokens.append(sum(len(drawn) for drawn, _ in completions))
        total = math.fsum(of(drawn, other) for drawn, other in completions)
        sums.append(total / tokens[-1] if tokens[-1] else math.nan)
    weights_P = np.array(tokens, dtype=np.float64)
    return Scores(ids, ("x",), np.array(sums, dtype=np.float64)[:, None], weights_P[:, None])
