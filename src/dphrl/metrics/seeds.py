"""Several training seeds measured on the same prompts: how far would other prompts or other seeds move the mean."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from jaxtyping import Float

NORMAL_FROM = 300
"""Degrees of freedom from which Student's t is taken as normal (its 97.5 % quantile is then 0.4 % larger)."""


@dataclass(frozen=True, slots=True)
class SeedSpread:
    """Where the uncertainty of a mean over seeds and prompts comes from; all in the unit of the scores."""

    prompts: float
    """Standard error of the mean that comes from which prompts were chosen."""
    seeds: float
    """... from which seeds were trained with."""
    rest: float
    """... from what is left: seeds differ from prompt to prompt, and n draws are few."""
    df: float
    """Degrees of freedom of the interval, >= 1."""
    low: float
    high: float
    """Ends of the interval of the mean, over prompts and seeds."""


def seed_spread(scores_SP: Float[np.ndarray, "seeds prompts"], *, level: float = 0.95) -> SeedSpread | None:
    """Variance components of a crossed design, score = mean + prompt + seed + rest, and an interval over all three.

    The components follow from the mean squares of the two-way table; one that comes out negative is shown as 0. The
    variance of the mean is (MS_prompts + MS_seeds - MS_rest) / (seeds x prompts), where the sum is never taken below
    MS_prompts or MS_seeds alone; the interval is Student's, with Satterthwaite's degrees of freedom, rounded down. With
    the two or three seeds that one can afford it is wide where seeds matter, as it must be; a bootstrap over so few
    seeds would be too narrow.

    Args:
        scores_SP: a number everywhere.
        level: coverage, in (0, 1).
    Returns:
        None with fewer than two seeds or prompts: nothing says what another seed would do.
    Source: Satterthwaite, Biometrics Bulletin 2, 1946; Searle, Casella, McCulloch, Variance Components, 1992, ch. 4.
    """
    seeds, prompts = scores_SP.shape
    if seeds < 2 or prompts < 2:
        return None
    value = float(scores_SP.mean())
    seed_S, prompt_P = scores_SP.mean(axis=1), scores_SP.mean(axis=0)
    rest_SP = scores_SP - seed_S[:, None] - prompt_P[None, :] + value
    of_prompts = seeds * float(((prompt_P - value) ** 2).sum()) / (prompts - 1)
    of_seeds = prompts * float(((seed_S - value) ** 2).sum()) / (seeds - 1)
    of_rest = float((rest_SP**2).sum()) / ((seeds - 1) * (prompts - 1))
    cells = seeds * prompts
    total = max(of_prompts + of_seeds - of_rest, of_prompts, of_seeds)
    squares = of_prompts**2 / (prompts - 1) + of_seeds**2 / (seeds - 1) + of_rest**2 / ((seeds - 1) * (prompts - 1))
    df = max(total**2 / squares, 1.0) if squares > 0 else float(cells - 1)
    reach = student(level, math.floor(df)) * math.sqrt(total / cells)
    return SeedSpread(
        prompts=math.sqrt(max(of_prompts - of_rest, 0.0) / cells),
        seeds=math.sqrt(max(of_seeds - of_rest, 0.0) / cells),
        rest=math.sqrt(of_rest / cells),
        df=df,
        low=value - reach,
        high=value + reach,
    )


@lru_cache(maxsize=1024)
def student(level: float, df: int) -> float:
    """The t with P(|T| <= t) = level for Student's T with df >= 1 degrees of freedom.

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4.
    """
    if df >= NORMAL_FROM:
        return NormalDist().inv_cdf((1.0 + level) / 2.0)
    low, high = 0.0, math.pi / 2.0  # of theta = atan(t / sqrt(df))
    while low < (middle := (low + high) / 2.0) < high:
        low, high = (middle, high) if _within(middle, df) < level else (low, middle)
    return math.tan(low) * math.sqrt(df)


def _within(theta: float, df: int) -> float:
    """P(|T| <= sqrt(df) tan(theta)): a finite sum of powers of the cosine."""
    sine, cosine = math.sin(theta), math.cos(theta)
    if df % 2:
        term, total = cosine, 0.0
        for i in range(1, df - 1, 2):
            total += term
            term *= cosine**2 * (i + 1) / (i + 2)
        return 2.0 / math.pi * (theta + sine * total)
    term, total = 1.0, 0.0
    for i in range(0, df - 1, 2):
        total += term
        term *= cosine**2 * (i + 1) / (i + 2)
    return sine * total
