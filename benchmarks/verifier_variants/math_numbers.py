"""Programs that write a number another way without changing its value."""

from __future__ import annotations

import random
from collections.abc import Iterable
from fractions import Fraction

from verifier_variants.math_golds import value
from verifier_variants.variant import MathGold, box, boxes


def thousands(_: random.Random, gold: MathGold) -> Iterable[str]:
    number = value(gold) if gold.kind == "whole" else None
    if number is None or abs(number) < 1000:
        return []
    grouped = f"{int(number):,}"
    return [box(grouped.replace(",", mark)) for mark in (",", "{,}", r"\,", " ", r",\!", r"\;")]


def zeros(_: random.Random, gold: MathGold) -> Iterable[str]:
    if gold.kind == "whole" and (number := value(gold)) is not None:
        n = int(number)
        return boxes(f"{n}.", f"{n}.0", f"{n}.00", *([f"+{n}"] if n > 0 else []))
    if gold.kind == "decimal" and (number := value(gold)) is not None:
        return boxes(f"{gold.text}0", *([str(int(number))] if number == int(number) else []))
    return []


def decimals_of_fractions(_: random.Random, gold: MathGold) -> Iterable[str]:
    number = value(gold)
    if gold.kind != "fraction" or number is None:
        return []
    for digits in range(9):
        if (number * 10**digits).denominator == 1:
            return [box(f"{float(number):.{digits}f}")]
    return [box(f"{float(number):.{digits}f}") for digits in (7, 8, 10, 12, 15)]


def repeating_decimals(_: random.Random, gold: MathGold) -> Iterable[str]:
    number = value(gold)
    if gold.kind != "fraction" or number is None or number.denominator not in (3, 9, 11, 33, 99) or number < 0:
        return []
    width = 1 if number.denominator in (3, 9) else 2
    whole, rest = divmod(number.numerator, number.denominator)
    digits = f"{rest * (10**width - 1) // number.denominator:0{width}d}"
    dots = rf"\dot{{{digits}}}" if width == 1 else rf"\dot{{{digits[0]}}}\dot{{{digits[1]}}}"
    return boxes(
        rf"{whole}.\overline{{{digits}}}", f"{whole}.{dots}", f"{whole}.({digits})", rf"{whole}.{digits * 3}\ldots"
    )


def mixed_numbers(_: random.Random, gold: MathGold) -> Iterable[str]:
    number = value(gold)
    if gold.kind != "fraction" or number is None or abs(number) < 1 or number.denominator == 1:
        return []
    sign = "-" if number < 0 else ""
    whole, rest = divmod(abs(number).numerator, number.denominator)
    return boxes(rf"{sign}{whole}\frac{{{rest}}}{{{number.denominator}}}", f"{sign}{whole} {rest}/{number.denominator}")


def fractions_written(rng: random.Random, gold: MathGold) -> Iterable[str]:
    if gold.kind != "fraction":
        return []
    sign, top, bottom = gold.parts
    k = rng.randint(2, 9)
    forms = [
        f"{sign}{top}/{bottom}", rf"{sign}\frac{{{int(top) * k}}}{{{int(bottom) * k}}}",
        rf"{{{sign}{top} \over {bottom}}}", rf"{sign}\nicefrac{{{top}}}{{{bottom}}}",
        rf"\frac{{{sign}{top}}}{{{bottom}}}",
    ]  # fmt: skip
    if len(top) == len(bottom) == 1:
        forms.append(rf"{sign}\frac {top}{bottom}")
    return boxes(*forms)


def root_forms(_: random.Random, gold: MathGold) -> Iterable[str]:
    if gold.kind != "root" or gold.parts[0].startswith("-"):
        return []
    factor, inside = gold.parts
    f = int(factor or 1)
    forms = [rf"\sqrt{{{f * f * int(inside)}}}", rf"{inside}^{{1/2}}" if f == 1 else rf"{f} \cdot \sqrt{{{inside}}}"]
    return boxes(
        *forms, rf"\sqrt{{{inside}}}" if f == 1 else rf"\sqrt{{{inside}}} \cdot {f}", f"{factor}sqrt({inside})"
    )


def power_of_ten(_: random.Random, gold: MathGold) -> Iterable[str]:
    number = value(gold) if gold.kind == "whole" else None
    if number is None or number <= 0 or number % 1000:
        return []
    digits = str(int(number)).rstrip("0")
    power = len(str(int(number))) - 1
    factor = digits[0] + (f".{digits[1:]}" if digits[1:] else "")
    return boxes(rf"{factor} \times 10^{{{power}}}", rf"{factor} \cdot 10^{{{power}}}", f"{factor} x 10^{power}")


def ordinals(_: random.Random, gold: MathGold) -> Iterable[str]:
    number = value(gold) if gold.kind == "whole" else None
    if number is None or not 0 < number < 100:
        return []
    n = int(number)
    end = "th" if 10 < n % 100 < 14 else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return boxes(rf"{n}^{{\text{{{end}}}}}", rf"{n}\text{{{end}}}", f"{n}{end}", rf"{n}^{{{end}}}")


def arithmetic_of_values(rng: random.Random, gold: MathGold) -> Iterable[str]:
    number = value(gold)
    if gold.kind != "fraction" or number is None:
        return []
    part = Fraction(rng.randint(1, 9), number.denominator)
    rest = number - part
    return boxes(rf"\frac{{{rest.numerator}}}{{{rest.denominator}}} + \frac{{{part.numerator}}}{{{part.denominator}}}")
