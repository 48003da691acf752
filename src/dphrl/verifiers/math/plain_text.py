"""Answers as plain text: one way to write each character, equality of text, exact values of plain numbers.

Every function is linear in the length of the text and takes any text.
"""

from __future__ import annotations

import re
import string
from fractions import Fraction

MAX_DIGITS = 1_000
"""Longer numerals are no plain numbers here; exact arithmetic on them would be a way to burn time."""
MAX_EXPONENT = 1_000
ROUNDED_PLACES = 6
ROUNDED = Fraction(1, 10**6)
"""How far a decimal of at least `ROUNDED_PLACES` may be from an exact value that it stands for (0.333333 for 1/3),
relative to it, at most so far in absolute terms; else it must be that value rounded to its last place (0.166667)."""

_COMMA = r"(?:,|\{,\}|,\\!\s?)"
UNSIGNED = rf"(?:[1-9]\d{{0,2}}(?:{_COMMA}\d{{3}})++(?!\d)(?:\.\d++)?|\d++(?:\.\d*+)?|\.\d++)"
"""An integer or decimal, with or without commas between thousands."""
NUMERAL = rf"[-+]?{UNSIGNED}"

_PLAIN = re.compile(rf"(?P<above>{NUMERAL})(?:[eE](?P<exponent>[-+]?\d{{1,4}})|\s*/\s*(?P<below>{NUMERAL}))?", re.ASCII)
_FRACTION = re.compile(rf"([-+]?)\\[dtc]?frac(?:\{{({NUMERAL})\}}\{{({NUMERAL})\}}|(\d)(\d))", re.ASCII)
_ROW = re.compile(
    r"(?P<left>[(\[])(?P<inside>[^()\[\]]+)(?P<right>[)\]])|\\\{(?P<set>[^()\[\]]+)\\\}|(?P<bare>[^()\[\]]+)"
)
_UNCLEAR_COMMA = re.compile(r"\d,\d{3}(?!\d)|\{,|\\!", re.ASCII)
_NOT_DIGITS = re.compile(r"[^\d.+-]", re.ASCII)
_LAYERS = 8
"""Marks around an answer that are taken off; nobody means more, and the number bounds the work."""
_TRAILING = string.whitespace + ".,;:"
_DOLLAR = re.compile(r"\\?\$\s*")
_WRAPPERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("`", "`"))
_SILENT = re.compile(r"\\(?:left|right|big|Big|bigg|Bigg|displaystyle)(?![A-Za-z])|\\!|\\boxed(?=\{)")
_SPACES = re.compile(r"(?:\\[,;: ]|~|\\q?quad(?![A-Za-z])|\s)+")
_IDLE_SPACE = re.compile(r"(?<![0-9A-Za-z]) | (?![0-9A-Za-z])", re.ASCII)


def clean_answer(answer: str) -> str:
    """The answer without outer space, math or emphasis marks, and a closing period."""
    for _ in range(_LAYERS):
        before = answer
        answer = answer.lstrip().rstrip(_TRAILING).removesuffix("\\").rstrip(_TRAILING)
        for left, right in _WRAPPERS:
            inner = answer[len(left) : -len(right)]
            if inner and answer == left + inner + right and left not in inner and not inner.endswith("\\"):
                answer = inner
        if answer.endswith("**") and "**" not in answer[:-2]:  # **Answer: 5**
            answer = answer[:-2]
        if answer.startswith("$") and "$" not in answer[1:]:  # a currency sign; in pairs it marks mathematics
            answer = "\\" + answer
        if answer == before:
            break
    return answer


def same_text(left: str, right: str) -> bool:
    """Whether two answers are written alike but for idle space and size commands."""
    return left == right or _squeezed(left) == _squeezed(right)


def plain_number(answer: str) -> Fraction | None:
    """The exact value of a plain number.

    Args:
        answer: a cleaned answer.
    Returns:
        The value of an integer, decimal, number times a power of ten (4.5e33), or fraction of numbers (a/b,
        \\frac{a}{b}), with or without "$" before it. None for everything else, numbers of more than 1,000 characters
        included.
    """
    if len(answer) > MAX_DIGITS:
        return None
    text = _DOLLAR.sub("", answer, count=1) if answer.startswith(("$", "\\$")) else answer
    fraction = _FRACTION.fullmatch(text)
    if fraction:
        text = f"{fraction[2] or fraction[4]}/{fraction[3] or fraction[5]}"
    match = _PLAIN.fullmatch(text)
    if match is None:
        return None
    above = _value(match["above"])
    if match["exponent"] and is_euler(match["above"], match["exponent"]):
        return None
    if match["exponent"]:
        exponent = int(match["exponent"])
        return above * Fraction(10) ** exponent if abs(exponent) <= MAX_EXPONENT else None
    below = _value(match["below"] or "1")
    if below == 0:
        return None
    return above / below * (-1 if fraction and fraction[1] == "-" else 1)


def same_numbers(left: str, right: str) -> bool | None:
    """Whether two plain numbers are equal: exactly, or one a decimal of six places or more that stands for a fraction
    which no decimal writes out; None where one of them is no plain number."""
    first, second = plain_number(left), plain_number(right)
    if first is None or second is None:
        return None
    if first == second:
        return True
    for text, decimal, exact in ((left, first, second), (right, second, first)):
        places = len(_NOT_DIGITS.sub("", text.partition(".")[2]))
        if places >= ROUNDED_PLACES and not _terminates(exact):
            near = abs(decimal - exact) <= Fraction(1001, 1000) * ROUNDED * min(Fraction(1), abs(exact))
            return near or abs(decimal - exact) <= Fraction(1, 2 * 10**places)
    return False


def _terminates(value: Fraction) -> bool:
    below = value.denominator
    for prime in (2, 5):
        while below % prime == 0:
            below //= prime
    return below == 1


def plain_row(answer: str) -> tuple[str, tuple[Fraction, ...]] | None:
    """The exact values in a row of two or more plain numbers.

    Args:
        answer: a cleaned answer.
    Returns:
        Its brackets and the numbers: in order for (1, 2), [1, 2) and their like; by size, brackets '', for 1, 2 and
        {1, 2}, whose order says nothing. None for everything else, and where a comma may stand in a number or a
        number stands twice.
    """
    text = _squeezed(answer)
    row = _ROW.fullmatch(text) if len(text) <= MAX_DIGITS and not _UNCLEAR_COMMA.search(text) else None
    if row is None:
        return None
    values = [plain_number(part) for part in (row["inside"] or row["set"] or row["bare"]).split(",")]
    known = tuple(value for value in values if value is not None)
    if len(known) < max(2, len(values)) or len(set(known)) < len(known):
        return None
    if not row["left"]:
        return "", tuple(sorted(known))
    return row["left"] + row["right"], known


def is_euler(mantissa: str, exponent: str) -> bool:
    """2e-1 is a term of Euler's number: a whole number, a sign, one digit; 2.0e-1, 2e1 and 2e-10 are powers of ten."""
    return exponent[0] in "+-" and len(exponent) == 2 and "." not in mantissa


def _value(numeral: str) -> Fraction:
    return Fraction(_NOT_DIGITS.sub("", numeral))


def _squeezed(answer: str) -> str:
    text = _SPACES.sub(" ", _SILENT.sub("", answer)).strip()
    return _IDLE_SPACE.sub("", text).replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
