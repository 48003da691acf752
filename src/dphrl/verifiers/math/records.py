"""What an answer is read as: frozen records that any module of the verifier may take."""

from __future__ import annotations

from dataclasses import dataclass

from dphrl.verifiers.math.units import Unit


@dataclass(frozen=True, slots=True)
class Value:
    """One formula, and what stands beside it."""

    latex: str
    unit: Unit = ()
    nouns: tuple[str, ...] = ()
    """Words behind the number that are in no list of units."""
    percent: bool = False
    base: str = ""
    """Of a numeral, as digits; '' when none is written."""
    modulus: str = ""


@dataclass(frozen=True, slots=True)
class Named:
    """A name and what it is: x = 5."""

    name: str
    value: Reading


@dataclass(frozen=True, slots=True)
class Equation:
    """Two sides of which neither is a name."""

    sides: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Group:
    """Several readings: `list` and `set` in any order, as are `cup` and `cap`; by place a pair of brackets, `compound`
    (5 feet 6 inches), `matrix`, `cases`, `row`; `about` = a value and what it is about."""

    kind: str
    items: tuple[Reading, ...]
    latex: str


@dataclass(frozen=True, slots=True)
class Words:
    """Words, or what is not understood: compared as text."""

    text: str


Reading = Value | Named | Equation | Group | Words

ANY_ORDER = frozenset({"list", "set", "cup", "cap"})


@dataclass(frozen=True, slots=True)
class Asked:
    """What the gold answer says about how an answer is to be read."""

    variables: frozenset[str] | None = None
    """Its letters that are variables, no units; None = of all letters (the gold answer itself)."""
    units: frozenset[str] = frozenset()
    """Names of its units, which an answer may write as bare letters."""


AS_GOLD = Asked()


def values(reading: Reading) -> list[Value]:
    """The formulas of a reading, from left to right; an equation's sides are none."""
    if isinstance(reading, Value):
        return [reading]
    if isinstance(reading, Named):
        return values(reading.value)
    return [value for item in reading.items for value in values(item)] if isinstance(reading, Group) else []
