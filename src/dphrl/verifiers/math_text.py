"""Final answers read off text, and exact comparison of the plain ones. No parser of mathematics, nothing evaluated.

Every function is linear in the length of the text.
"""

from __future__ import annotations

import re
import string
from fractions import Fraction

MAX_DIGITS = 1_000
"""Longer numerals are no plain numbers here; exact arithmetic on them would be a way to burn time."""

_BOX_OR_BRACE = re.compile(r"\\boxed\s*\{|\\[{}]|[{}]")
_HASHES = re.compile(r"####([^\n]*)")
_ANSWER_IS = re.compile(r"\banswer\s+is\b[:\s]*", re.IGNORECASE)
_SENTENCE_END = re.compile(r"\n|[.!?](?=\s|$)")
_NUMERAL = r"[-+]?(?:\d{1,3}(?:,\d{3})++(?:\.\d++)?|\d++(?:\.\d++)?|\.\d++)"
_NUMBER = re.compile(_NUMERAL)
_PLAIN = re.compile(rf"({_NUMERAL})(?:/({_NUMERAL}))?")
_FRACTION = re.compile(rf"([-+]?)\\[dt]?frac\{{({_NUMERAL})\}}\{{({_NUMERAL})\}}")
_NUMBER_AND_UNIT = re.compile(rf"({_NUMERAL}(?:/\d++)?%?)\s+([A-Za-z]{{2,}}+)[A-Za-z .'/-]*+")
_NOT_UNITS = frozenset({"and", "or", "to", "times", "plus", "minus", "over", "pi", "if", "for", "but", "percent"})
_LAYERS = 8
"""Marks around an answer that are taken off; nobody means more, and the number bounds the work."""
_TRAILING = string.whitespace + ".,;:"
_CURRENCY = re.compile(r"\\?[$£€]")
_WRAPPERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("`", "`"))


def extract_answer(completion: str) -> str:
    """The final answer of a completion.

    Args:
        completion: text of a completion.
    Returns:
        The content of the last closed \\boxed{}; else what follows the last "####" on its line; else the rest of the
        sentence after the last "answer is"; else the last number anywhere (so a bare chain of sums is judged by where
        it ends); else ''. The last one counts: a model may correct itself. Without "$" around it, and where it is a
        number with its unit in words, without the unit.
    """
    box = last_box(completion)
    if box is not None:
        return clean(box)
    marked = _HASHES.findall(completion)
    if marked:
        return _without_unit(clean(marked[-1]))
    start = -1
    for match in _ANSWER_IS.finditer(completion):
        start = match.end()
    if start >= 0:
        end = _SENTENCE_END.search(completion, start)
        return _without_unit(clean(completion[start : end.start() if end else None]))
    numbers = _NUMBER.findall(completion)
    return numbers[-1] if numbers else ""


def extract_gold(gold: object) -> str:
    """The answer of a gold column: after its last "####", in its last \\boxed{}, or the whole value.

    Args:
        gold: text, a number, or a list that holds one of these.
    Returns:
        The answer; '' when there is none.
    """
    if isinstance(gold, list | tuple) and len(gold) == 1:
        gold = gold[0]
    if isinstance(gold, bool) or not isinstance(gold, str | int | float):
        return ""
    text = str(gold)
    marked = _HASHES.findall(text)
    box = last_box(text)
    return clean(marked[-1] if marked else box if box is not None else text)


def last_box(text: str) -> str | None:
    """Content of the last \\boxed{} that is closed, of the outer one where they nest; None when there is none."""
    open_braces: list[int | None] = []
    content = None
    for match in _BOX_OR_BRACE.finditer(text):
        token = match.group()
        if token == "{":
            open_braces.append(None)
        elif token.startswith(r"\boxed"):
            open_braces.append(match.end())
        elif token == "}" and open_braces and (start := open_braces.pop()) is not None:
            content = text[start : match.start()]
    return content


def clean(answer: str) -> str:
    """The answer without outer space, math or emphasis marks, currency signs, and a closing period."""
    answer = answer.replace("−", "-")
    for _ in range(_LAYERS):
        answer = answer.lstrip().rstrip(_TRAILING)
        for left, right in _WRAPPERS:
            inner = answer[len(left) : -len(right)]
            if inner and answer == left + inner + right and left not in inner:
                answer = inner
        sign = _CURRENCY.match(answer)
        if sign and "$" not in answer[sign.end() :]:
            answer = answer[sign.end() :]
    return answer


def same_text(left: str, right: str) -> bool:
    """Whether two answers are written alike but for space and size commands."""
    return _squeeze(left) == _squeeze(right)


def number(answer: str) -> Fraction | None:
    """The exact value of a plain number.

    Args:
        answer: a cleaned answer.
    Returns:
        The value of an integer, decimal, or fraction of these (a/b, \\frac{a}{b}); thousands commas, "$" and "%" say
        nothing. None for everything else, numbers of more than 1,000 characters included.
    """
    text = _CURRENCY.sub("", answer).strip().removesuffix("%").removesuffix("\\").replace(" ", "")
    if len(text) > MAX_DIGITS:
        return None
    fraction = _FRACTION.fullmatch(text)
    if fraction:
        text = f"{fraction[2]}/{fraction[3]}"
    plain = _PLAIN.fullmatch(text)
    if plain is None:
        return None
    above, below = (Fraction((part or "1").replace(",", "")) for part in plain.groups())
    if below == 0:
        return None
    return above / below * (-1 if fraction and fraction[1] == "-" else 1)


def _without_unit(answer: str) -> str:
    """ "18 dollars" -> "18"; other answers as they are."""
    match = _NUMBER_AND_UNIT.fullmatch(answer)
    return match[1] if match and match[2].lower() not in _NOT_UNITS else answer


def _squeeze(answer: str) -> str:
    return re.sub(r"\\left|\\right|\\[,;:! ]|\s+", "", answer).replace("dfrac", "frac").replace("tfrac", "frac")
