"""Compares two answers inside a worker, which may be killed for it: cut into readings, parsed, compared exactly."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from dphrl.verifiers.math.choices import chosen, option
from dphrl.verifiers.math.equal_readings import same
from dphrl.verifiers.math.equal_values import TooBig
from dphrl.verifiers.math.reading import is_ambiguous, parameters, read
from dphrl.verifiers.math.records import Asked, Group, Named, Reading, values
from dphrl.verifiers.workers.job import Job, Reply

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
_LETTERS = re.compile(r"\\[A-Za-z]+|[A-Za-z]")
_REMEMBERED = 2_000
"""Gold answers that are held read; a run's prompts come in an order, so those of the latest batches are enough."""


class _Gold(NamedTuple):
    """A gold answer, read, and what it says about the reading of others."""

    reading: Reading
    asked: Asked
    parameters: frozenset[str]


def compare_answers(item: tuple[str, str | None], _: None) -> Reply:
    """Whether two answers are mathematically the same.

    Args:
        item: gold answer, and answer; None = handle the gold answer alone. Cleaned.
    Returns:
        `correct`, or `wrong` (also when either cannot be read).
    """
    gold, answer = item
    try:
        wanted = _gold(gold)
        if answer is None:
            _same(wanted, "0")  # any answer will do: whatever takes long beside 0 is not the completion's fault
            return "correct", ""
        if _is_deep(answer):
            return "wrong", "nested deeper than an answer is"
        if _BIG_BINOMIAL.search(answer):  # the parser works it out at once
            return "wrong", "numbers too big to be compared"
        return ("correct", "") if _right(gold, answer) else _WRONG
    except TooBig:
        return "wrong", "numbers too big to be compared"
    except (ArithmeticError, AttributeError, NotImplementedError, RecursionError, TypeError, ValueError) as error:
        return "wrong", f"cannot be compared: {type(error).__name__}"  # sympy's, on what the answer asks of it


def _right(gold: str, answer: str) -> bool:
    """Of a choice the letter counts, and where the gold answer has none its text."""
    choice = chosen(gold, answer)
    if choice is not None:
        return choice
    (letter, wanted), (said, value) = option(gold), option(answer)
    if letter and said and letter != said:
        return False
    if letter and not said and (choice := chosen(letter, answer)) is not None:
        return choice
    return _same(_gold(wanted), value)


def _same(gold: _Gold, answer: str) -> bool:
    """A comma between digits is a thousand's, or a list's where the gold answer is one."""
    own = parameters(answer)
    theirs = gold.parameters or gold.asked.variables or frozenset()
    if len(theirs) == len(own) == 1 and theirs != own:
        answer = _renamed(answer, *own, *theirs)
    if same(gold.reading, read(answer, asked=gold.asked)):
        return True
    is_list = isinstance(gold.reading.value if isinstance(gold.reading, Named) else gold.reading, Group)
    return is_list and is_ambiguous(answer) and same(gold.reading, read(answer, False, gold.asked))


def _renamed(text: str, name: str, new: str) -> str:
    """The text with one variable called otherwise: n \\pi with any integer n is k \\pi with any integer k."""
    if re.search(rf"(?<![A-Za-z\\]){new}(?![A-Za-z])", text):
        return text
    return re.sub(rf"(?<![A-Za-z\\]){name}(?![A-Za-z])", new, text)


def _is_deep(text: str) -> bool:
    """Whether brackets, powers or signs go deeper than `MAX_DEPTH`, on which parsers spend minutes or their stack."""
    depth = deepest = 0
    for bracket in _BRACKETS.findall(text):
        depth += 1 if bracket in "([{" else -1
        deepest = max(deepest, depth)
    return deepest > MAX_DEPTH or _CHAIN.search(text) is not None


@lru_cache(maxsize=_REMEMBERED)
def _gold(text: str) -> _Gold:
    """A gold answer; in x = 3,100 the comma is a list's."""
    reading = read(text, thousands="=" not in text or not is_ambiguous(text))
    letters, units = frozenset[str](), frozenset[str]()
    for value in values(reading):
        found = _LETTERS.findall(value.latex)
        letters |= {letter for letter in found if len(letter) == 1}
        units |= {name for name, _ in value.unit}
    return _Gold(reading, Asked(letters, units), parameters(text))


_SAMPLES = (
    ("2", r"\frac{6}{3}"),
    (r"\frac{1}{3}", "0.3"),
    (r"x^2+2x\sqrt{3}", r"x(x+2\sqrt{3})+\sin{x}"),
    ("(1,2)", "(2,1)"),
    (r"\{1,2\}", r"\{3,1\}"),
    (r"(-\infty,2]\cup(3,4)", "[1,2)"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}x\\2\end{pmatrix}"),
    ("y=2x+1", "2y=4x+2"),
    ("x<3", r"x \ge e^{i\pi}"),
)
"""Answers of every kind: the parser and sympy load and build much when they are first asked."""


def _warm_up() -> None:
    for sample in _SAMPLES:
        compare_answers(sample, None)


JOB = Job(compare_answers, warm_up=_warm_up)
