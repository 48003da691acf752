"""A formula with what stands beside it: percent sign, unit, base, words that scale it."""

from __future__ import annotations

import re
from dataclasses import replace

from dphrl.verifiers.math.records import Asked, Group, Reading, Value, Words
from dphrl.verifiers.math.units import UNITS, read_unit
from dphrl.verifiers.math.words import SCALES

_TEXT = re.compile(r"\\text\{([^{}]*)\}")
_BASE = re.compile(
    r"\(?\s*([0-9A-Fa-f]*[0-9][0-9A-Fa-f]*|[A-F]{2,})\s*\)?\s*_\s*\{?\s*\(?(?:\\text\{)?\s*(\d+|[a-z]+)\s*\)?\}*"
)
_BASE_IN_WORDS = re.compile(r"\s*\(?\s*(?:\\text\{in\}\s*)?\\text\{base\}\s*(?:(\d+)|\\text\{([a-z]+)\})\s*\)?$")
_BASE_NAMES = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_BASES = {word: str(base) for base, word in enumerate(_BASE_NAMES, 2)}
_PERCENT = re.compile(r"\s*(?:\\?%|\\text\{(?:percent|percentage|pct)\}|\\text\{per\}\s*\\text\{cent\})\s*$")
_CURRENCY = re.compile(
    r"\s*([-+]?)\s*(?:(?:US|U\.S\.)?\\\$|\\text\{(euro|pound|USD|EUR|Rs|yen)\.?\}\.?)\s*([-+]?)(?=\s*[\d.\\])"
)
_TAIL = re.compile(r"\\text\{|\\Omega(?![A-Za-z])|\^\s*\{?\s*\\circ|\\mu\s*\\text")
_UNIT_WORDS = r"((?:\\text\{[^{}]*\}|\^\s*\{?\s*-?\d\s*\}?|\\cdot(?![A-Za-z])|\s)+)"
_UNIT_FRACTION = re.compile(rf"\\frac\s*\{{{_UNIT_WORDS}\}}\s*\{{{_UNIT_WORDS}\}}")
_LETTER_UNIT = re.compile(r"(.*[\d})])(\s*)((?:[A-Za-zµ]{1,3}(?:\s*\^\s*\{?-?\d\}?)?\s*/?\s*)+)", re.DOTALL)
_ORDINAL = re.compile(r"(\d+)\s*\^?\s*\{?\s*(?:\\text\{(?:st|nd|rd|th)\}|(?:st|nd|rd|th))\s*\}?")
_NEXT_NUMBER = re.compile(r"(?<![\d^{_.])(?:\d|\\frac|\\sqrt)")
_CONSTANT = re.compile(
    r"(?:\\(?:frac|sqrt|pi|cdot|binom|ln|log|text\{\})(?![A-Za-z])|[\d\s.,+*/^{}()\[\]\\!-]|\bi\b|\be\b)*"
)


def quantity(text: str, asked: Asked) -> Reading:
    """A formula with percent sign, unit, base, or words beside it."""
    text = _BASE_IN_WORDS.sub(r"_{\1\2}", text)
    based = _BASE.fullmatch(text)
    if based and not re.fullmatch(r"[A-Za-z]", based[1]):
        base = _BASES.get(based[2], based[2])
        if base.isdigit():
            return Value(based[1].lower(), base=base)
    ordinal = _ORDINAL.fullmatch(text)
    if ordinal:
        return Value(ordinal[1])
    shorter = _PERCENT.sub("", text)
    if shorter != text and _PERCENT.search(shorter):
        return Words(opaque(text))
    if shorter != text:
        return replace(value, percent=True) if isinstance(value := quantity(shorter, asked), Value) else value
    currency = _CURRENCY.match(text)
    if currency:
        value = quantity(currency[1] + currency[3] + text[currency.end() :], asked)
        name = UNITS[currency[2] or "dollar"]
        if isinstance(value, Value) and all(power < 0 for _, power in value.unit):
            return replace(value, unit=tuple(sorted(((name, 1), *value.unit))))
        return value
    text = _UNIT_FRACTION.sub(r"\1/(\2)", text)
    tail = next((match for match in _TAIL.finditer(text) if not _inside(text, match.start())), None)
    if tail is None:
        return _letter_unit(text, asked) or Value(text)
    if not tail.start():
        return _bare_letters(text) or Words(opaque(text))
    head, words = text[: tail.start()].strip().rstrip("~-"), text[tail.start() :].strip()
    if head.endswith("/"):
        head, words = head[:-1].strip(), f"/{words}"
    return _with_words(head, words, asked) or _bare_letters(text) or Words(opaque(text))


def _inside(text: str, place: int) -> bool:
    """Whether a place is within brackets, where words are no unit of the whole."""
    before = re.sub(r"\\text\{[^{}]*\}", "", text[:place])
    return any(before.count(left) > before.count(right) for left, right in ("()", "[]", "{}"))


def _with_words(head: str, tail: str, asked: Asked) -> Reading | None:
    """A number and the words behind it; None where they are not understood."""
    constant = _CONSTANT.fullmatch(head) is not None
    word = _TEXT.match(tail)
    scale = SCALES.get(word[1].lower()) if word else None
    if constant and scale and word:
        return quantity(rf"{head} \cdot {scale} {tail[word.end() :]}".strip(), asked)
    unit = read_unit(tail)
    if unit and (constant or (word and not unit[1])):
        letters = {name for name, _ in unit[0] if len(name) == 1}
        if letters and asked.variables and letters <= asked.variables:
            return None
        return Value(head, unit[0], unit[1])
    rest = _NEXT_NUMBER.search(tail)
    if not constant or rest is None:
        return None
    first = _with_words(head, tail[: rest.start()].strip(), asked)
    second = quantity(tail[rest.start() :], asked)
    if first is None or isinstance(second, Words):
        return None
    others = second.items if isinstance(second, Group) and second.kind == "compound" else (second,)
    return Group("compound", (first, *others), head + tail)


def _letter_unit(text: str, asked: Asked) -> Value | None:
    """A number, and behind a space bare letters that are a unit and no variable of the gold answer."""
    match = _LETTER_UNIT.fullmatch(text) if asked.variables is not None else None
    if match is None or asked.variables is None or not _CONSTANT.fullmatch(match[1]):
        return None
    names = re.findall(r"[A-Za-zµ]+", match[3])
    unit = read_unit(re.sub(r"([A-Za-zµ]+)", r"\\text{\1}", match[3]))
    if unit is None or unit[1] or not all(name in UNITS for name in names):
        return None
    free = match[2] and all(len(name) == 1 or "/" in match[3] for name in names) and asked.variables.isdisjoint(names)
    return Value(match[1], unit[0]) if free or asked.units.issuperset(name for name, _ in unit[0]) else None


def _bare_letters(text: str) -> Value | None:
    """The formula whose only words are single upright letters, which are variables; None where there are others."""
    words = _TEXT.findall(text)
    return Value(_TEXT.sub(r" \1", text).strip()) if all(len(word) == 1 for word in words) else None


def opaque(text: str) -> str:
    words = _TEXT.sub(lambda match: f" {match[1].lower()} ", text)
    return re.sub(r"\s*([^\w\s])\s*", r"\1", " ".join(words.split()))
