"""Whether two readings say the same: structure here, values by `equal_values`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import sympy
from sympy.core.relational import Relational

from dphrl.verifiers.math.equal_values import as_interval, equal_relations, equal_values, says_nothing_more
from dphrl.verifiers.math.formula import parsed
from dphrl.verifiers.math.records import ANY_ORDER, Equation, Group, Named, Reading, Value, Words
from dphrl.verifiers.math.units import is_noun, same_unit

_OPEN_FORMS = re.compile(r"\\(?:i*nt|oint|sum|prod|lim|det)(?![A-Za-z])|\\frac\s*\{\s*d\s*\}\s*\{\s*d")
_IDLE = re.compile(r"\s+|\\text\b|\\cdot(?![A-Za-z])")
_SINGLE = re.compile(r"([\^_])\s*\{\s*(\w)\s*\}")
_FUNCTION_OF_X = re.compile(r"[A-Za-z]\(x\)")
_INTEGRATED = re.compile(r"\+\s*C$")
_NEAR = 50
"""The part of a value by which what it is said to be about may differ from it."""
_EMPTY = r"\emptyset"
_INTERVALS = frozenset({"()", "[]", "[)", "(]"})


def same(gold: Reading, answer: Reading) -> bool:
    """Whether an answer says what the gold answer says.

    Raises:
        TooBig: a number in them is too big to be worked out.
    """
    if isinstance(gold, Named) or isinstance(answer, Named):
        return _same_named(gold, answer)
    if isinstance(gold, Words) or isinstance(answer, Words):
        return _same_words(*(_as_words(side) for side in (gold, answer)))
    if isinstance(gold, Group) and gold.kind == "about":
        return any(same(side, answer) for side in gold.items)
    if isinstance(answer, Group) and answer.kind == "about":
        return same(gold, answer.items[0]) and _near(*answer.items)
    if isinstance(gold, Equation) or isinstance(answer, Equation):
        return _same_equations(gold, answer)
    if isinstance(gold, Group) or isinstance(answer, Group):
        return _same_groups(gold, answer)
    return _same_values(gold, answer)


def _same_named(gold: Reading, answer: Reading) -> bool:
    """A name may be left out or added; two different ones differ, unless each side names the other."""
    if isinstance(gold, Equation):
        return isinstance(answer, Named) and _same_equations(gold, answer)
    if isinstance(gold, Named) and isinstance(answer, Named):
        if gold.name == answer.name or _of_a_graph(gold.name, answer.name):
            return same(gold.value, answer.value)
        values = [side.value.latex.strip() if isinstance(side.value, Value) else "" for side in (gold, answer)]
        return gold.name == values[1] and answer.name == values[0]
    if isinstance(gold, Named):
        return not isinstance(answer, Equation) and same(gold.value, answer)
    assert isinstance(answer, Named)
    return same(gold, answer.value)


def _of_a_graph(*names: str) -> bool:
    """y and f(x)."""
    return "y" in names and any(_FUNCTION_OF_X.fullmatch(name) for name in names)


def _near(value: Reading, about: Reading) -> bool:
    """Whether a value is about what it is said to be about."""
    first, second = (parsed(side.latex) if isinstance(side, Value) else None for side in (value, about))
    if first is None or second is None or not (first.is_number and second.is_number):
        return False
    return bool(abs(first - second) * _NEAR <= abs(first))


def _as_words(side: Reading) -> str:
    """Words, and letters that may be one; '' for all else."""
    if isinstance(side, Words):
        return side.text
    return side.latex.lower() if isinstance(side, Value) and len(side.latex) > 1 and side.latex.isalpha() else ""


def _same_words(gold: str, answer: str) -> bool:
    """3:00 and 3:00 pm are the same time; 3:00 am and 3:00 pm are not. No words are no answer."""
    if not gold or not answer:
        return False
    clocks = {words.removesuffix(" am").removesuffix(" pm") for words in (gold, answer)}
    return gold.removesuffix("s") == answer.removesuffix("s") or (
        len(clocks) == 1 and clocks <= {gold, answer} and clocks.pop()[0].isdigit()
    )


def _same_equations(gold: Reading, answer: Reading) -> bool:
    if isinstance(gold, Value) and isinstance(answer, Equation):
        left, right = answer.sides
        return any(
            says_nothing_more(parsed(side), parsed(other)) and same(gold, Value(other))
            for side, other in ((left, right), (right, left))
        )
    if isinstance(answer, Value) and isinstance(gold, Equation):
        left, right = gold.sides
        return says_nothing_more(parsed(left), parsed(right)) and same(Value(right), answer)
    sides = [_sides(reading) for reading in (gold, answer)]
    if sides[0] is None or sides[1] is None:
        return False
    if {_bare(side) for side in sides[0]} == {_bare(side) for side in sides[1]}:
        return True
    values = [[parsed(side) for side in pair] for pair in sides if pair]
    if any(value is None for pair in values for value in pair):
        return False
    return equal_relations(*(sympy.Eq(*pair, evaluate=False) for pair in values))


def _sides(reading: Reading) -> tuple[str, str] | None:
    if isinstance(reading, Equation):
        return reading.sides
    if isinstance(reading, Named) and isinstance(reading.value, Value):
        return reading.name, reading.value.latex
    return None


def _same_groups(gold: Reading, answer: Reading) -> bool:
    gold, answer = (_as_group(side, other) for side, other in ((gold, answer), (answer, gold)))
    if not isinstance(gold, Group) or not isinstance(answer, Group):
        return _single_member(gold, answer) or _by_formula(gold, answer)
    kinds = (gold.kind, answer.kind)
    if _named(gold) or _named(answer):
        return _same_assignments(gold, answer)
    if set(kinds) <= {"list", "set"}:
        return _any_order(gold.items, answer.items)
    if set(kinds) == {"matrix", "()"}:
        gold, answer = (_column(side) for side in (gold, answer))
    if set(kinds) == {"matrix", "[]"}:
        gold, answer = (_grid(side) for side in (gold, answer))
    if gold.kind != answer.kind and not set(kinds) <= {"list", "compound"}:
        return set(kinds) <= {"cup", "list"} and gold.kind == "cup" and _any_order(gold.items, answer.items)
    if gold.kind in ANY_ORDER | {"cases"}:
        return _any_order(gold.items, answer.items)
    return _by_place(gold.items, answer.items)


def _as_group(side: Reading, other: Reading) -> Reading:
    """x > 2 as the interval that the other side is; \\binom{2}{3} as the column that it looks like."""
    if not isinstance(side, Value) or not isinstance(other, Group):
        return side
    column = re.fullmatch(r"\\binom\{([^{}]*)\}\{([^{}]*)\}", side.latex)
    if column and other.kind in ("matrix", "()"):
        return Group("()", (Value(column[1]), Value(column[2])), side.latex)
    if other.kind not in _INTERVALS | {"cup"}:
        return side
    return _group_of(as_interval(parsed(side.latex))) or side


def _group_of(value: Any) -> Group | None:
    """A set of numbers as a reading."""
    if isinstance(value, sympy.Interval):
        kind = ("(" if value.left_open else "[") + (")" if value.right_open else "]")
        return Group(kind, (_exactly(value.start), _exactly(value.end)), "")
    if isinstance(value, sympy.Union):
        parts = [_group_of(part) for part in value.args]
        return Group("cup", tuple(part for part in parts if part), "") if all(parts) else None
    return None


def _exactly(value: Any) -> Value:
    return Value(sympy.latex(value))


def _single_member(gold: Reading, answer: Reading) -> bool:
    """{5} and 5."""
    groups = [side for side in (gold, answer) if isinstance(side, Group)]
    if len(groups[0].items) != 1 or groups[0].kind not in ("set", "list"):
        return False
    if any(isinstance(side, Value) and _EMPTY in side.latex for side in (gold, answer)):
        return False
    return same(*(side.items[0] if isinstance(side, Group) else side for side in (gold, answer)))


def _by_formula(gold: Reading, answer: Reading) -> bool:
    """A matrix, and a formula that is one."""
    texts = [side.latex for side in (gold, answer) if isinstance(side, Group | Value)]
    kinds = {side.kind for side in (gold, answer) if isinstance(side, Group)}
    return kinds == {"matrix"} and _same_values(*(Value(text) for text in texts))


def _named(group: Group) -> bool:
    names = [item.name for item in group.items if isinstance(item, Named)]
    return group.kind == "list" and len(names) == len(group.items) == len(set(names)) > 1


def _same_assignments(gold: Group, answer: Group) -> bool:
    """a = 1, b = 2: by name beside names, by place beside values."""
    if not (_named(gold) and _named(answer)):
        return (answer.kind in ("list", "()") if _named(gold) else gold.kind in ("list", "()")) and _by_place(
            gold.items, answer.items
        )
    values = {item.name: item for item in answer.items if isinstance(item, Named)}
    pairs = [(item, values.get(item.name)) for item in gold.items if isinstance(item, Named)]
    return len(pairs) == len(values) and all(other is not None and same(item, other) for item, other in pairs)


def _column(group: Group) -> Group:
    """A matrix of one column as the tuple of what stands in it."""
    cells = [row.items for row in group.items if isinstance(row, Group) and row.kind == "row"]
    if group.kind != "matrix" or not all(len(row) == 1 for row in cells):
        return group
    return Group("()", tuple(row[0] for row in cells), group.latex)


def _grid(group: Group) -> Group:
    """[[1, 2], [3, 4]] as the matrix that it is beside one."""
    rows = [row for row in group.items if isinstance(row, Group) and row.kind == "[]"]
    if group.kind != "[]" or len(rows) != len(group.items):
        return group
    return Group("matrix", tuple(Group("row", row.items, row.latex) for row in rows), group.latex)


def _by_place(gold: Sequence[Reading], answer: Sequence[Reading]) -> bool:
    return len(gold) == len(answer) and all(same(a, b) for a, b in zip(gold, answer, strict=True))


def _any_order(gold: Sequence[Reading], answer: Sequence[Reading]) -> bool:
    """Each member has its own partner; equality is transitive, so the first that fits will do."""
    if len(gold) != len(answer):
        return False
    left = list(answer)
    for member in gold:
        partner = next((index for index, other in enumerate(left) if same(member, other)), None)
        if partner is None:
            return False
        del left[partner]
    return True


def _same_values(gold: Reading, answer: Reading) -> bool:
    assert isinstance(gold, Value) and isinstance(answer, Value)
    if not same_unit(gold.unit, answer.unit) or not _understood(gold, answer):
        return False
    if (gold.unit and answer.percent) or (gold.percent and answer.unit):
        return False
    if any(
        left and right and left != right for left, right in ((gold.base, answer.base), (gold.modulus, answer.modulus))
    ):
        return False
    if gold.base or answer.base:
        return gold.latex.lower() == answer.latex.lower()
    if _OPEN_FORMS.search(answer.latex) and not _OPEN_FORMS.search(gold.latex):
        return False  # a value was asked for, not an integral that has it
    if _bare(gold.latex) == _bare(answer.latex) and gold.percent == answer.percent:
        return bool(_bare(gold.latex))
    values = parsed(gold.latex), parsed(_with_constant(answer.latex, gold.latex))
    if values[0] is None or values[1] is None:
        return False
    return _same_percent(gold, answer, *values)


def _with_constant(answer: str, gold: str) -> str:
    """x^2 + c as x^2 + C, beside a gold answer that ends so and has the letter nowhere else."""
    letters = re.sub(r"\\[A-Za-z]+", "", gold)
    if not _INTEGRATED.search(gold) or letters.count("C") > 1 or "c" in letters:
        return answer
    return re.sub(r"\+\s*c$", "+C", answer)


def _understood(gold: Value, answer: Value) -> bool:
    """Whether the words behind the answer's number name what is counted: the gold answer's, or a noun."""
    if not answer.nouns or gold.unit == answer.unit or gold.nouns:
        return True
    return is_noun(answer.nouns, answer.latex.strip() == "1")


def _same_percent(gold: Value, answer: Value, *values: Any) -> bool:
    """With a percent sign on one side only: 50% is 50 and 0.5, but 0.5% is not 0.5, nor 1% 1."""
    if gold.percent == answer.percent:
        return equal_values(*values)
    small = any(getattr(value, "is_number", False) and abs(value) <= 1 for value in values)
    if not small and equal_values(*values):
        return True
    return equal_values(
        *(value / 100 if side.percent else value for value, side in zip(values, (gold, answer), strict=True))
    )


def _bare(latex: str) -> str:
    """The text without what is idle; a space between digits stays."""
    return _IDLE.sub("", _SINGLE.sub(r"\1\2", re.sub(r"(?<=\d)\s+(?=\d)", "\0", latex)))


def relation(value: Any) -> bool:
    """Whether the parser read an equation or inequality."""
    return isinstance(value, Relational)
