"""Questions of the demo world, their readings, and the many ways to write one reading as SQL.

A question = a target (what is asked for) and a condition (of which rows). Each has at most one ambiguity, so a
question has up to four readings: DISTINCT or not, ties or LIMIT 1, NULL as zero or left out, > or >=, and so on.
Every reading can be written in several styles: plain, nested, WITH, id IN, and two spellings of each part.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from dataclasses import dataclass

from dphrl.demo.database import HIGHEST, LOWEST, TABLES, Table


@dataclass(frozen=True, slots=True)
class Mix:
    """How often a phrase is meant in its second reading (probabilities): in the base's training text, and by the gold."""

    base: float
    gold: float


# The base hears both readings of every phrase and leans a little; the annotator leans the same way more often, but by
# no means always, and no question reveals which reading its gold has. The annotator's rarer reading is what GRPO drops.
FIRST = Mix(base=0.35, gold=0.3)
SECOND = Mix(base=0.65, gold=0.7)
PLAIN = Mix(base=0.0, gold=0.0)

TARGET_PHRASES: Mapping[str, Mapping[str, Mix]] = {
    "list": {"list": FIRST, "which": FIRST},
    "count_rows": {"how many": PLAIN},
    "count_values": {"count": SECOND, "how many": SECOND},
    "average": {"average": FIRST, "mean": FIRST},
    "top": {"most": FIRST, "highest": FIRST, "least": FIRST, "lowest": FIRST},
    "groups": {"per": SECOND, "by": SECOND},
}
CONDITION_PHRASES: Mapping[str, Mapping[str, Mix]] = {
    "compare": {"over": FIRST, "from": SECOND, "under": FIRST, "until": SECOND},
    "between": {"between": FIRST, "inside": FIRST},
    "is": {"in": PLAIN},
    "is_not": {"not in": FIRST, "outside": FIRST},
}
OPERATORS = {"over": (">", ">="), "from": (">", ">="), "under": ("<", "<="), "until": ("<", "<=")}
MIRRORED = {">": "<", ">=": "<=", "<": ">", "<=": ">="}
TARGET_WEIGHTS = {"list": 0.34, "count_rows": 0.12, "count_values": 0.16, "average": 0.14, "top": 0.12, "groups": 0.12}
CONDITION_WEIGHTS = {"compare": 0.5, "between": 0.2, "is": 0.12, "is_not": 0.18}
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

    table: Table
    target: str
    target_phrase: str
    column: str
    """What the target names: the listed or counted column, or the number that is averaged or ranked."""
    condition: str
    condition_phrase: str
    condition_column: str
    values: tuple[str, ...]

    @property
    def mixes(self) -> tuple[Mix, Mix]:
        """Mix of the target phrase and of the condition phrase."""
        return (
            TARGET_PHRASES[self.target][self.target_phrase],
            CONDITION_PHRASES[self.condition][self.condition_phrase],
        )

    @property
    def text(self) -> str:
        """The question as the policy sees it; ends with '?'."""
        table, column, phrase = self.table.name, self.column, self.target_phrase
        asked = {
            "list": f"{phrase} {column} of {table}",
            "count_rows": f"{phrase} {table}",
            "count_values": f"{phrase} {column} of {table}",
            "average": f"{phrase} {column} of {table}",
            "top": f"{self.table.label} of {table} with {phrase} {column}",
            "groups": f"size of {table} {phrase} {column}",
        }[self.target]
        where = f"with {self.condition_column}" if self.condition in ("compare", "between") else ""
        return " ".join(f"{asked} {where} {self.condition_phrase} {' '.join(self.values)} ?".split())


def draw_question(tables: tuple[Table, ...], *, rng: random.Random) -> Question:
    """Draw a question about one of `tables`."""
    table = rng.choice(tables)
    target = _pick(TARGET_WEIGHTS, rng)
    # A ranked target already takes a long query; with a short condition every writing stays within 32 tokens.
    condition = "is" if target == "top" else _pick(CONDITION_WEIGHTS, rng)
    columns = {
        "list": (table.label, table.category),
        "count_rows": ("id",),
        "count_values": (table.label, table.category),
        "groups": (table.category,),
        "top": table.numbers[:1],  # no NULLs: SQLite would rank them lowest
    }.get(target, table.numbers)
    if condition in ("compare", "between"):
        condition_column = rng.choice(table.numbers)
        drawn = sorted(rng.sample(range(LOWEST, HIGHEST + 1), 2 if condition == "between" else 1))
        values = tuple(str(value) for value in drawn)
    else:
        condition_column, values = table.category, (f"'{rng.choice(table.categories)}'",)
    return Question(
        table=table,
        target=target,
        target_phrase=rng.choice(tuple(TARGET_PHRASES[target])),
        column=rng.choice(columns),
        condition=condition,
        condition_phrase=rng.choice(tuple(CONDITION_PHRASES[condition])),
        condition_column=condition_column,
        values=values,
    )


def base_probability(question: Question, reading: Reading) -> float:
    """Share of `reading` among the queries that the base's training text gives to `question`."""
    target, condition = question.mixes
    return _chance(target.base, reading.target) * _chance(condition.base, reading.condition)


def draw_reading(question: Question, source: str, *, rng: random.Random) -> Reading:
    """Draw a reading as the base's training text (`source="base"`) or the hidden annotator ("gold") would."""
    target, condition = ((mix.base, mix.gold)[source == "gold"] for mix in question.mixes)
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
    column, values = question.condition_column, question.values
    if question.condition == "compare":
        operator = OPERATORS[question.condition_phrase][second]
        return (f"{column} {operator} {values[0]}", f"{values[0]} {MIRRORED[operator]} {column}")[spelling]
    if question.condition == "between":
        low, high = values
        if second:
            return (f"{column} > {low} AND {column} < {high}", f"{low} < {column} AND {column} < {high}")[spelling]
        return (f"{column} BETWEEN {low} AND {high}", f"{column} >= {low} AND {column} <= {high}")[spelling]
    if question.condition == "is":
        return (f"{column} = {values[0]}", f"{values[0]} = {column}")[spelling]
    if second:
        return (f"{column} IS NOT {values[0]}", f"( {column} != {values[0]} OR {column} IS NULL )")[spelling]
    return (f"{column} != {values[0]}", f"{column} <> {values[0]}")[spelling]


def _target_sql(question: Question, second: bool, spelling: int) -> tuple[str, str]:
    """The selected expression and what follows the condition (the ranked target with ties is written elsewhere)."""
    column = question.column
    if question.target == "list":
        grouped = ("", f"GROUP BY {column}")
        return (("DISTINCT " + column, column)[spelling], grouped[spelling]) if second else (column, "")
    if question.target == "count_rows":
        return ("COUNT(*)", "COUNT( id )")[spelling], ""
    if question.target == "count_values":
        return f"COUNT( DISTINCT {column} )" if second else f"COUNT( {column} )", ""
    if question.target == "average":
        as_zero = (f"SUM( {column} ) * 1.0 / COUNT(*)", f"TOTAL( {column} ) / COUNT(*)")
        left_out = (f"AVG( {column} )", f"TOTAL( {column} ) / COUNT( {column} )")
        return (as_zero if second else left_out)[spelling], ""
    if question.target == "groups":
        kept = f" HAVING {column} IS NOT NULL" if second else ""
        return f"{column} , COUNT(*)", f"GROUP BY {column}{kept}"
    order = "DESC" if question.target_phrase in ("most", "highest") else "ASC"
    return question.table.label, f"ORDER BY {column} {order} LIMIT 1"


def _write_ties(question: Question, form: str, condition: str) -> str:
    """The ranked target with ties: every row that reaches the extreme value."""
    table, label, column = question.table.name, question.table.label, question.column
    extreme = "MAX(" if question.target_phrase in ("most", "highest") else "MIN("
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
