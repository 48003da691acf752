"""A completion beside a gold whose verdict is known from how it was made."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One completion."""

    rule: str
    """The class of rewriting that made it."""
    same: bool
    """Whether it means what the gold does."""
    gold: str
    completion: str
    source: str
    """The data set its gold is from, or `shipped`."""
    prompt: str = ""
    """The question, where one is known."""
    db: str = ""
    """Path of the database (SQL)."""
    mode: str = ""
    """How results are compared (SQL)."""


Rewrite = Callable[[random.Random, "MathGold"], Iterable[str]]
"""(randomness, gold) -> completions; none where the rule does not fit the gold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MathGold:
    """A gold answer and what kind of answer it is (`math_golds.read_gold`)."""

    source: str
    text: str
    """LaTeX, without dollars around it."""
    kind: str
    parts: tuple[str, ...] = ()
    """Its pieces, as its kind has them: items of a list, numerator and denominator, sides of an equation, ..."""
    prompt: str = ""


def box(answer: str) -> str:
    """A completion that ends in a boxed answer."""
    return rf"Now we put things together. So the answer is $\boxed{{{answer}}}$."


def boxes(*answers: str) -> list[str]:
    return [box(answer) for answer in answers]


def fitting(rules: Mapping[str, Rewrite], rng: random.Random, gold: MathGold) -> dict[str, list[str]]:
    """Rule -> completions it writes for a gold, those rules alone that write any."""
    written = {name: list(rule(rng, gold)) for name, rule in rules.items()}
    return {name: completions for name, completions in written.items() if completions}
