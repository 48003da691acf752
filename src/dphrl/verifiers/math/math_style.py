"""The steps of a solution as a text: two right completions with the same intermediate results are one solution.

Any text is taken and nothing raises.
"""

from __future__ import annotations

import re
from fractions import Fraction

from dphrl.verifiers.math.final_answer import extract_answer
from dphrl.verifiers.verifier import text_style

MAX_RESULT = 60
"""Characters of the longest intermediate result."""

_EQUALS = re.compile(r"=|≈|\\approx(?![a-z])")
_UNREAD = re.compile(r"<<[^<>\n]*>>|\\\$")
"""GSM8K's calculator marks, and the dollar that is a price in LaTeX."""
_SEGMENT_END = re.compile(r"[=≈<>≤≥$&;\n]|\\(?:approx|[]()\\]|[Rr]ightarrow|implies|text|quad)|[.,](?=\s|$)|[!?]")
_NUMERAL = r"[-+]?(?:\d{1,3}(?:,\d{3})++(?:\.\d++)?|\d++(?:\.\d++)?|\.\d++)"
_LEADING = re.compile(rf"({_NUMERAL}(?:/\d++)?)\s*\\?%?(?!\w)(?=\s+(?!x\b)[A-Za-z]|\s*$)")
"""A number that words may follow (its unit), but no operator."""
_FRACTION = re.compile(r"([-+]?)\\[dt]?frac\{([-+\d.,]{1,40})\}\{([-+\d.,]{1,40})\}")
_BOX = re.compile(r"\\boxed\{(.*)\}", re.DOTALL)
_UNSEEN = re.compile(r"\s+|\\[,;:! ]|\\left|\\right|[$€£]|\\?%$")
_WORD = re.compile(r"(?<!\\)[A-Za-z]{4,}")


def math_style(completion: str) -> str:
    """The intermediate results of the completion: what stands after "=", as a multiset.

    A result is a plain number (`$1,200.00`, `1200` and `\\frac{2400}{2}` are one), else an expression without its
    space; what stands between two "=" of a chain counts only if it is a number. Their order does not matter, since
    independent steps may be taken in any. The final answer is left out: all right completions of a problem share it,
    so whether it also stands after "=" is a matter of writing. A completion with no other result is `direct`; one
    without any is its own text.
    """
    results = _results(completion)
    if not results:
        return text_style(completion)
    final = _value(extract_answer(completion))
    return "; ".join(sorted(result for result in results if result != final)) or "direct"


def _results(completion: str) -> list[str]:
    """The value that each "=" states, where it states one; of a chain a = b = c the numbers and its end."""
    text = _UNREAD.sub("", completion)
    results = []
    for match in _EQUALS.finditer(text):
        start = match.end()
        while start < len(text) and text[start] in " $":  # "= $18": a price, or the start of a formula
            start += 1
        piece = text[start : start + MAX_RESULT + 1]
        end = _SEGMENT_END.search(piece)
        goes_on = end is not None and _EQUALS.match(piece, end.start()) is not None
        results.append(_result(piece[: end.start()] if end else piece, goes_on))
    return [result for result in results if result]


def _result(segment: str, goes_on: bool) -> str:
    """The value a segment states; '' for words, a step within a chain, and more than MAX_RESULT characters."""
    number = _LEADING.match(segment)
    if number:
        return _value(number[1])
    if goes_on or len(segment) > MAX_RESULT or _WORD.search(segment):
        return ""
    return _value(segment)


def _value(text: str) -> str:
    """A number as an exact fraction, anything else without its space."""
    bare = _UNSEEN.sub("", text).replace("−", "-")
    boxed = _BOX.fullmatch(bare)
    bare = boxed[1] if boxed else bare
    fraction = _FRACTION.fullmatch(bare)
    if fraction:
        bare = f"{fraction[1]}{fraction[2]}/{fraction[3]}"
    try:
        return str(_exact(bare.replace(",", "")))
    except (ValueError, ZeroDivisionError):
        return bare


def _exact(text: str) -> Fraction:
    if len(text) > MAX_RESULT or "e" in text.lower():  # 1e999999999 is a fraction of a gigabyte
        raise ValueError(text)
    return Fraction(text)
