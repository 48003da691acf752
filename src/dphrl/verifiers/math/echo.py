"""Answers that only repeat the question: 19x + 1 - 4x - 81, where the question asks to simplify it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from dphrl.verifiers.math.characters import ascii_text
from dphrl.verifiers.math.plain_text import plain_number
from dphrl.verifiers.math.voting import counted

MAX_PROMPT = 50_000
"""Characters of the end of a prompt in which an answer is looked for."""
_IDLE = re.compile(
    r"\\(?:left|right|displaystyle|limits|big|Big|bigg|Bigg|text|mathrm|quad|qquad)(?![A-Za-z])|\\[,;:! ]|[\s${}~*]"
    r"|\\[()\[\]]|\\cdot(?![A-Za-z])|\\times(?![A-Za-z])"
)
_SPELLINGS = ((r"\dfrac", r"\frac"), (r"\tfrac", r"\frac"), (r"\leq", r"\le"), (r"\geq", r"\ge"), ("**", "^"))
_TOKEN = re.compile(r"\\[A-Za-z]+|\d+(?:\.\d+)?|[^\s{}]")
_OPERATION = re.compile(
    r"(?<=[\w)}!])[-+*/^:]|\\(?:cdot|times|div|frac|sqrt|int|sum|prod|lim|binom|log|ln|sin|cos|tan|overline)|!|\|"
    r"|\)\(|[\dA-Za-z]\("
)
_WRITTEN_FRACTION = re.compile(r"[-+]?(?:\\frac\{?-?(\d+)\}?\{?-?(\d+)\}?|(\d+)/-?(\d+))")


def prompt_text(prompt: Any) -> str:
    """What a prompt says: its text, or the messages of its user; '' where it is neither."""
    if isinstance(prompt, str):
        return prompt
    if not isinstance(prompt, Sequence):
        return ""
    return "\n".join(
        str(message.get("content"))
        for message in prompt
        if isinstance(message, Mapping) and message.get("role") == "user"
    )


def is_echo(gold: str, answer: str, prompt: str) -> bool:
    """Whether an answer is copied out of the question although another form of it was asked for.

    Args:
        gold, answer: cleaned, and equal in value.
        prompt: text of the question.
    Returns:
        True where the answer stands in the question as it is, holds something to work out (a fraction that can be
        reduced, or an operation), and the gold answer is not the same signs in some order. Units and names are no part
        of either.
    """
    if not _stands_in(squeezed(answer), squeezed(ascii_text(prompt[-MAX_PROMPT:]))):
        return False
    wanted, given = counted(gold), counted(answer)
    if wanted == given:
        return _can_be_reduced(squeezed(answer)) and squeezed(gold) != squeezed(answer)
    if plain_number(given) is not None or not _OPERATION.search(given):
        return False
    return sorted(_TOKEN.findall(squeezed(wanted))) != sorted(_TOKEN.findall(squeezed(given)))


def _can_be_reduced(text: str) -> bool:
    match = _WRITTEN_FRACTION.fullmatch(text)
    return match is not None and (
        "\\frac{-" in text or math.gcd(int(match[1] or match[3]), int(match[2] or match[4])) > 1
    )


def _stands_in(copied: str, question: str) -> bool:
    """Whether a text stands in another, not as a part of longer numbers."""
    start = question.find(copied) if copied else -1
    while start >= 0:
        before, behind = question[start - 1 : start], question[start + len(copied) : start + len(copied) + 1]
        if not (before.isdigit() and copied[0].isdigit()) and not (behind.isdigit() and copied[-1].isdigit()):
            return True
        start = question.find(copied, start + 1)
    return False


def squeezed(text: str) -> str:
    """The text without what is idle, so that two ways to space and size it are one."""
    for spelling, usual in _SPELLINGS:
        text = text.replace(spelling, usual)
    return _IDLE.sub("", text)
