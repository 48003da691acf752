"""Equality of what math-verify's parser gives, exactly where that can be: its own comparison rounds.

Structure is compared here (tuples by place, lists and sets in any order, intervals by their ends, equations up to a
factor); values by `same_value`. What is neither goes to math-verify's comparison.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import sympy
from latex2sympy2_extended.logic import And
from math_verify import verify
from sympy.core.relational import Relational

DIGITS = 60
"""Decimal digits to which two exact values must agree, beyond twice the powers of ten written in them, so that nothing
small is lost beside something large; at each of `POINTS` places where they have variables."""
MAX_DIGITS = 2_500
"""Most digits that are worked out."""
POINTS = 3
MAX_EXPONENT = 20_000
"""Largest power, argument of a factorial and the like that is worked out."""
ROUNDED = Fraction(1, 10**6)
"""How far a decimal may be from an exact value that it rounds (0.333333 for 1/3), relative to the larger, at most so
far in absolute terms; math-verify's six decimals, but not for small numbers."""
_GROWING = (sympy.exp, sympy.factorial, sympy.gamma, sympy.binomial, sympy.factorial2, sympy.sinh, sympy.cosh)
_SERIES = (sympy.Sum, sympy.Product, sympy.Integral, sympy.Limit)
_INEQUALITIES = (sympy.StrictLessThan, sympy.LessThan, sympy.StrictGreaterThan, sympy.GreaterThan)
_COLLECTIONS = (sympy.Tuple, sympy.FiniteSet, sympy.Interval, sympy.Union)


class TooBig(Exception):
    """A number that is not worked out."""


def equal_answers(gold: Any, answer: Any) -> bool:
    """Whether two parsed answers are equal.

    Args:
        gold, answer: what `math_verify.parse` gave.
    Raises:
        TooBig: a number in them is too big to be worked out.
    """
    gold, answer = (_as_interval(value) for value in _assigned(gold, answer))
    for expression in (gold, answer):
        _refuse_big(expression)
    if isinstance(gold, _COLLECTIONS) or isinstance(answer, _COLLECTIONS):
        return _same_collections(gold, answer)
    if isinstance(gold, sympy.MatrixBase) and isinstance(answer, sympy.MatrixBase):
        return gold.shape == answer.shape and _pairwise(gold.flat(), answer.flat())
    if isinstance(gold, Relational) and isinstance(answer, Relational):
        return _same_relations(gold, answer)
    if isinstance(gold, Relational) != isinstance(answer, Relational):
        return False
    if isinstance(gold, sympy.Symbol) and isinstance(answer, sympy.Symbol):
        return str(gold).lower() == str(answer).lower()
    if isinstance(gold, sympy.Expr) and isinstance(answer, sympy.Expr):
        equal = same_value(gold, answer)
        if equal is not None:
            return equal
    return _by_math_verify(gold, answer)


def same_value(left: sympy.Expr, right: sympy.Expr) -> bool | None:
    """Whether two expressions have the same value, for all values of their variables.

    Returns:
        For numbers, exact if both are rational, else by `DIGITS` digits, or as a rounding where one is a decimal. With
        variables, by `DIGITS` digits at `POINTS` rational points that depend on both texts, so that nobody can write
        an answer that agrees there alone. None where neither has a value at any point.
    """
    rounded = left.has(sympy.Float) != right.has(sympy.Float)
    left, right = _exact(left), _exact(right)
    if left == right:
        return True
    if (left.free_symbols or right.free_symbols) and left.has(*_SERIES) != right.has(*_SERIES):
        return False  # a series is not summed up to find out
    symbols = sorted(left.free_symbols | right.free_symbols, key=str)
    agreed = None
    for place in range(POINTS if symbols else 1):
        point = {symbol: _coordinate(left, right, symbol, place) for symbol in symbols}
        equal = _same_numbers(left, right, point, rounded)
        if equal is False:
            return False
        agreed = agreed or equal
    return agreed


def _same_numbers(left: sympy.Expr, right: sympy.Expr, point: dict[Any, Any], rounded: bool) -> bool | None:
    exact = left.is_Rational and right.is_Rational
    digits = DIGITS if exact else DIGITS + 2 * max(_magnitude(left), _magnitude(right))
    if digits > MAX_DIGITS:
        raise TooBig
    values = [_value(expression, point, digits) for expression in (left, right)]
    if None in values:
        return None if values == [None, None] else False
    first, second = values
    if first.is_Rational and second.is_Rational and not rounded:
        return bool(first == second)
    gap, size = abs(first - second), max(abs(first), abs(second))
    if rounded:
        allowed = sympy.Rational(ROUNDED.numerator, ROUNDED.denominator) * min(1, size) * sympy.Rational(1001, 1000)
        return bool(gap <= allowed)
    return bool(gap <= size * sympy.Float(10, digits) ** (10 - digits))


def _magnitude(expression: sympy.Expr) -> int:
    """The largest power of ten, up or down, of the numbers and powers of numbers in an expression."""
    largest = 0
    for part in sympy.preorder_traversal(expression):
        if part.is_Rational:
            largest = max(largest, _bits(part) * 3 // 10)
        elif isinstance(part, sympy.Pow) and part.is_number and part.base.is_Rational:
            largest = max(largest, int(_bits(part.base) * abs(part.exp.evalf(5))) * 3 // 10)
        elif isinstance(part, sympy.Pow) and part.is_number:
            largest = max(largest, abs(int(sympy.log(abs(part.evalf(5)) or 1, 10).evalf(5))))
    return largest


def _bits(value: sympy.Rational) -> int:
    return abs(int(value.p).bit_length() - int(value.q).bit_length())


def _value(expression: sympy.Expr, point: dict[Any, Any], digits: int) -> Any:
    """The rational, else the number of many digits, that an expression is at a point; None where it has none."""
    at_point = expression.xreplace(point)
    _refuse_big(at_point)
    at_point = at_point.doit()
    if at_point.is_Rational:
        return at_point
    value = at_point.evalf(digits, maxn=10 * digits)
    return value if value.is_number and value.is_finite and not value.free_symbols else None


def _coordinate(left: sympy.Expr, right: sympy.Expr, symbol: sympy.Symbol, place: int) -> sympy.Rational:
    """A rational number for a variable: the first point positive, for roots and logarithms, the others of any sign."""
    text = "\0".join([*sorted((str(left), str(right))), str(symbol), str(place)])
    bits = int.from_bytes(hashlib.blake2b(text.encode(errors="replace"), digest_size=8).digest(), "big")
    value = sympy.Rational(100 + bits % 900, 101 + (bits >> 16) % 397)
    return -value if place and bits >> 63 else value


def _exact(expression: sympy.Expr) -> sympy.Expr:
    """With decimals as the fractions they are, and x * (1/100) held back by the parser carried out."""
    decimals = {number: sympy.Rational(str(number)) for number in expression.atoms(sympy.Float)}
    held = {part: part.args[0] for part in expression.atoms(sympy.UnevaluatedExpr)}
    return expression.xreplace(held).xreplace(decimals)


def _refuse_big(expression: Any) -> None:
    if not isinstance(expression, sympy.Basic):
        return
    for part in sympy.preorder_traversal(expression):
        arguments = part.args[1:] if isinstance(part, sympy.Pow) else part.args if isinstance(part, _GROWING) else ()
        for argument in arguments:
            if not argument.free_symbols and (_towers(argument) or abs(argument.evalf(5)) > MAX_EXPONENT):
                raise TooBig


def _towers(exponent: Any) -> bool:
    """Whether there is a power in a power's exponent that must not even be estimated."""
    return any(
        isinstance(part, (sympy.Pow, *_GROWING)) and not all(a.is_Number and abs(a) <= MAX_EXPONENT for a in part.args)
        for part in sympy.preorder_traversal(exponent)
    )


def _assigned(gold: Any, answer: Any) -> tuple[Any, Any]:
    """x = 5 beside 5, f(x) = 2x beside 2x: the name is no part of the value unless both sides name one."""
    gold, answer = _last_of_chain(gold), _last_of_chain(answer)
    if _is_assignment(gold) and not isinstance(answer, Relational):
        gold = gold.rhs
    if isinstance(answer, sympy.Eq) and not isinstance(gold, Relational | And):
        answer = answer.rhs if _is_assignment(answer) or _says_a_number(answer) else answer
    return gold, answer


def _as_interval(value: Any) -> Any:
    """x > 2 and -1 < x <= 3 as the intervals they are."""
    parts = value._unsorted_args if isinstance(value, And) else (value,)
    if not all(isinstance(part, _INEQUALITIES) and len(part.free_symbols) == 1 for part in parts):
        return value
    if len({part.free_symbols.copy().pop() for part in parts}) != 1 or not all(map(_bounds_a_symbol, parts)):
        return value
    return sympy.Intersection(*(part.as_set() for part in parts))


def _bounds_a_symbol(part: Relational) -> bool:
    return any(isinstance(side, sympy.Symbol) and other.is_number for side, other in (part.args, part.args[::-1]))


def _last_of_chain(value: Any) -> Any:
    """a = b = c as a = c."""
    parts = value._unsorted_args if isinstance(value, And) else ()
    if parts and all(isinstance(part, sympy.Eq) for part in parts):
        return sympy.Eq(parts[0].lhs, parts[-1].rhs, evaluate=False)
    return value


def _is_assignment(value: Any) -> bool:
    name = (sympy.Symbol, sympy.core.function.AppliedUndef)
    return isinstance(value, sympy.Eq) and isinstance(value.lhs, name)


def _says_a_number(equation: sympy.Eq) -> bool:
    """a + b = 5 and log_2 32 = 5, but not 2x = 10, which is about x."""
    left, right = equation.args
    if not getattr(right, "is_number", False) or not isinstance(left, sympy.Expr):
        return False
    names = isinstance(left, sympy.Add | sympy.Mul) and all(part.is_Symbol for part in left.args)
    return bool(names or left.is_number)


def _same_collections(gold: Any, answer: Any) -> bool:
    if isinstance(gold, sympy.FiniteSet) or isinstance(answer, sympy.FiniteSet):
        return _any_order(_members(gold), _members(answer))
    gold_tuple, answer_tuple = _as_tuple(gold, answer), _as_tuple(answer, gold)
    if isinstance(gold_tuple, sympy.Tuple) and isinstance(answer_tuple, sympy.Tuple):
        return _pairwise(gold_tuple.args, answer_tuple.args)
    if isinstance(gold, sympy.Interval) and isinstance(answer, sympy.Interval):
        ends = (gold.left_open, gold.right_open) == (answer.left_open, answer.right_open)
        return ends and _pairwise((gold.start, gold.end), (answer.start, answer.end))
    if isinstance(gold, sympy.Union) and isinstance(answer, sympy.Union):
        return _any_order(gold.args, answer.args)
    return not isinstance(gold, sympy.Tuple) and not isinstance(answer, sympy.Tuple) and _by_math_verify(gold, answer)


def _as_tuple(value: Any, other: Any) -> Any:
    """(1, 2), read as an open interval, as the pair that the other answer is."""
    is_pair = isinstance(value, sympy.Interval) and value.is_open and isinstance(other, sympy.Tuple)
    return sympy.Tuple(value.start, value.end) if is_pair else value


def _members(value: Any) -> Sequence[Any]:
    return list(value.args) if isinstance(value, sympy.FiniteSet) else [value]


def _pairwise(gold: Sequence[Any], answer: Sequence[Any]) -> bool:
    return len(gold) == len(answer) and all(equal_answers(a, b) for a, b in zip(gold, answer, strict=True))


def _any_order(gold: Sequence[Any], answer: Sequence[Any]) -> bool:
    """Each member has its own partner; equality is transitive, so the first that fits will do."""
    left = list(answer)
    for member in gold:
        partner = next((index for index, other in enumerate(left) if equal_answers(member, other)), None)
        if partner is None:
            return False
        del left[partner]
    return not left


def _same_relations(gold: Relational, answer: Relational) -> bool:
    """Equations up to a factor; inequalities up to a positive one, read from either side."""
    if isinstance(gold, sympy.Eq) != isinstance(answer, sympy.Eq):
        return False
    if not all(isinstance(side, sympy.Expr) for side in (*gold.args, *answer.args)):
        return type(gold) is type(answer) and _pairwise(gold.args, answer.args)
    if not isinstance(gold, sympy.Eq):
        if type(gold) is not type(answer):
            answer = answer.reversed
        if type(gold) is not type(answer):
            return False
    gold_zero, answer_zero = gold.lhs - gold.rhs, answer.lhs - answer.rhs
    if (
        not gold_zero.free_symbols or not answer_zero.free_symbols
    ):  # both hold, or neither does: 2 = 2 does not say that 3 = 3
        return any(
            gold.args[side] == answer.args[side] and equal_answers(gold.args[1 - side], answer.args[1 - side])
            for side in (0, 1)
        )
    if same_value(gold_zero, answer_zero):
        return True
    ratio = sympy.cancel(_exact(gold_zero) / _exact(answer_zero))
    any_sign = isinstance(gold, sympy.Eq)
    return bool(ratio.is_number and ratio.is_finite and (ratio.is_positive or (any_sign and ratio != 0)))


def _by_math_verify(gold: Any, answer: Any) -> bool:
    # its own time-outs are off: one-shot alarms that cancel each other; the deadline of our pool does not miss
    return bool(verify([gold], [answer], timeout_seconds=None))
