"""Programs that write an answer which looks like the gold and means something else."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from fractions import Fraction

from verifier_variants.math_golds import NUMBERS, VALUES, is_expression, value
from verifier_variants.variant import MathGold, Rewrite, box, boxes

_SIMPLE = (
    *VALUES,
    "percent",
    "degrees",
    "money",
    "quantity",
    "tuple",
    "list",
    "set",
    "interval",
    "assignments",
    "union",
)


def number_changed(rng: random.Random, gold: MathGold) -> Iterable[str]:
    """One number in it, another one."""
    if gold.kind not in (*_SIMPLE, "matrix", "plus-minus"):
        return []
    places = [
        m
        for m in re.finditer(r"(?<![\d.^_,])(?<!\^\{)(?<!_\{)\d+(?![\d,]*\.?\d*\}?\^\{?0\}?)", gold.text)
        if int(m.group())
    ]
    if not places:
        return []
    place = rng.choice(places)
    n = int(place.group())
    others = {n + 1, n + rng.randint(2, 9), n * 10 + rng.randint(1, 9)}
    return [box(gold.text[: place.start()] + str(other) + gold.text[place.end() :]) for other in sorted(others)]


_ZERO_FIRST = re.compile(r"-?0(?![\d.])")
"""0 with a mark, or a list that begins with it: -0 is 0."""


def sign_changed(_: random.Random, gold: MathGold) -> Iterable[str]:
    if gold.kind not in (*NUMBERS, "root", "percent", "degrees") or value(gold) == 0 or _ZERO_FIRST.match(gold.text):
        return []
    return [box(gold.text[1:] if gold.text.startswith("-") else f"-{gold.text}")]


def near_numbers(_: random.Random, gold: MathGold) -> Iterable[str]:
    """A rounding of it that is too coarse, a tenth, a half more."""
    number = value(gold)
    if number is None:
        return []
    if gold.kind == "whole":
        n = int(number)
        return boxes(f"{n}.5", f"{n}.01", *([f"{n}0", f"0.{abs(n)}"] if n else ["0.1"]))
    rough = [f"{float(number):.{digits}f}" for digits in (1, 2, 3)]
    return [box(text) for text in rough if abs(Fraction(text) - number) > Fraction(1, 100_000) * max(1, abs(number))]


def fractions_turned(_: random.Random, gold: MathGold) -> Iterable[str]:
    if gold.kind != "fraction" or gold.parts[1] == gold.parts[2] or int(gold.parts[1]) == 0:
        return []
    sign, top, bottom = gold.parts
    wrong = [rf"{sign}\frac{{{bottom}}}{{{top}}}", f"{sign}{bottom}/{top}", f"{sign}{top}.{bottom}"]
    if int(bottom) != 1:
        wrong += [f"{sign}{top}", f"{sign}{top} \\cdot {bottom}" if int(top) else f"{bottom}"]
    return [box(text) for text in wrong if Fraction(int(top), int(bottom)) != _loose(text)]


def _loose(text: str) -> Fraction | None:
    try:
        return abs(Fraction(text))
    except (ValueError, ZeroDivisionError):
        return None


def letters_behind(rng: random.Random, gold: MathGold) -> Iterable[str]:
    """Variables behind a number are no unit."""
    if gold.kind not in (*NUMBERS, "root") or value(gold) == 0:
        return []
    one, two = rng.sample("abnuvwxyz", 2)
    return boxes(f"{gold.text}{one}{two}", f"{gold.text}{one}^2{two}", f"{gold.text}{rng.choice('abnuvxyz')}")


def letters_lost(_: random.Random, gold: MathGold) -> Iterable[str]:
    """The number before the gold's variables, or the gold without its last one."""
    match = re.fullmatch(r"(.*[\d)}])\s*((?:[a-df-hj-zA-Z](?:\^\{?\d\}?)?\s*)+)", gold.text)
    if gold.kind != "expression" or not match or match[1].count("{") != match[1].count("}"):
        return []
    last = re.sub(r"[a-zA-Z](?:\^\{?\d\}?)?\s*$", "", gold.text).strip()
    return boxes(match[1], *([last] if last and last != match[1] else []))


def power_lost(_: random.Random, gold: MathGold) -> Iterable[str]:
    if gold.kind != "expression" or not (powers := list(re.finditer(r"([a-z])\^\{?([2-9])\}?", gold.text))):
        return []
    power = powers[0]
    rest = gold.text[: power.start()], gold.text[power.end() :]
    return boxes(
        *(f"{rest[0]}{new}{rest[1]}" for new in (power[1], f"{power[1]}_{power[2]}", f"{power[1]}^{{1{power[2]}}}"))
    )


def second_quantity(rng: random.Random, gold: MathGold) -> Iterable[str]:
    """More stands behind the right number."""
    number = value(gold) if gold.kind == "whole" else None
    if number is None or number < 1:
        return []
    n, k = int(number), rng.randint(2, 11)
    forms = (
        rf"{n} \text{{ feet }} {k} \text{{ inches}}", rf"{n} \text{{ hours }} {k} \text{{ minutes}}",
        f"{n} hours {k} minutes", rf"{n} \text{{ R }} {k}", rf"{n} \text{{ remainder }} {k}",
        rf"{n} \text{{ out of }} {n + k}", rf"{n} \text{{ or maybe }} {n + k}", rf"{n} \text{{ by }} {k}",
        rf"{n} : {n + k}", rf"{n} \text{{ to }} {n + k}", rf"{n} \text{{ red, }} {k} \text{{ blue}}",
        f"{n} adults, {k} children", rf"\text{{between {n} and {n + k}}}",
    )  # fmt: skip
    spoken = rng.choice((f"The answer is {n} feet {k} inches.", f"The answer is {n} out of {n + k}."))
    return [*boxes(*rng.sample(forms, 5)), spoken]


def words_that_change(rng: random.Random, gold: MathGold) -> Iterable[str]:
    number = value(gold) if gold.kind == "whole" else None
    if number is None or number < 2:
        return []
    n = int(number)
    k = rng.choice([k for k in range(2, 10) if k != n - 1])  # 7 choose 6 is 7
    behind = (
        "dozen", f"plus {k}", f"minus {k}", "squared", "cubed", f"choose {k}", "hundredths", "tenths", "thousand",
        "million", "quarters", "halves", "thirds", f"times {k}", f"divided by {k}", f"to the power of {k}",
        "factorial", "below zero", "hundred", "billion", f"over {k}",
    )  # fmt: skip
    some = rng.sample(behind, 5)
    return [*boxes(*(rf"{n} \text{{ {word}}}" for word in some[:4])), f"The answer is {n} {some[4]}."]


def factorials(_: random.Random, gold: MathGold) -> Iterable[str]:
    number = value(gold) if gold.kind == "whole" else None
    if number is None or number < 3:
        return []
    n = int(number)
    return boxes(
        f"{n}!", f"{n}^2", rf"\sqrt{{{n}}}", f"{n}i", f"{n}e", rf"{n}\pi", rf"\log {n}", f"{n} + C", f"|{n}| + 1"
    )


def unit_changed(rng: random.Random, gold: MathGold) -> Iterable[str]:
    pairs = {"cm": "mm", "m": "km", "feet": "meters", "hours": "days", "miles": "km", "minutes": "seconds", "kg": "g"}
    if gold.kind == "quantity" and (other := pairs.get(gold.parts[1])):
        return boxes(rf"{gold.parts[0]} \text{{ {other}}}", rf"{gold.parts[0]}\ \mathrm{{{other}}}")
    if gold.kind == "degrees":
        return boxes(rf"{gold.parts[0]} \text{{ radians}}", rf"{gold.parts[0]}\text{{ rad}}")
    if gold.kind == "money":
        n = gold.parts[0]
        return boxes(rf"{n} \text{{ cents}}", f"{n} cents", f"€{n}", f"£{n}", rf"{n} \text{{ euros}}")
    return []


def percent_changed(_: random.Random, gold: MathGold) -> Iterable[str]:
    if gold.kind != "percent":
        return []
    n = gold.parts[0]
    return boxes(rf"1{n}\%", rf"0.0{n.replace('.', '')}\%", rf"{n}\%\%", rf"{n} \text{{ percent of 2}}")


def thousands_in_brackets(rng: random.Random, gold: MathGold) -> Iterable[str]:
    number = value(gold) if gold.kind == "whole" else None
    if number is not None and number >= 1000:
        grouped = f"{int(number):,}"
        return boxes(f"({grouped})", f"[{grouped}]", rf"\{{{grouped}\}}")
    if number is not None and 100 <= number < 1000:
        k = rng.randint(1, 9)
        return boxes(f"({k},{int(number)})", f"({k}, {int(number)})", f"{k}, {int(number)}", f"x={k},{int(number)}")
    if gold.kind in ("tuple", "list") and all(re.fullmatch(r"\d{1,3}", part) for part in gold.parts):
        return boxes(str(int("".join(gold.parts))), f"({''.join(gold.parts)})")
    return []


def ends_changed(_: random.Random, gold: MathGold) -> Iterable[str]:
    """Open for closed ends and the other way round; an end moved."""
    if gold.kind != "interval":
        return []
    left, low, high, right = gold.parts
    wrong = []
    if "\\infty" not in low:
        wrong += [f"{'(' if left == '[' else '['}{low},{high}{right}", f"[{low}+1,{high}{right}"]
    if "\\infty" not in high:
        wrong += [f"{left}{low},{high}{']' if right == ')' else ')'}", f"{left}{low},{high}+1{right}"]
    return boxes(*wrong)


def unions_changed(_: random.Random, gold: MathGold) -> Iterable[str]:
    if gold.kind != "union":
        return []
    return boxes(*gold.parts, r" \cap ".join(gold.parts), r" \cup ".join(gold.parts[1:]))


def order_changed(_: random.Random, gold: MathGold) -> Iterable[str]:
    """The items of a tuple, values of named unknowns, entries of a matrix."""
    items = list(gold.parts)
    if gold.kind == "tuple" and items != items[::-1]:
        return [*boxes(f"({','.join(items[::-1])})"), *boxes(*([",".join(items[::-1])] if len(items) > 2 else []))]
    if gold.kind == "assignments":
        names = [item.partition("=")[0].strip() for item in items]
        values = [item.partition("=")[2].strip() for item in items]
        if values != values[::-1]:
            swapped = [f"{name}={number}" for name, number in zip(names, values[::-1], strict=True)]
            return boxes(", ".join(swapped), f"({','.join(values[::-1])})", ",".join(values[::-1]))
    if gold.kind == "matrix":
        rows = [[cell.strip() for cell in row.split("&")] for row in gold.parts[0].split("\\\\")]
        turned = r"\\".join("&".join(row) for row in rows[::-1])
        return [box(rf"\begin{{pmatrix}}{turned}\end{{pmatrix}}")] if rows != rows[::-1] else []
    return []


def items_changed(rng: random.Random, gold: MathGold) -> Iterable[str]:
    """An item of a list or set too few, one too many, one twice."""
    if gold.kind not in ("list", "set", "tuple"):
        return []
    items = list(gold.parts)
    marks = {"list": "%s", "set": r"\{%s\}", "tuple": "(%s)"}[gold.kind]
    rows = [items[:-1], items[1:], [*items, str(rng.randint(500, 999))]]
    if gold.kind != "set":
        rows.append([items[0], *items])
    return [box(marks % ",".join(row)) for row in rows]


def repeated_values(_: random.Random, gold: MathGold) -> Iterable[str]:
    if gold.kind not in ("whole", "fraction"):
        return []
    text = gold.text
    return boxes(f"{text}, {text}", f"({text}, {text})", f"x = {text}, y = {text}")


def hedged(rng: random.Random, gold: MathGold) -> Iterable[str]:
    if gold.kind not in (*NUMBERS, "root"):
        return []
    wrong = rng.randint(1000, 9999)
    text = gold.text
    return [
        *boxes(rf"{text} \text{{ or }} {wrong}", f"{text}, {wrong}", rf"{wrong} \text{{ or }} {text}"),
        *boxes(rf"\text{{not }} {text}", rf"\neq {text}", rf"> {text}", rf"x \ge {text}"),
        rf"$\boxed{{{text}}}$ or $\boxed{{{wrong}}}$",
    ]


def taken_back(rng: random.Random, gold: MathGold) -> Iterable[str]:
    """The gold stands there, and the answer is another."""
    wrong = rng.randint(1000, 9999)
    text = gold.text
    return [
        rf"First $\boxed{{{text}}}$. No, it is $\boxed{{{wrong}}}$.",
        f"<think>Perhaps \\boxed{{{text}}}? No.</think>\nThe answer is {wrong}.",
        f"<think>It could be ${text}$.</think>\n<answer>{wrong}</answer>",
        f"The answer is ${text}$? No. The answer is {wrong}.",
    ]


def unsolved(rng: random.Random, gold: MathGold) -> Iterable[str]:
    """An equation that has the gold for its solution."""
    name, text = gold.parts if gold.kind == "equation" else ("x", gold.text)
    number = Fraction(text) if re.fullmatch(r"-?\d+", text) else value(gold)
    if number is None or gold.kind not in ("equation", *NUMBERS) or len(name) > 1:
        return []
    a, b = rng.randint(2, 9), rng.randint(1, 20)
    right = a * number + b
    solution = str(right) if right.denominator == 1 else rf"\frac{{{right.numerator}}}{{{right.denominator}}}"
    moved = number - b
    other = str(moved) if moved.denominator == 1 else rf"\frac{{{moved.numerator}}}{{{moved.denominator}}}"
    return boxes(
        f"{a}{name} + {b} = {solution}",
        f"{name} + {b} = {solution}-{a - 1}{name}",
        f"{name} - {b} = {other}".replace("- -", "+ "),
    )


def other_name(_: random.Random, gold: MathGold) -> Iterable[str]:
    if gold.kind != "equation" or len(gold.parts[0]) > 1:
        return []
    name, right = gold.parts
    other = "u" if name != "u" else "v"
    return boxes(f"{other} = {right}") if other not in right else []


def plus_minus_lost(_: random.Random, gold: MathGold) -> Iterable[str]:
    if gold.kind != "plus-minus":
        return []
    middle, off = gold.parts
    return boxes(f"{middle}+{off}", f"{middle}-{off}", rf"{middle} \pm {off}, 7777")


def choice_changed(rng: random.Random, gold: MathGold) -> Iterable[str]:
    if gold.kind != "letter":
        return []
    letter = gold.parts[0]
    other = rng.choice([choice for choice in "ABCDE" if choice != letter])
    n = rng.randint(2, 99)
    forms = (
        rf"\textbf{{({other})}}\ {n}",
        other,
        rf"{letter} \text{{ or }} {other}",
        f"{letter}, {other}",
        f"{letter}{other}",
    )
    return [*boxes(*forms), f"Answer: ({other}) {n}", f"The answer is not {letter} but {other}."]


def words_changed(_: random.Random, gold: MathGold) -> Iterable[str]:
    if gold.kind != "word":
        return []
    word = gold.parts[0]
    return boxes(rf"\text{{not {word}}}", rf"\text{{{word} or not}}", r"\text{maybe } 5")


def end_of_an_expression(rng: random.Random, gold: MathGold) -> Iterable[str]:
    """No box; the gold is the last number of an answer that is more."""
    number = value(gold) if gold.kind == "whole" else None
    if number is None or number < 2:
        return []
    n = int(number)
    k = rng.choice([k for k in range(2, 10) if k * k != n])  # 6 sqrt(36) is 36
    return [
        f"So the probability is {k}/{n}.", rf"So the probability is $\frac{{{k}}}{{{n}}}$.",
        f"The length is {k}sqrt({n}).", rf"The distance is ${k}\sqrt{{{n}}}$.", f"<answer>x + {n}</answer>",
        f"So the value is $x^{{{n}}}$.", f"It is {k}^{n}.",
    ]  # fmt: skip


def echo_of_the_question(rng: random.Random, gold: MathGold) -> Iterable[str]:
    """A formula of the question that is longer than the gold. Only the question tells it from an answer."""
    if gold.kind not in VALUES:
        return []
    formulas = {formula.strip() for formula in re.findall(r"\$([^$=]+)\$", gold.prompt)}
    bare = gold.text.replace(" ", "")
    fit = sorted(
        f
        for f in formulas
        if re.search(r".[-+*^/]|\\frac|\\sqrt", f) and len(f.replace(" ", "")) > len(bare) and is_expression(f)
    )
    return [box(rng.choice(fit))] if fit else []


CHANGED: dict[str, Rewrite] = {
    name.__name__.replace("_", " "): name
    for name in (
        number_changed, sign_changed, near_numbers, fractions_turned, letters_behind, letters_lost, power_lost,
        second_quantity, words_that_change, factorials, unit_changed, percent_changed, thousands_in_brackets,
        ends_changed, unions_changed, order_changed, items_changed, repeated_values, hedged, taken_back, unsolved,
        other_name, plus_minus_lost, choice_changed, words_changed, end_of_an_expression, echo_of_the_question,
    )
}  # fmt: skip
"""Class -> its program."""
