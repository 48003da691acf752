"""Scores an answer with the generator of reasoning-gym that asked for it, inside a worker, which may be killed for it.

Some scorers hand the answer to `eval` or to sympy's `parse_expr`, which evaluates Python. Here `eval` takes literals
only, and `parse_expr` only what is written like algebra.
"""

from __future__ import annotations

import ast
import functools
import importlib
import json
import math
import re
from typing import Any

import sympy
from reasoning_gym.factory import create_dataset

from dphrl.verifiers.gym.verify_gym import SCORE
from dphrl.verifiers.verifier import Arguments
from dphrl.verifiers.workers.job import Job, Reply

_SYMPY_PARSE = sympy.parse_expr
_ALGEBRA = re.compile(r"(?:[\s+\-*/^(),!]|\d++(?:\.\d*+)?+|\.\d++|(?P<name>[A-Za-z][A-Za-z0-9]*+))*+")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*+")
_TRIGONOMETRY = frozenset(("sin", "cos", "tan", "sec", "csc", "cot", "asin", "acos", "atan", "sinh", "cosh", "tanh"))
_FUNCTIONS = _TRIGONOMETRY | {"abs", "Abs", "sqrt", "exp", "log", "ln", "pi"}
MAX_ALGEBRA = 2_000
"""Characters of the longest answer that is parsed as algebra."""


def score_answer(item: tuple[str, Arguments, str, str], _: None) -> Reply:
    """Score one answer.

    Args:
        item: generator, its settings, the entry as a Python literal, the answer.
    Returns:
        `correct` at a score of 1, else `wrong`, with the score as detail.
    Raises:
        Exception: what the scorer raises, or a score that is no number; the worker makes it a `verifier_error`.
    """
    name, own, entry, answer = item
    score = float(_dataset(name, json.dumps(own)).score_answer(answer, ast.literal_eval(entry)))
    if not math.isfinite(score):
        raise ValueError(f"the scorer of {name} returned {score}")
    return ("correct" if score >= 1.0 else "wrong"), f"{SCORE}{score!r}"


def parse_algebra(text: str, *args: Any, **kwargs: Any) -> Any:
    """sympy's `parse_expr` for text that is nothing but algebra: numbers, operators, known functions, short names.

    Raises:
        ValueError: the text is anything else.
    """
    names = set(_NAME.findall(text))
    plain = len(text) <= MAX_ALGEBRA and _ALGEBRA.fullmatch(text)
    if not plain or any(len(name) > 2 and name not in _FUNCTIONS for name in names):
        raise ValueError(f"{text[:40]!r} is not written as algebra")
    return _SYMPY_PARSE(text, *args, **kwargs)


@functools.lru_cache(maxsize=32)
def _dataset(name: str, own: str) -> Any:
    return create_dataset(name, seed=0, size=10, **json.loads(own))


def _disarm() -> None:
    """Replace, in the modules whose scorers use them, what would run an answer as a program."""
    for module in ("string_insertion", "spiral_matrix", "binary_matrix"):
        vars(importlib.import_module(f"reasoning_gym.algorithmic.{module}"))["eval"] = ast.literal_eval
    vars(importlib.import_module("reasoning_gym.games.n_queens"))["eval"] = ast.literal_eval
    for module in ("games.puzzle24", "games.countdown"):
        vars(importlib.import_module(f"reasoning_gym.{module}"))["parse_expr"] = parse_algebra
    sympy.parse_expr = parse_algebra


_disarm()
JOB = Job(score_answer)
