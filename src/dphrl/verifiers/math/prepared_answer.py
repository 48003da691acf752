"""What math-verify cannot read, or reads as something else, written so that it can. Text only; nothing is evaluated."""

from __future__ import annotations

import re
from typing import NamedTuple

_UNITS = """
meter m metre metres meters; kilometer km kilometre kilometres kilometers;
centimeter cm centimetre centimetres centimeters; millimeter mm millimeters; inch in inches;
foot ft feet; yard yd yards; mile mi miles; mph; second s sec seconds;
minute min minutes; hour h hr hrs hours; day days; week weeks; month months; year yr years; gram g grams; milligram mg;
kilogram kg kilograms; pound lb lbs pounds; ounce oz ounces; liter l litre litres liters; milliliter ml milliliters;
newton N newtons; joule J joules; watt W watts; pascal Pa; hertz Hz; volt V volts; ampere A amp amps; kelvin K; tesla T;
radian rad radians; degree deg degrees; dollar dollars usd bucks; cent cents; euro euros; sterling; unit units;
ratio; person people persons; student students; way ways; time times; point points; mole mol moles; erg ergs
"""
UNITS: dict[str, str] = {
    name: names.split()[0] for names in _UNITS.replace("\n", " ").split(";") for name in names.split() if names.strip()
}
"""How a unit is written -> its name. Two answers in different units of this table differ; nothing is converted."""

_PERCENT = re.compile(r"\s*(?:\\?%|\\text\s*\{\s*percent\s*\}|\bpercent\b|\bper cent\b)\s*$")
_BASE = re.compile(r"([0-9A-Fa-f]+)\s*_\s*\{?(?:\\text\{)?\s*(\d+|two|three|four|five|six|seven|eight|nine)\s*\}*")
_BASES = {word: str(n) for n, word in enumerate(("two", "three", "four", "five", "six", "seven", "eight", "nine"), 2)}
_MIXED = re.compile(r"(?<![\d.}])(\d+)\s+(\d+)\s*/\s*(\d+)(?![\d.])")
_LONE_POINT = re.compile(r"(\d)\.(?!\d)")
_SCIENTIFIC = re.compile(r"(\d(?:\.\d*)?|\.\d+)\s*[eE]\s*([-+]?\d+)(?![\d.])")
_THOUSANDS = re.compile(r"(?<![\d.])(\d{1,3})((?:(?:,|\{,\}|,\\!\s?|\\,|\\!)\d{3})+)(?!\d)")
_NOT_DIGIT = re.compile(r"\D")
_DEGREES = re.compile(r"\s*(?:\^\s*\{?\s*\\circ\s*\}?|\\degree(?![A-Za-z]))")
_ANGLE = re.compile(r"\\?(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
_DEGREES_OF = re.compile(rf"(\d+(?:\.\d+)?|\\pi){_DEGREES.pattern}")
_CHOICE = re.compile(r"\(\s*([A-Za-z])\s*\)\.?|([A-Za-z])")
_CLOCK = re.compile(r"(\d{1,2}\s*:\s*\d{2}(?::\d{2})?)\s*(?:([ap])\.?\s?m\.?)?", re.IGNORECASE)
_FILLERS = re.compile(r"\\(?:left|right|displaystyle|quad|qquad)(?![A-Za-z])|\\[,;:! ]|~|\$")
_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|textup|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")
_WORDS = re.compile(r"[A-Za-z]{2,}+(?:[' -]++[A-Za-z]++)*+\.?")
_NAMED = re.compile(r"\\(?:begin|end|operatorname|math[a-z]+)\s*\*?\{[^{}]*\}|\\[A-Za-z]+")
_PROSE = re.compile(r"\b(?:at|is|on|up|for|if|when|where|the|not|[a-z]{4,}|[A-Z][a-z]{3,})\b")
"""Words that are no unit and no name of a function: what they say, a formula beside them does not."""
_BRACED = re.compile(r"\s*\\\{(.*)\\\}\s*", re.DOTALL)
_BRACKET_BEFORE_SIGN = re.compile(r"[(\[].*,.*\\pm|\\pm.*,.*[)\]]", re.DOTALL)
_LABEL = re.compile(r"\s*[A-Za-z]\s*=(?![^,]*=)")
_REPEATING = re.compile(r"(\d*)\.(\d*)\\overline\s*\{?(\d+)\}?")
_IDLE = (
    re.compile(r"\s*\\approx(?![a-z])\s*(.+)", re.DOTALL),
    re.compile(r"\s*[A-Z]\s*\^\s*\{\s*-\s*1\s*\}\s*=\s*(.+)", re.DOTALL),
    re.compile(r"[^:,]*(?:[<>]|\\[lg]eq?(?:slant)?(?![a-z]))[^:,]*:\s*([(\[].+)", re.DOTALL),
    re.compile(r"\\\{\s*[a-z]\s*(?:\\mid|\||:)\s*((?:(?!\\[{}]|,).)+?)\s*\\\}", re.DOTALL),
)
"""What says nothing that its group does not: a leading sign of approximation, the A^{-1} of A^{-1} = [..], the
inequality before an interval that says the same, the braces of {x | x > 0}."""
_NAMES = re.compile(r"(?<![\\A-Za-z])(pi|sin|cos|tan|log|ln|infty)(?![A-Za-z])")
_ROOT = re.compile(r"(?<![\\A-Za-z])sqrt\s*\(([^()]*)\)")
_NO_UNITS = frozenset(
    "and or if when where for to then mod is with pi sin cos tan log ln sqrt infinity infty over".split()  # noqa: SIM905
)
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_FIRST_WORD = re.compile(
    r"\\(?:text|mathrm|textrm|mbox)\s*\{|\\rm(?![A-Za-z])|(?<![\\A-Za-z{])[A-Za-z]{2,}|(?<=\d )[mgslhNJWKVTA]$"
)
_VALUE = re.compile(r"(.*[\d})\]])(?:\s|\\[,;:! ]|~)*", re.DOTALL)
_NUMERAL = re.compile(r"(?:\\?\$\s*)?[-+]?[\d.,/]+")
_TRAILER = re.compile(
    r"(?:\\(?:text|mathrm|textrm|mbox|rm|cdot)(?![A-Za-z])|[A-Za-z']++|\d++|[\s./^{}()*,;~-]|\\[,;:! ])*+"
)
_WORD = re.compile(r"(?<!\\)\b[A-Za-z]+")


class PreparedAnswer(NamedTuple):
    """An answer made ready for comparison."""

    latex: str
    """For math-verify's parser: without percent sign, unit and base."""
    percent: bool = False
    base: str = ""
    """Of the numeral, as digits; '' when none is written."""
    unit: str = ""
    """First unit after the value, by its name in `UNITS`; '' when there is none or it is not known."""
    words: str = ""
    """The answer in lower case where it holds words, or is a choice (A) or a time of day: these are compared as text
    only, but for a single letter, which may be a variable as well."""


def prepared(answer: str) -> PreparedAnswer:
    """Prepare an answer.

    Args:
        answer: cleaned (`plain_text.clean_answer`), of bounded length: the time is quadratic in it at worst.
    Returns:
        How it is to be compared: words by their text, everything else as mathematics.
    """
    words = _as_words(answer)
    if words:
        return PreparedAnswer(_letter(answer) if len(words) == 1 else "", words=words)
    text = _THOUSANDS.sub(lambda match: match[1] + _NOT_DIGIT.sub("", match[2]), answer)
    shorter = _PERCENT.sub("", text)
    percent, text = shorter != text, shorter
    if _ANGLE.search(text):  # inside of a function a degree is a number, elsewhere a unit
        text = _DEGREES_OF.sub(r"(\1 \\cdot \\frac{\\pi}{180})", text)
    text = _DEGREES.sub("", text)
    based = _BASE.fullmatch(text.strip())
    if based:
        return PreparedAnswer(based[1], base=_BASES.get(based[2], based[2]))
    text, unit = _without_unit(text)
    text = _ROOT.sub(r"\\sqrt{\1}", _NAMES.sub(r"\\\1", text))
    if _PROSE.search(_NAMED.sub(" ", text)):
        return PreparedAnswer("", words=" ".join(_FILLERS.sub(" ", answer).lower().split()))
    for idle in _IDLE:
        match = idle.fullmatch(text)
        text = match[1] if match else text
    text = _spelled_out(text) if r"\pm" in text else text
    text = _LONE_POINT.sub(r"\1", _REPEATING.sub(_repeated, text))
    text = _MIXED.sub(r"(\1+\\frac{\2}{\3})", text)
    return PreparedAnswer(_SCIENTIFIC.sub(r"\1 \\cdot 10^{\2}", text).strip(), percent=percent, unit=unit)


def _spelled_out(text: str) -> str:
    """x = \\pm 2, 3 as 2, -2, 3, where every item between brackets has one such sign at most."""
    braced = _BRACED.fullmatch(text)
    items = _items(_LABEL.sub("", braced[1] if braced else text))
    if any(item.count(r"\pm") > 1 or r"\mp" in item or _BRACKET_BEFORE_SIGN.search(item) for item in items):
        return text
    spelled = [item.replace(r"\pm", sign) for item in items for sign in ("+", "-")[: 1 + (r"\pm" in item)]]
    return ", ".join(item.strip().removeprefix("+") for item in spelled)


def _items(text: str) -> list[str]:
    """The text cut at commas outside of brackets."""
    items, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and not depth:
            items.append("")
        else:
            items[-1] += character
    return items


def _letter(answer: str) -> str:
    return _TEXT.sub(r"\1", answer).strip("() .")


def _repeated(match: re.Match[str]) -> str:
    """0.1\\overline{6} as the fraction it is."""
    whole, start, period = match.groups()
    below = (10 ** len(period) - 1) * 10 ** len(start)
    above = int(whole + start + period) - int(whole + start or "0")
    return rf"\frac{{{above}}}{{{below}}}"


def _as_words(answer: str) -> str:
    """Lower-case words of an answer that is words only, the letter of a choice, or a time of day; else ''."""
    plain = " ".join(_FILLERS.sub(" ", _TEXT.sub(r" \1 ", answer)).split())
    choice = _CHOICE.fullmatch(plain)
    if choice:
        return (choice[1] or choice[2]).lower()
    clock = _CLOCK.fullmatch(plain)
    if clock:
        return clock[1].replace(" ", "") + (f" {clock[2]}m".lower() if clock[2] else "")
    return plain.lower().rstrip(".") if _WORDS.fullmatch(plain) and len(plain) > 2 else ""


def _without_unit(text: str) -> tuple[str, str]:
    """The value and the name of its unit, where words follow a value; one letter is a unit within \\text{} only."""
    first = _FIRST_WORD.search(text)
    value = _VALUE.fullmatch(text[: first.start()]) if first else None
    if first is None or value is None:
        return text, ""
    tail = text[first.start() :]
    words = _WORD.findall(tail)
    if not words or not _TRAILER.fullmatch(tail) or _NO_UNITS.intersection(word.lower() for word in words):
        return text, ""
    known = words[0] in UNITS or words[0].lower() in UNITS
    if first.group()[0] != "\\" and not known and not _NUMERAL.fullmatch(value[1]):
        return text, ""
    if words[0].lower() in _SCALES:
        return f"{value[1]} \\cdot 10^{_SCALES[words[0].lower()]}", ""
    return value[1], UNITS.get(words[0]) or UNITS.get(words[0].lower(), "")
