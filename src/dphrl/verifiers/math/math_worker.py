"""Compares two answers inside a worker, which may be killed for it: read by math-verify, compared exactly."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from math_verify import LatexExtractionConfig, parse

from dphrl.verifiers.math.equal_values import TooBig, equal_answers
from dphrl.verifiers.math.prepared_answer import PreparedAnswer, prepared
from dphrl.verifiers.workers.job import Job, Reply

_BOXED = [LatexExtractionConfig(boxed_match_priority=0)]
_WRONG: Reply = ("wrong", "another value than the gold answer")
MAX_DEPTH = 40
"""Levels of brackets, powers of powers, and signs or functions in a row of an answer that is parsed."""
_BRACKETS = re.compile(r"[(){}\[\]]")
_CHAIN = re.compile(
    r"(?:\^\s*\{?\s*[^\s{}^]{1,6}\}?\s*){DEPTH}|(?:[-+^_|!%]\s*+){DEPTH}|(?:\\[a-z]+\s*+){DEPTH}".replace(
        "DEPTH", str(MAX_DEPTH)
    )
)
_BIG_BINOMIAL = re.compile(r"binom\s*(?:\{[^{}]*\}\s*)?\{?[^{}]*\d{5}")
_REMEMBERED = 10_000
"""Gold answers that are held parsed."""


def compare_answers(item: tuple[str, str | None], _: None) -> Reply:
    """Whether two answers are mathematically the same.

    Args:
        item: gold answer, and answer; None = handle the gold answer alone. Cleaned.
    Returns:
        `correct`, or `wrong` (also when either cannot be read).
    """
    gold, answer = item
    ours = _gold(gold)
    if answer is None:
        return "correct", ""
    if _is_deep(answer):
        return "wrong", "nested deeper than an answer is"
    if _BIG_BINOMIAL.search(answer):  # the parser works it out at once
        return "wrong", "numbers too big to be compared"
    theirs = (prepared(answer), None)
    if not (ours[0].latex and theirs[0].latex):
        return ("correct", "") if _same_words(ours[0].words, theirs[0].words) else _WRONG
    if _differ(ours[0].base, theirs[0].base) or _differ(ours[0].unit, theirs[0].unit):
        return _WRONG
    try:
        parsed = _parse(theirs[0].latex)
        if ours[1] is None or parsed is None:
            return "wrong", "cannot be read as mathematics"
        return ("correct", "") if _same(ours, (theirs[0], parsed)) else _WRONG
    except TooBig:
        return "wrong", "numbers too big to be compared"
    except (ArithmeticError, AttributeError, NotImplementedError, RecursionError, TypeError, ValueError) as error:
        return "wrong", f"cannot be compared: {type(error).__name__}"  # sympy's, on what the answer asks of it


Parsed = tuple[PreparedAnswer, Any]


def _is_deep(text: str) -> bool:
    """Whether brackets, powers or signs go deeper than `MAX_DEPTH`, on which parsers spend minutes or their stack."""
    depth = deepest = 0
    for bracket in _BRACKETS.findall(text):
        depth += 1 if bracket in "([{" else -1
        deepest = max(deepest, depth)
    return deepest > MAX_DEPTH or _CHAIN.search(text) is not None


def _same(gold: Parsed, answer: Parsed) -> bool:
    """With a percent sign on one side only, the number may count in hundredths or in ones."""
    below_one = answer[0].percent and not gold[0].percent and getattr(gold[1], "is_number", False) and abs(gold[1]) < 1
    if not below_one and equal_answers(gold[1], answer[1]):  # where 50 is asked for 50% says so, but 0.5% is not 0.5
        return True
    if gold[0].percent == answer[0].percent:
        return False
    return equal_answers(*(value / 100 if read.percent else value for read, value in (gold, answer)))


@lru_cache(maxsize=_REMEMBERED)
def _gold(text: str) -> Parsed:
    read = prepared(text)
    return read, _parse(read.latex) if read.latex else None


def _parse(latex: str) -> Any:
    """What math-verify reads, or None."""
    found = parse(f"\\boxed{{{latex}}}", _BOXED, fallback_mode="no_fallback", parsing_timeout=None)
    return found[0] if found else None


def _same_words(ours: str, theirs: str) -> bool:
    """3:00 and 3:00 pm are the same time; 3:00 am and 3:00 pm are not. No words on either side are no answer: what is
    left of a lone percent sign or unit must not equal what is left of a number."""
    if not ours or not theirs:
        return False
    clocks = {words.removesuffix(" am").removesuffix(" pm") for words in (ours, theirs)}
    return ours == theirs or (len(clocks) == 1 and clocks <= {ours, theirs})


def _differ(ours: str, theirs: str) -> bool:
    return bool(ours and theirs and ours != theirs)


JOB = Job(compare_answers)
