"""Programs that write a gold answer another way without changing what it means."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable

from verifier_variants.math_golds import NUMBERS, VALUES, split_top, value
from verifier_variants.math_numbers import (
    arithmetic_of_values,
    decimals_of_fractions,
    fractions_written,
    mixed_numbers,
    ordinals,
    power_of_ten,
    repeating_decimals,
    root_forms,
    thousands,
    zeros,
)
from verifier_variants.variant import MathGold, Rewrite, box, boxes

UNITS = ("cm", "km", "kg", "hours", "miles", "minutes", "liters", "feet")
NOUNS = ("apples", "students", "eggs", "tickets", "ways", "square feet", "miles per hour", "pieces of fruit")
NAMES = "xyzw"
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_FULL_WIDTH = str.maketrans("0123456789.-", "０１２３４５６７８９．－")
_FRACTION_SIGNS = {
    "1/2": "½",
    "1/3": "⅓",
    "2/3": "⅔",
    "1/4": "¼",
    "3/4": "¾",
    "3/8": "⅜",
    "2/5": "⅖",
    "1/8": "⅛",
    "5/6": "⅚",
}
_TYPEFACES = (
    r"\text{%s}", r"\textbf{%s}", r"\mathbf{%s}", r"\mathrm{%s}", r"\boldsymbol{%s}", r"{\bf %s}", r"\bold{%s}",
    r"\textnormal{%s}", r"\color{red}{%s}", r"\textcolor{blue}{%s}", r"\large %s", r"\bm{%s}", r"\mathsf{%s}",
)  # fmt: skip


def as_it_stands(rng: random.Random, gold: MathGold) -> Iterable[str]:
    text = gold.text
    forms = (box(text), rf"Thus \[ \boxed{{{text}}} \]", rf"**$\boxed{{ {text} }}$**", rf"$\boxed{{{text}.}}$")
    return [box(text), rng.choice(forms)]


def around_the_box(rng: random.Random, gold: MathGold) -> Iterable[str]:
    """Earlier boxes that the answer takes back, thoughts, and the task quoted."""
    wrong = rng.randint(1000, 9999)
    return [
        rf"I get $\boxed{{{wrong}}}$. Wait, that is wrong. It is $\boxed{{{gold.text}}}$.",
        f"<think>\nMaybe \\boxed{{{wrong}}}?\n</think>\n\nThe answer is $\\boxed{{{gold.text}}}$.",
        rf"I shall put the answer in \boxed{{}}. The answer is \boxed{{{gold.text}}}.",
    ]


def fraction_commands(_: random.Random, gold: MathGold) -> Iterable[str]:
    text = re.sub(r"\\[dt]frac", r"\\frac", gold.text)
    if "\\frac" not in text:
        return []
    return boxes(
        text.replace("\\frac", "\\dfrac"), text.replace("\\frac", "\\tfrac"), text.replace("\\frac", "\\cfrac")
    )


def brackets(_: random.Random, gold: MathGold) -> Iterable[str]:
    plain = re.sub(r"\\(?:left|right)(?![A-Za-z])", "", gold.text)
    if not re.search(r"[(\[]", plain) or re.search(r"\\[()\[\]]", plain) or plain.count("(") != plain.count(")"):
        return []
    sized = re.sub(r"([(\[])", r"\\left\1", re.sub(r"([)\]])", r"\\right\1", plain)) if "[" not in plain else plain
    big = plain.replace("(", r"\big(").replace(")", r"\big)")
    return boxes(plain, sized, big)


def spaces(rng: random.Random, gold: MathGold) -> Iterable[str]:
    if "\\text" in gold.text or gold.kind in ("word", "other") or re.search(r"\d,\d{3}", gold.text):
        return []
    written = re.sub(r"(?<=[\w})])\s*([-+=])\s*(?=[\w\\(])", r" \1 ", gold.text).replace(",", ", ")
    thin = rng.choice((r"\,", r"\;", "~", r"\ ", r"\quad "))
    return boxes(written, f"{thin}{gold.text}{thin}") if written != gold.text else [box(f"{thin}{gold.text}")]


def braces(_: random.Random, gold: MathGold) -> Iterable[str]:
    braced = re.sub(r"\^(\w)(?!\w)", r"^{\1}", gold.text)
    bare = re.sub(r"\^\{(\w)\}", r"^\1", gold.text)
    return [box(text) for text in {braced, bare} - {gold.text}]


def mathematics_marks(_: random.Random, gold: MathGold) -> Iterable[str]:
    text = gold.text
    return boxes(f"${text}$", rf"\displaystyle {text}", rf"\({text}\)") if "\\$" not in text else []


def typeface(rng: random.Random, gold: MathGold) -> Iterable[str]:
    if gold.kind in ("whole", "decimal", "letter"):
        return [box(form % gold.parts[0]) for form in rng.sample(_TYPEFACES, 4)]
    if gold.kind in (*VALUES, "tuple", "list"):
        return boxes(rf"\boldsymbol{{{gold.text}}}", rf"\mathbf{{{gold.text}}}")
    return []


def label(rng: random.Random, gold: MathGold) -> Iterable[str]:
    if gold.kind not in (*NUMBERS, "root"):
        return []
    text = gold.text
    forms = (
        f"={text}", rf"\text{{The answer is }} {text}", rf"\text{{Answer: }} {text}", rf"\text{{Total}} = {text}",
        rf"\text{{area}} = {text}", f"x = {text}", rf"\mathbf{{x = {text}}}", rf"\text{{Final answer: }} {text}",
    )  # fmt: skip
    return [box(form) for form in rng.sample(forms, 4)]


def unit_added(rng: random.Random, gold: MathGold) -> Iterable[str]:
    if gold.kind not in ("whole", "decimal"):
        return []
    number, unit, noun = gold.text, rng.choice(UNITS), rng.choice(NOUNS)
    forms = (
        rf"{number} \text{{ {unit}}}", rf"{number}\ \mathrm{{{unit}}}", rf"{number}\,\text{{{noun}}}",
        f"{number} {noun}", rf"{number}\text{{ cm}}^2", f"{number} m²", rf"{number} \text{{ {noun} per day}}",
        rf"\text{{{number} {noun}}}", rf"{number}\textbf{{ {unit}}}", rf"{number}~\mathrm{{cm}}^{{3}}",
    )  # fmt: skip
    return [box(form) for form in rng.sample(forms, 5)]


def currency_added(_: random.Random, gold: MathGold) -> Iterable[str]:
    number = value(gold)
    if gold.source != "gsm8k" or gold.kind != "whole" or number is None or number <= 0:
        return []
    n = int(number)
    forms = (rf"\${n}", rf"\${n:,}.00", rf"{n} \text{{ dollars}}", f"{n} dollars", rf"\text{{\${n}}}", f"USD {n}")
    return [*boxes(*forms), f"The answer is ${n:,}.", f"#### ${n}"]


def unit_of_the_gold(_: random.Random, gold: MathGold) -> Iterable[str]:
    if gold.kind != "quantity":
        return []
    number, unit = gold.parts
    return boxes(number, rf"{number}\text{{ {unit}}}", rf"{number}\,\mathrm{{{unit}}}", f"{number} {unit}")


def percent(_: random.Random, gold: MathGold) -> Iterable[str]:
    if gold.kind != "percent":
        return []
    n = gold.parts[0]
    return boxes(n, rf"{n}\%", f"{n}%", rf"{n} \text{{ percent}}", f"{n} percent", rf"{n} \%")


def degrees(_: random.Random, gold: MathGold) -> Iterable[str]:
    if gold.kind != "degrees":
        return []
    n = gold.parts[0]
    return boxes(
        n, f"{n}°", rf"{n} \text{{ degrees}}", rf"{n}^{{\circ}}", rf"{n}^\circ", rf"{n}\text{{°}}", rf"{n}\degree"
    )


def money(_: random.Random, gold: MathGold) -> Iterable[str]:
    if gold.kind != "money":
        return []
    n = gold.parts[0]
    return boxes(n, rf"\${n}", rf"{n}\text{{ dollars}}", rf"\text{{\${n}}}")


def unicode_signs(_: random.Random, gold: MathGold) -> Iterable[str]:
    text = gold.text
    if gold.kind in ("whole", "decimal"):
        return boxes(text.translate(_FULL_WIDTH), *([text.replace("-", "−")] if text[0] == "-" else []))
    if gold.kind == "fraction":
        sign, top, bottom = gold.parts
        forms = [f"{sign}{top}⁄{bottom}", f"{sign}{top}∕{bottom}"]
        return boxes(*forms, *([sign + known] if (known := _FRACTION_SIGNS.get(f"{top}/{bottom}")) else []))
    if gold.kind == "root":
        factor, inside = gold.parts
        return boxes(f"{factor}√{inside}", rf"{factor}√{{{inside}}}", f"{factor}√({inside})")
    if gold.kind == "expression":
        written = re.sub(
            r"\^(?:\{(\d)\}|(\d)(?!\d))", lambda match: (match[1] or match[2]).translate(_SUPERSCRIPTS), text
        )
        written = re.sub(r"\\pi(?![a-z])", "π", re.sub(r"\\cdot(?![a-z])", "·", written)).replace("-", "−")
        return [box(written)] if written != text else []
    return []


def lists_reordered(rng: random.Random, gold: MathGold) -> Iterable[str]:
    if gold.kind not in ("list", "set"):
        return []
    items = list(gold.parts)
    rng.shuffle(items)
    row = ", ".join(items)
    if gold.kind == "set":
        return boxes(rf"\{{{row}\}}", rf"\left\{{{row}\right\}}", rf"\lbrace {row} \rbrace")
    forms = [row, ",".join(reversed(gold.parts))]
    if all(re.fullmatch(r"[-\d./]+|-?\\frac\{\d+\}\{\d+\}", item) for item in items):
        last = rf"{', '.join(items[:-1])} \text{{ and }} {items[-1]}"
        forms += [last, last.replace("and", "or"), " or ".join(f"x = {item}" for item in items)]
    return boxes(*forms)


def named_tuples(_: random.Random, gold: MathGold) -> Iterable[str]:
    if gold.kind != "tuple" or len(gold.parts) > len(NAMES) or any(re.search(r"[a-z]", p) for p in gold.parts):
        return []
    names = NAMES[: len(gold.parts)]
    row, values = ",".join(names), ",".join(gold.parts)
    pairs = ", ".join(f"{name} = {item}" for name, item in zip(names, gold.parts, strict=True))
    return boxes(
        f"({row})=({values})", rf"({', '.join(names)}) = \left({values}\right)", pairs, rf"\left( {values} \right)"
    )


def assignments(_: random.Random, gold: MathGold) -> Iterable[str]:
    if gold.kind != "assignments":
        return []
    pairs = list(gold.parts)
    ordered = sorted(pair.partition("=")[0].strip() for pair in pairs)
    forms = [", ".join(reversed(pairs)), r" \text{ and } ".join(pairs)]
    forms.append(r"\begin{cases} " + r" \\ ".join(pairs) + r" \end{cases}")
    if ordered == [pair.partition("=")[0].strip() for pair in pairs]:
        forms.append(f"({', '.join(pair.partition('=')[2].strip() for pair in pairs)})")
    return boxes(*forms)


def unions_reordered(_: random.Random, gold: MathGold) -> Iterable[str]:
    return [box(r" \cup ".join(reversed(gold.parts)))] if gold.kind == "union" else []


def intervals(_: random.Random, gold: MathGold) -> Iterable[str]:
    if gold.kind != "interval":
        return []
    left, low, high, right = gold.parts
    forms = [rf"\left{left}{low}, {high}\right{right}", rf"x \in {left}{low},{high}{right}"]
    if "\\infty" in high and "+" not in high:
        forms.append(f"{left}{low}, +\\infty{right}")
    return boxes(*forms)


def equations(_: random.Random, gold: MathGold) -> Iterable[str]:
    if gold.kind == "equation":
        name, right = gold.parts
        return boxes(f"{name} = {right}", f"{name}={right}", right, f"{right} = {name}")
    if gold.kind in ("whole", "decimal", "fraction", "root"):
        return boxes(f"x = {gold.text}", f"n={gold.text}", f"{gold.text} = x")
    return []


def products_reordered(rng: random.Random, gold: MathGold) -> Iterable[str]:
    match = re.fullmatch(r"(-?\d*)\s*((?:[a-df-hj-zA-DF-Z](?:\^\{?\d\}?)?\s*){2,4})", gold.text)
    if gold.kind != "expression" or not match:
        return []
    factors = re.findall(r"[a-zA-Z](?:\^\{?\d\}?)?", match[2])
    other = factors[::-1]
    rng.shuffle(other)
    return boxes(f"{match[1]} {' '.join(factors)}", match[1] + "".join(other), match[1] + r" \cdot ".join(["", *other]))


def terms_reordered(_: random.Random, gold: MathGold) -> Iterable[str]:
    if gold.kind != "expression" or "/" in gold.text:
        return []
    terms = split_top(re.sub(r"(?<=[\w)}\s])([-+])", r";\1", gold.text), ";")
    terms = [term.replace(";", "") for term in terms]
    if len(terms) < 2 or any(not term or re.search(r"\\(?:sin|cos|tan|ln|log)", term) for term in terms):
        return []
    written = "".join(term if term[0] in "+-" else f"+{term}" for term in reversed(terms)).removeprefix("+")
    return [box(written)]


def matrices(_: random.Random, gold: MathGold) -> Iterable[str]:
    if gold.kind != "matrix":
        return []
    inside = gold.parts[0]
    columns = "c" * (1 + inside.split("\\\\")[0].count("&"))
    return boxes(
        rf"\begin{{bmatrix}}{inside}\end{{bmatrix}}",
        rf"\left(\begin{{array}}{{{columns}}}{inside}\end{{array}}\right)",
    )


def words(_: random.Random, gold: MathGold) -> Iterable[str]:
    if gold.kind != "word":
        return []
    word = gold.parts[0]
    return boxes(
        word, rf"\text{{{word}}}", rf"\textbf{{{word}}}", rf"\text{{{word}.}}", word.capitalize(), word.lower()
    )


def choices(rng: random.Random, gold: MathGold) -> Iterable[str]:
    if gold.kind != "letter":
        return []
    letter, n = gold.parts[0], rng.randint(2, 99)
    forms = (rf"\textbf{{({letter})}}\ {n}", f"{letter}: {n}", f"{letter})", rf"\text{{({letter})}}", f"({letter}) {n}")
    return [*boxes(*forms), f"Answer: ({letter}) {n}", f"The answer is {letter}."]


def plus_minus(_: random.Random, gold: MathGold) -> Iterable[str]:
    if gold.kind != "plus-minus":
        return []
    middle, off = gold.parts
    return boxes(
        f"{middle}+{off}, {middle}-{off}", rf"{middle} \pm {off}", rf"{middle}-{off} \text{{ and }} {middle}+{off}"
    )


def announced(rng: random.Random, gold: MathGold) -> Iterable[str]:
    if gold.kind not in (*VALUES, "tuple"):
        return []
    forms = (
        "The answer is ${}$.", "Answer: ${}$", "**Answer:** ${}$", "Final answer: ${}$", "#### ${}$",
        "<think>Let me see.</think>\n<answer>{}</answer>", "<answer>${}$</answer>",
        "Therefore the final answer is ${}$.",
    )  # fmt: skip
    return [form.format(gold.text) for form in rng.sample(forms, 4)]


def last_expression(rng: random.Random, gold: MathGold) -> Iterable[str]:
    if gold.kind not in VALUES:
        return []
    forms = (
        "So the probability is ${}$.",
        "Hence the value we want is ${}$",
        "Thus we get \\[ {} \\]",
        "It equals ${}$.",
    )
    plain = [f"Adding up, the total is {gold.text}."] if gold.kind == "whole" else []
    return [*(form.format(gold.text) for form in rng.sample(forms, 2)), *plain]


SAME: dict[str, Rewrite] = {
    name.__name__.replace("_", " "): name
    for name in (
        as_it_stands, around_the_box, fraction_commands, brackets, spaces, braces, mathematics_marks, typeface, label,
        thousands, zeros, decimals_of_fractions, repeating_decimals, mixed_numbers, fractions_written, unit_added,
        currency_added, unit_of_the_gold, percent, degrees, money, unicode_signs, root_forms, power_of_ten, ordinals,
        lists_reordered, named_tuples, assignments, unions_reordered, intervals, equations, products_reordered,
        terms_reordered, matrices, words, choices, plus_minus, announced, last_expression, arithmetic_of_values,
    )
}  # fmt: skip
"""Class -> its program."""
