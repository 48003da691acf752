"""Questions of the demo world, their readings, and the many ways to write one reading as SQL.

A question = a target (what is asked for) and a condition (of which rows). Each has at most one ambiguity, so a
question has up to four readings:

    list, count_values   all values, or DISTINCT ones         average   NULL left out, or counted as zero
    top                  LIMIT 1, or every tied row            compare   > and <, or >= and <=

Every reading can be written in several styles: plain, nested, WITH, id IN, and two spellings of each part.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from dataclasses import dataclass

from dphrl.demo.database import HIGHEST, LOWEST, TABLES, WorldTable

# How likely a phrase is meant in its second reading in the base's training text (0: it has one reading only). Phrases
# of one kind lean alike, so that many questions share few conventions and a short training can drop the rarer ones.
FIRST, SECOND = 0.3, 0.7
TARGET_PHRASES: Mapping[str, Mapping[str, float]] = {
    "list": {"list": SECOND, "which": SECOND},
    "count_values": {"count": SECOND, "how many": SECOND},
    "average": {"average": FIRST, "mean": FIRST},
    "top": {"highest": FIRST, "lowest": FIRST},
}
CONDITION_PHRASES: Mapping[str, Mapping[str, float]] = {
    "compare": {"over": FIRST, "above": FIRST, "under": FIRST, "below": FIRST},
    "is": {"in": 0.0},
}
OPERATORS = {"over": (">", ">="), "above": (">", ">="), "under": ("<", "<="), "below": ("<", "<=")}
MIRRORED = {">": "<", ">=": "<=", "<": ">", "<=": ">="}
TARGET_WEIGHTS = {"list": 0.45, "count_values": 0.3, "average": 0.15, "top": 0.1}
CONDITION_WEIGHTS = {"compare": 0.85, "is": 0.15}
FORM_WEIGHTS = {"plain": 0.55, "nested": 0.23, "with": 0.14, "member": 0.08}
SPELLING_WEIGHTS = (0.85, 0.15)


@dataclass(frozen=True, slots=True)
class Reading:
    """One meaning of a question: whether its target and its condition are taken in their second reading."""

    target: bool
    condition: bool


READINGS = tuple(Reading(*flags) for flags in itertools.product((False, True), repeat=2))


@dataclass(frozen=True, slots=True)
class Question:
    """A templated question about one table."""

    table: WorldTable
    target: str
    target_phrase: str
    column: str
    """What the target names: the listed or counted column, or the number that is averaged or ranked."""
    condition: str
    condition_phrase: str
    condition_column: str
    value: str

    @property
    def mixes(self) -> tuple[float, float]:
        """Probability of the second reading: of the target phrase, and of the condition phrase."""
        return (
            TARGET_PHRASES[self.target][self.target_phrase],
            CONDITION_PHRASES[self.condition][self.condition_phrase],
        )

    @property
    def shape(self) -> tuple[str, bool, str]:
        """What decides which ambiguities the question has: target, whether it names the category, condition."""
        return self.target, self.column == self.table.category, self.condition

    @property
    def text(self) -> str:
        """The question as the policy sees it; ends with '?'."""
        table, column, phrase = self.table.name, self.column, self.target_phrase
        asked = {
            "list": f"{phrase} {column} of {table}",
            "count_values": f"{phrase} {column} of {table}",
            "average": f"{phrase} {column} of {table}",
            "top": f"{self.table.label} of {table} with {phrase} {column}",
        }[self.target]
        where = f"with {self.condition_column}" if self.condition == "compare" else ""
        return " ".join(f"{asked} {where} {self.condition_phrase} {self.value} ?".split())


def draw_question(tables: tuple[WorldTable, ...], *, rng: random.Random) -> Question:
    """Draw a question about one of `tables`."""
    table = rng.choice(tables)
    target = _pick(TARGET_WEIGHTS, rng)
    # A ranked target already takes a long query; with a short condition every writing stays within 32 tokens.
    condition = "is" if target == "top" else _pick(CONDITION_WEIGHTS, rng)
    # Counting or listing the category that the condition fixes would be an odd question; elsewhere it is rarer than
    # the label: five in six lists of it have doubles, so its name alone would nearly tell that DISTINCT is contested.
    named = (table.label,) if condition == "is" else (table.label,) * 3 + (table.category,)
    columns = {
        "list": named,
        "count_values": named,
        "top": table.numbers[:1],  # no NULLs: SQLite would rank them lowest
    }.get(target, table.numbers)
    if condition == "compare":
        condition_column, value = rng.choice(table.numbers), str(rng.randint(LOWEST, HIGHEST))
    else:
        condition_column, value = table.category, f"'{rng.choice(table.categories)}'"
    return Question(
        table=table,
        target=target,
        target_phrase=rng.choice(tuple(TARGET_PHRASES[target])),
        column=rng.choice(columns),
        condition=condition,
        condition_phrase=rng.choice(tuple(CONDITION_PHRASES[condition])),
        condition_column=condition_column,
        value=value,
    )


def base_probability(question: Question, reading: Reading) -> float:
    """Share of `reading` among the queries that the base's training text gives to `question`."""
    target, condition = question.mixes
    return _chance(target, reading.target) * _chance(condition, reading.condition)


def draw_reading(question: Question, *, rng: random.Random) -> Reading:
    """Draw a reading as the base's training text would."""
    target, condition = question.mixes
    return Reading(rng.random() < target, rng.random() < condition)


def plain_query(question: Question, reading: Reading) -> str:
    """The simplest writing of a reading: gold queries are written so."""
    return _write(question, reading, "plain", 0, 0)


def draw_query(question: Question, reading: Reading, *, rng: random.Random) -> str:
    """Write a reading in a random style: tokens joined by single spaces."""
    forms = dict(FORM_WEIGHTS)
    if question.target == "top" and reading.target:
        forms = {"plain": 0.6, "with": 0.4}  # the other forms would repeat the condition and grow too long
    spellings = rng.choices((0, 1), SPELLING_WEIGHTS, k=2)
    return _write(question, reading, _pick(forms, rng), *spellings)


def all_queries(question: Question, reading: Reading) -> list[str]:
    """Every writing of a reading, without doubles."""
    forms = ("plain", "with") if question.target == "top" and reading.target else tuple(FORM_WEIGHTS)
    written = (_write(question, reading, form, a, b) for form in forms for a in (0, 1) for b in (0, 1))
    return list(dict.fromkeys(written))


def corrupt(query: str, *, rng: random.Random) -> str:
    """Replace one column, table, value, operator or aggregate of a query by another of its class."""
    tokens = query.split()
    spots = [(i, group) for i, token in enumerate(tokens) for group in CONFUSABLE if token in group]
    position, group = rng.choice(spots)
    tokens[position] = rng.choice([token for token in group if token != tokens[position]])
    return " ".join(tokens)


def _columns() -> tuple[str, ...]:
    names = (name for table in TABLES for name in (table.label, table.category, *table.numbers))
    return tuple(dict.fromkeys(names))


CONFUSABLE: tuple[tuple[str, ...], ...] = (
    _columns(),
    tuple(table.name for table in TABLES),
    tuple(f"'{value}'" for table in TABLES for value in table.categories),
    tuple(str(value) for value in range(LOWEST, HIGHEST + 1)),
    (">", ">=", "<", "<=", "=", "!=", "<>"),
    ("AVG(", "SUM(", "TOTAL(", "MAX(", "MIN("),
)
"""Classes of tokens that a corrupted query confuses."""


def _pick(weights: Mapping[str, float], rng: random.Random) -> str:
    return rng.choices(tuple(weights), tuple(weights.values()))[0]


def _chance(probability: float, flag: bool) -> float:
    return probability if flag else 1.0 - probability


def _condition_sql(question: Question, second: bool, spelling: int) -> str:
    column, value = question.condition_column, question.value
    if question.condition == "compare":
        operator = OPERATORS[question.condition_phrase][second]
        return (f"{column} {operator} {value}", f"{value} {MIRRORED[operator]} {column}")[spelling]
    return (f"{column} = {value}", f"{value} = {column}")[spelling]


def _target_sql(question: Question, second: bool, spelling: int) -> tuple[str, str]:
    """The selected expression and what follows the condition (the ranked target with ties is written elsewhere)."""
    column = question.column
    if question.target == "list":
        grouped = ("", f"GROUP BY {column}")
        return (("DISTINCT " + column, column)[spelling], grouped[spelling]) if second else (column, "")
    if question.target == "count_values":
        return f"COUNT( DISTINCT {column} )" if second else f"COUNT( {column} )", ""
    if question.target == "average":
        as_zero = (f"SUM( {column} ) * 1.0 / COUNT(*)", f"TOTAL( {column} ) / COUNT(*)")
        left_out = (f"AVG( {column} )", f"TOTAL( {column} ) / COUNT( {column} )")
        return (as_zero if second else left_out)[spelling], ""
    order = "DESC" if question.target_phrase == "highest" else "ASC"
    return question.table.label, f"ORDER BY {column} {order} LIMIT 1"


def _write_ties(question: Question, form: str, condition: str) -> str:
    """The ranked target with ties: every row that reaches the extreme value."""
    table, label, column = question.table.name, question.table.label, question.column
    extreme = "MAX(" if question.target_phrase == "highest" else "MIN("
    if form == "with":
        rows = f"WITH t AS ( SELECT * FROM {table} WHERE {condition} )"
        return f"{rows} SELECT {label} FROM t WHERE {column} = ( SELECT {extreme} {column} ) FROM t )"
    inner = f"( SELECT {extreme} {column} ) FROM {table} WHERE {condition} )"
    return f"SELECT {label} FROM {table} WHERE {condition} AND {column} = {inner}"


def _write(question: Question, reading: Reading, form: str, target_spelling: int, condition_spelling: int) -> str:
    condition = _condition_sql(question, reading.condition, condition_spelling)
    if question.target == "top" and reading.target:
        return _write_ties(question, form, condition)
    table = question.table.name
    asked, tail = _target_sql(question, reading.target, target_spelling)
    query = {
        "plain": f"SELECT {asked} FROM {table} WHERE {condition} {tail}",
        "nested": f"SELECT {asked} FROM ( SELECT * FROM {table} WHERE {condition} ) {tail}",
        "with": f"WITH t AS ( SELECT * FROM {table} WHERE {condition} ) SELECT {asked} FROM t {tail}",
        "member": f"SELECT {asked} FROM {table} WHERE id IN ( SELECT id FROM {table} WHERE {condition} ) {tail}",
    }[form]
    return query.strip()
