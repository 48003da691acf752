"""How hard a prompt is for the policy: its share of right draws, with what the draws leave open."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from dphrl.method.partition import Rules, looked_at
from dphrl.method.verdict_counts import is_judged, tally
from dphrl.types import Completion

LEVEL = 0.95
"""Mass of the posterior interval."""


@dataclass(frozen=True, slots=True)
class Difficulty:
    """How hard one prompt is."""

    draws: int
    """Presamples looked at."""
    judged: int
    successes: int
    low: float
    """`posterior` of the success probability, rounded to six digits."""
    high: float
    reward: float | None
    """Mean over the judged ones of the draws that every prompt gets (`Rules.first`), so that early stopping does not
    tilt it; None if there are none."""


@lru_cache(maxsize=4096)
def posterior(successes: int, failures: int, level: float = LEVEL) -> tuple[float, float]:
    """Equal-tailed interval of a success probability under a uniform prior, Beta(1, 1).

    It holds whatever rule stopped the drawing: the rule read only the draws, so the likelihood is the same.

    Args:
        successes, failures: of judged draws, >= 0.
        level: its mass, in (0, 1).
    Returns:
        (low, high) in [0, 1], quantiles of Beta(successes + 1, failures + 1).
    """
    tail = (1 - level) / 2
    return _quantile(tail, successes + 1, failures + 1), 1 - _quantile(tail, failures + 1, successes + 1)


def difficulty(drawn: Mapping[int, Completion], rules: Rules) -> Difficulty:
    """How hard a prompt is, from its presamples (draw -> verified completion)."""
    read = looked_at(drawn, rules)
    counts = tally(drawn, len(read))
    low, high = posterior(counts.successes, counts.judged - counts.successes)
    rewards = [c.verdict.reward for c in read[: rules.first] if c.verdict is not None and is_judged(c)]
    return Difficulty(counts.drawn, counts.judged, counts.successes, round(low, 6), round(high, 6), mean(rewards))


def in_band(of: Difficulty, band: Sequence[float]) -> bool:
    """Whether the share of right ones among the judged draws lies in [low, high]; a prompt without any does not."""
    return of.judged > 0 and band[0] <= of.successes / of.judged <= band[1]


def mean_reward(counts: Mapping[str, Difficulty], ids: Iterable[str]) -> float | None:
    """Mean over prompts of their mean reward, those without a judged draw left out; None when none is left."""
    return mean(counts[i].reward for i in ids)


def mean(values: Iterable[float | int | None]) -> float | None:
    """Mean of the numbers among `values`, None without any."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def _quantile(mass: float, a: int, b: int) -> float:
    """Where the distribution function of Beta(a, b) reaches `mass`, by bisection to the last bit; a, b >= 1."""
    low, high = 0.0, 1.0
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if _distribution(middle, a, b) < mass else (low, middle)
    return high


def _distribution(x: float, a: int, b: int) -> float:
    """P(Beta(a, b) <= x) = P(Binomial(a + b - 1, x) >= a)."""
    n = a + b - 1
    log_x, log_rest = math.log(x), math.log1p(-x)
    whole = math.lgamma(n + 1)
    return math.fsum(
        math.exp(whole - math.lgamma(j + 1) - math.lgamma(n - j + 1) + j * log_x + (n - j) * log_rest)
        for j in range(a, n + 1)
    )
