"""Compares two answers inside a worker, which may be killed for it: read by math-verify, compared exactly."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NamedTuple

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
_LATEST = 256
"""Latest answers of completions that are held parsed."""


def compare_answers(item: tuple[str, str | None], _: None) -> Reply:
    """Whether two answers are mathematically the same.

    Args:
        item: gold answer, and answer; None = handle the gold answer alone. Cleaned.
    Returns:
        `correct`, or `wrong` (also when either cannot be read).
    """
    gold, answer = item
    wanted = _gold(gold)
    if answer is None:
        return "correct", ""
    if _is_deep(answer):
        return "wrong", "nested deeper than an answer is"
    if _BIG_BINOMIAL.search(answer):  # the parser works it out at once
        return "wrong", "numbers too big to be compared"
    given = prepared(answer)
    if not (wanted.answer.latex and given.latex):
        return ("correct", "") if _same_words(wanted.answer.words, given.words) else _WRONG
    if _differ(wanted.answer.base, given.base) or _differ(wanted.answer.unit, given.unit):
        return _WRONG
    try:
        value = _parse(given.latex)
        if wanted.value is None or value is None:
            return "wrong", "cannot be read as mathematics"
        return ("correct", "") if _same(wanted, _Parsed(given, value)) else _WRONG
    except TooBig:
        return "wrong", "numbers too big to be compared"
    except (ArithmeticError, AttributeError, NotImplementedError, RecursionError, TypeError, ValueError) as error:
        return "wrong", f"cannot be compared: {type(error).__name__}"  # sympy's, on what the answer asks of it


class _Parsed(NamedTuple):
    """An answer and what the parser read."""

    answer: PreparedAnswer
    value: Any
    """None where it cannot be read as mathematics."""


def _is_deep(text: str) -> bool:
    """Whether brackets, powers or signs go deeper than `MAX_DEPTH`, on which parsers spend minutes or their stack."""
    depth = deepest = 0
    for bracket in _BRACKETS.findall(text):
        depth += 1 if bracket in "([{" else -1
        deepest = max(deepest, depth)
    return deepest > MAX_DEPTH or _CHAIN.search(text) is not None


def _same(gold: _Parsed, answer: _Parsed) -> bool:
    """With a percent sign on one side only, the number may count in hundredths or in ones."""
    gold_percent, answer_percent = gold.answer.percent, answer.answer.percent
    below_one = answer_percent and not gold_percent and getattr(gold.value, "is_number", False) and abs(gold.value) < 1
    # 50% says so where 50 is asked for, but 0.5% is not 0.5
    if not below_one and equal_answers(gold.value, answer.value):
        return True
    if gold_percent == answer_percent:
        return False
    return equal_answers(*(side.value / 100 if side.answer.percent else side.value for side in (gold, answer)))


@lru_cache(maxsize=_REMEMBERED)
def _gold(text: str) -> _Parsed:
    answer = prepared(text)
    return _Parsed(answer, _parse(answer.latex) if answer.latex else None)


@lru_cache(maxsize=_LATEST)
def _parse(latex: str) -> Any:
    """What math-verify reads, or None. A batch repeats few answers, and reading them takes the most time."""
    values = parse(f"\\boxed{{{latex}}}", _BOXED, fallback_mode="no_fallback", parsing_timeout=None)
    return values[0] if values else None


def _same_words(gold: str, answer: str) -> bool:
    """3:00 and 3:00 pm are the same time; 3:00 am and 3:00 pm are not. No words on either side are no answer: what is
    left of a lone percent sign or unit must not equal what is left of a number."""
    if not gold or not answer:
        return False
    clocks = {words.removesuffix(" am").removesuffix(" pm") for words in (gold, answer)}
    return gold == answer or (len(clocks) == 1 and clocks <= {gold, answer})


def _differ(gold: str, answer: str) -> bool:
    return bool(gold and answer and gold != answer)


JOB = Job(compare_answers)
