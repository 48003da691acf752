"""Equality of what the parser gives, exactly where that can be: expressions, equations up to a factor, inequalities."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import sympy
from latex2sympy2_extended.logic import And
from sympy.core.relational import Relational

from dphrl.verifiers.math.plain_text import ROUNDED, ROUNDED_PLACES

DIGITS = 60
"""Decimal digits to which two exact values must agree, beyond twice the powers of ten written in them, so that nothing
small is lost beside something large; at each of the points where they have variables."""
MAX_DIGITS = 2_500
"""Most digits that are worked out."""
SIGNS = ("+", "+", "++", "-", "--", "?", "?")
"""Of the points: sign, and small where it is doubled; ? = of each variable its own. More than one of each, since one
may be a zero of the difference by chance."""
FAR_SIGNS = ("+f", "-f", "+ff", "-ff", "?f", "?ff")
"""Points added, far out, where a function has corners: |x - 35|."""
_CORNERS = (sympy.Abs, sympy.Max, sympy.Min, sympy.sign, sympy.Piecewise, sympy.Heaviside)
WHOLE_SIGNS = ("+w", "+w", "-w")
"""Points added where a function of whole numbers is there."""
WHOLE = frozenset("nmkNMKjl")
"""First letters of variables that are whole numbers inside such functions."""
_UP = str.maketrans("-?", "++")
MAX_EXPONENT = 20_000
"""Largest power, argument of a factorial and the like that is worked out."""
_GROWING = (sympy.exp, sympy.factorial, sympy.gamma, sympy.binomial, sympy.factorial2, sympy.sinh, sympy.cosh)
_SERIES = (sympy.Sum, sympy.Product, sympy.Integral, sympy.Limit)
_INEQUALITIES = (sympy.StrictLessThan, sympy.LessThan, sympy.StrictGreaterThan, sympy.GreaterThan)


class TooBig(Exception):
    """A number that is not worked out."""


def equal_values(gold: Any, answer: Any) -> bool:
    """Whether two formulas say the same.

    Args:
        gold, answer: what the parser gave.
    Raises:
        TooBig: a number in them is too big to be worked out.
    """
    for expression in (gold, answer):
        refuse_big(expression)
    gold, answer = (side.doit() if isinstance(side, sympy.MatMul | sympy.MatAdd) else side for side in (gold, answer))
    if isinstance(gold, sympy.MatrixBase) or isinstance(answer, sympy.MatrixBase):
        both = isinstance(gold, sympy.MatrixBase) and isinstance(answer, sympy.MatrixBase)
        return both and gold.shape == answer.shape and all(map(equal_values, gold.flat(), answer.flat()))
    if isinstance(gold, Relational | And) and isinstance(answer, Relational | And):
        return equal_relations(gold, answer)
    if isinstance(gold, sympy.Expr) and isinstance(answer, sympy.Expr):
        return same_value(gold, answer) is True
    return type(gold) is type(answer) and bool(gold == answer)


def same_value(left: sympy.Expr, right: sympy.Expr) -> bool | None:
    """Whether two expressions have the same value, for all values of their variables.

    Returns:
        For numbers, exact if both are rational, else by `DIGITS` digits, or as a rounding where one is a decimal. With
        variables, by `DIGITS` digits at points of every sign that depend on both texts, so that nobody can write an
        answer that agrees there alone; at whole numbers where a function or a variable is of whole numbers. Where one
        is not real, the other says nothing, but for |x| beside x. None where neither has a value at any point.
    """
    rounded = left.has(sympy.Float) != right.has(sympy.Float)
    left, right = _with_imaginary_unit(_exact(left), _exact(right))
    if left == right:
        return True
    if (left.free_symbols or right.free_symbols) and left.has(*_SERIES) != right.has(*_SERIES):
        return False  # a series is not summed up to find out
    symbols = sorted(left.free_symbols | right.free_symbols, key=str)
    strict = left.has(sympy.Abs) != right.has(sympy.Abs) or left.has(sympy.I) or right.has(sympy.I)
    found = []
    for point in points(left, right, symbols) if symbols else [{}]:
        equal = _same_numbers(left, right, point, rounded, strict or not symbols)
        if equal is False:
            return False
        found.append(equal)
    if True in found or not symbols:
        return found[0] if not symbols else True
    unreal = [_same_numbers(left, right, point, rounded, True) for point in points(left, right, symbols)]
    return None if set(unreal) == {None} else False not in unreal


def _with_imaginary_unit(left: sympy.Expr, right: sympy.Expr) -> tuple[sympy.Expr, sympy.Expr]:
    """i as the imaginary unit, unless i, j and k name directions or an index; j too beside an i."""
    names = [{symbol.name for symbol in side.free_symbols} for side in (left, right)]
    for name, other in ((0, 1), (1, 0)):
        if "j" in names[name] and "i" in names[other] and not ("i" in names[name] or "j" in names[other]):
            return _with_imaginary_unit(
                *(side.xreplace({sympy.Symbol("j"): sympy.Symbol("i")}) for side in (left, right))
            )
    if {"j", "k"} & (names[0] | names[1]):
        return left, right
    unit = {sympy.Symbol("i"): sympy.I}
    return left.xreplace(unit), right.xreplace(unit)


def _same_numbers(
    left: sympy.Expr, right: sympy.Expr, point: dict[Any, Any], rounded: bool, strict: bool
) -> bool | None:
    exact = left.is_Rational and right.is_Rational
    digits = DIGITS if exact else DIGITS + 2 * max(_magnitude(left), _magnitude(right))
    if digits > MAX_DIGITS:
        raise TooBig
    if not strict and (_leaves_the_reals(left, point) or _leaves_the_reals(right, point)):
        return None
    values = [_value(expression, point, digits) for expression in (left, right)]
    if None in values:
        return None if values == [None, None] else False
    first, second = values
    if not strict and not all(value.is_real for value in values):
        return None
    if first.is_Rational and second.is_Rational and not rounded:
        return bool(first == second)
    gap, size = abs(first - second), max(abs(first), abs(second))
    if rounded:
        return bool(gap <= _rounding(left, right, size))
    return bool(gap <= size * sympy.Float(10, digits) ** (10 - digits))


def _leaves_the_reals(expression: sympy.Expr, point: dict[Any, Any]) -> bool:
    """Whether a root or logarithm within is of a negative number, though the whole may be real: sqrt(a) sqrt(b)."""
    for part in expression.atoms(sympy.Pow, sympy.log):
        inner = part.args[0]
        even_root = isinstance(part, sympy.log) or (part.exp.is_Rational and part.exp.q % 2 == 0)
        if even_root and inner.free_symbols and inner.xreplace(point).is_negative:
            return True
    return False


def _rounding(left: sympy.Expr, right: sympy.Expr, size: Any) -> Any:
    """How far apart a decimal and what it rounds may be: `ROUNDED`; or one of the last written place, if that is more
    and less than `ROUNDED` of the value; or half of it, where six places are written."""
    relative = sympy.Rational(ROUNDED.numerator, ROUNDED.denominator) * size
    places = [side for side in (left, right) if side.is_Rational and side.q > 1 and 10**15 % side.q == 0]
    last = max((sympy.Rational(1, 10 ** _places(side)) for side in places), default=0)
    last = last if size > 10**ROUNDED_PLACES * last else 0
    half = max(
        (sympy.Rational(1, 2 * 10 ** _places(side)) for side in places if _places(side) >= ROUNDED_PLACES), default=0
    )
    return max(relative * min(1, 1 / (size or 1)), min(relative, last), half) * sympy.Rational(1001, 1000)


def _places(value: sympy.Rational) -> int:
    return next(places for places in range(16) if 10**places % value.q == 0)


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
    refuse_big(at_point)
    at_point = at_point.doit()
    if not at_point.has(sympy.I):
        at_point = at_point.replace(_is_odd_root, _real_root)
    if at_point.is_Rational:
        return at_point
    value = at_point.evalf(digits, maxn=10 * digits)
    return value if value.is_number and value.is_finite and not value.free_symbols else None


def _is_odd_root(part: Any) -> bool:
    return bool(
        isinstance(part, sympy.Pow) and part.exp.is_Rational and part.exp.q % 2 and part.exp.q > 1
        and part.base.is_number and part.base.is_negative
    )  # fmt: skip


def _real_root(part: Any) -> Any:
    """The cube root of -8 is -2."""
    return (-1) ** int(part.exp.p % 2) * (-part.base) ** part.exp


def points(left: sympy.Expr, right: sympy.Expr, symbols: Sequence[sympy.Symbol]) -> list[dict[Any, sympy.Rational]]:
    """Where two expressions are compared: `SIGNS` of places, whole numbers for `WHOLE` variables and functions."""
    functions = [part for side in (left, right) for part in sympy.preorder_traversal(side) if _of_whole_numbers(part)]
    whole = {symbol for part in functions for symbol in part.free_symbols if symbol.name[0] in WHOLE}
    from_zero = any(isinstance(part, (sympy.factorial, sympy.binomial)) for part in functions)
    text = "\0".join(sorted((str(left), str(right))))
    return [
        {
            symbol: _coordinate(text, symbol, place, signs.translate(_UP) if from_zero else signs, symbol in whole)
            for symbol in symbols
        }
        for place, signs in enumerate(
            SIGNS + WHOLE_SIGNS * bool(functions) + FAR_SIGNS * (left.has(*_CORNERS) or right.has(*_CORNERS))
        )
    ]


def _of_whole_numbers(part: Any) -> bool:
    """Whether a part has a meaning of its own where its variable is a whole number."""
    if isinstance(part, (sympy.floor, sympy.ceiling, sympy.Mod, sympy.factorial, sympy.binomial)):
        return True
    if isinstance(part, sympy.Pow):
        return bool(part.base.is_number and part.base.is_negative and part.exp.free_symbols)
    return isinstance(part, (sympy.sin, sympy.cos, sympy.tan)) and part.has(sympy.pi)


def _coordinate(text: str, symbol: sympy.Symbol, place: int, signs: str, whole: bool) -> sympy.Rational:
    """A number for a variable. `signs`: + or -, ? either; small where it is doubled; w a whole number, f far."""
    digest = hashlib.blake2b(
        "\0".join((text, str(symbol), str(place))).encode(errors="replace"), digest_size=8
    ).digest()
    bits = int.from_bytes(digest, "big")
    negative = signs[0] == "-" or (signs[0] == "?" and bool(bits >> 63))
    if whole or "w" in signs:
        base = int.from_bytes(
            hashlib.blake2b(f"{text}{symbol}".encode(errors="replace"), digest_size=2).digest(), "big"
        )
        value = sympy.Integer(2 + base % 12 + place)
    elif "f" in signs:
        value = sympy.Rational(100 + bits % 900, 101 + (bits >> 16) % 397) * 60 ** signs.count("f")
    elif len(signs) > 1:
        value = sympy.Rational(1 + bits % 396, 397)
    else:
        value = sympy.Rational(100 + bits % 900, 101 + (bits >> 16) % 397)
    return -value if negative else value


def _exact(expression: sympy.Expr) -> sympy.Expr:
    """With decimals as the fractions they are, and x * (1/100) held back by the parser carried out."""
    decimals = {number: sympy.Rational(str(number)) for number in expression.atoms(sympy.Float)}
    held = {part: part.args[0] for part in expression.atoms(sympy.UnevaluatedExpr)}
    return expression.xreplace(held).xreplace(decimals)


def refuse_big(expression: Any) -> None:
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


def as_interval(value: Any) -> Any:
    """x > 2 and -1 < x <= 3 as the intervals they are."""
    parts = value._unsorted_args if isinstance(value, And) else (value,)
    if not parts or not all(
        isinstance(part, (*_INEQUALITIES, sympy.Ne)) and len(part.free_symbols) == 1 for part in parts
    ):
        return value
    if len({part.free_symbols.copy().pop() for part in parts}) != 1 or not all(map(_bounds_a_symbol, parts)):
        return value
    return sympy.Intersection(*(part.as_set() for part in parts))


def _bounds_a_symbol(part: Relational) -> bool:
    return any(isinstance(side, sympy.Symbol) and other.is_number for side, other in (part.args, part.args[::-1]))


def says_nothing_more(left: Any, right: Any) -> bool:
    """Whether one side of an equation only says what the other is: a + b = 5 and log_2 32 = 5, but not 2x = 10."""
    if not getattr(right, "is_number", False) or not isinstance(left, sympy.Expr):
        return False
    names = isinstance(left, sympy.Add | sympy.Mul) and all(part.is_Symbol for part in left.args)
    return bool(names or (left.is_number and same_value(left, right)))


def equal_relations(gold: Any, answer: Any) -> bool:
    """Equations up to a factor; inequalities up to a positive one, read from either side; chains link by link."""
    if isinstance(gold, And) or isinstance(answer, And):
        links = [list(side._unsorted_args) if isinstance(side, And) else [side] for side in (gold, answer)]
        forwards, backwards = links[1], [link.reversed for link in reversed(links[1])]
        return len(links[0]) == len(forwards) and any(
            all(map(equal_relations, links[0], order)) for order in (forwards, backwards)
        )
    if isinstance(gold, sympy.Ne) and isinstance(answer, sympy.Ne):
        return equal_relations(sympy.Eq(*gold.args, evaluate=False), sympy.Eq(*answer.args, evaluate=False))
    if isinstance(gold, sympy.Eq) != isinstance(answer, sympy.Eq):
        return False
    if not all(isinstance(side, sympy.Expr) for side in (*gold.args, *answer.args)):
        return type(gold) is type(answer) and all(map(equal_values, gold.args, answer.args))
    if not isinstance(gold, sympy.Eq):
        if type(gold) is not type(answer):
            answer = answer.reversed
        if type(gold) is not type(answer):
            return False
    gold_zero, answer_zero = gold.lhs - gold.rhs, answer.lhs - answer.rhs
    if not gold_zero.free_symbols or not answer_zero.free_symbols:  # 2 = 2 does not say that 3 = 3
        return any(
            gold.args[side] == answer.args[side] and equal_values(gold.args[1 - side], answer.args[1 - side])
            for side in (0, 1)
        )
    if same_value(gold_zero, answer_zero):
        return True
    ratio = sympy.cancel(_exact(gold_zero) / _exact(answer_zero))
    any_sign = isinstance(gold, sympy.Eq)
    return bool(ratio.is_number and ratio.is_finite and (ratio.is_positive or (any_sign and ratio != 0)))
