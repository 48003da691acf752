"""The last expression of a text that marks no answer: formulas between dollars, and runs of numbers, letters, signs."""

from __future__ import annotations

import re

from dphrl.verifiers.math.plain_text import UNSIGNED, clean_answer
from dphrl.verifiers.math.units import UNITS
from dphrl.verifiers.math.words import SCALES

_WINDOW = 4_096
"""Characters at the end of a text in which an expression is looked for first."""
_GROUP = r"\{[^{}\n]{0,80}\}"
_ATOM = (
    rf"(?:\\?\$?{UNSIGNED}|\\[dt]?frac\s?{_GROUP}\s?{_GROUP}|\\sqrt\s?{_GROUP}|\s?sqrt\s?(?:\d++|\([^()\n]{{1,40}}\))"
    rf"|\\(?:pi|infty|theta|alpha|beta)(?![A-Za-z])\s?|(?<![A-Za-z\\])[A-Za-z](?![A-Za-z'])|\([^()\n]{{1,60}}\))"
    rf"(?:\^(?:{_GROUP}|-?\w))?!?"
)
_SIGN = r"(?:\s?(?:[-+*/=]|\\cdot(?![A-Za-z]))\s?|(?<=\d)\s(?=\d+\s?/\s?\d)|)"
_RUN = re.compile(
    rf"(?:(?<![\w)}}])[-+]\s?)?{_ATOM}(?:{_SIGN}(?:(?<=[=(*/\s])-)?{_ATOM}){{0,40}}"
    r"(?P<percent>\s?\\?%)?(?P<unit>\s?\\?[A-Za-z]{1,12}\^\{?-?\d\}?)?(?P<word>\s[A-Za-z]+)?",
    re.ASCII,
)
_SPAN = re.compile(
    r"\$\$(.{1,2000}?)\$\$|(?<!\\)\$([^$\n]{1,500}?)(?<!\\)\$|\\\((.{1,2000}?)\\\)|\\\[(.{1,2000}?)\\\]", re.DOTALL
)
_PROSE = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]{3,}")
_DIGIT = re.compile(r"\d", re.ASCII)


def last_expression(text: str) -> str:
    """The last expression of a text.

    Args:
        text: with every character that has an ASCII form written so.
    Returns:
        A formula between dollars or brackets of LaTeX, or a run of numbers, single letters and signs that has a digit,
        with a percent sign and a unit behind it; what stands behind its last "=". '' where there is none. Cleaned.
    """
    window = _WINDOW
    while True:
        start = max(0, len(text) - window)
        if start:
            start = max(text.find(" ", start), start)
        found = _last(text[start:])
        if found or not start:
            return found
        window *= 16


def _last(text: str) -> str:
    span_end, formula = 0, ""
    for match in _SPAN.finditer(text):
        content = next(filter(None, match.groups()))
        if not _PROSE.search(content) and re.search(r"\w", content):
            span_end, formula = match.end(), content
    runs = [match for match in _RUN.finditer(text, span_end) if _DIGIT.search(match[0])]
    if runs:
        return clean_answer(_behind_equals(_with_unit(runs[-1])))
    return clean_answer(_behind_equals(formula))


def _with_unit(match: re.Match[str]) -> str:
    """A run with the word behind it if that is a unit or changes the value."""
    word = (match["word"] or "").strip()
    text = match[0][: len(match[0]) - len(match["word"] or "")]
    return f"{text} {word}" if (word in UNITS and len(word) > 1) or word.lower() in SCALES else text


def _behind_equals(text: str) -> str:
    return re.split(r"(?<![<>!\\:])=", text)[-1] if "," not in text else text
