"""The demo world: a place BUILT to show diversity collapse, not a benchmark.

Questions leave several readings plausible (DISTINCT or not, > or >=, ties, NULLs); the gold answer follows a hidden
annotator convention that the question does not fully reveal; and the base model is taught every reading and every
style of writing, with a quarter of the queries corrupted. So the base rarely answers right at the first draw and
nearly always within a few; reinforcement learning gains by dropping the corruption and the rarer readings, and the
dropped readings are what Pass@k misses afterwards. Arithmetic and list reversal stand for skills outside the training.
"""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from dphrl.demo.database import CROSS_DOMAIN, IN_DOMAIN, Table
from dphrl.demo.queries import (
    READINGS,
    Question,
    base_probability,
    corrupt,
    draw_query,
    draw_question,
    draw_reading,
    plain_query,
)

SPLIT_SIZES = {
    "in_domain": {"train": 320, "eval": 100},
    "cross_domain": {"train": 120, "eval": 50},
    "arithmetic": {"train": 120, "eval": 40},
    "reversal": {"train": 120, "eval": 40},
}
"""Prompts of each task and split (count)."""
TABLES_OF = {"in_domain": IN_DOMAIN, "cross_domain": CROSS_DOMAIN}

CONTESTED_SHARE = 0.6
"""Share of SQL prompts on which readings disagree; on the others they give the same rows, so every reading is right.

The second kind is where the base is near-perfect *with all its readings*: anchors come from there.
"""
AGREED = 0.95
"""Share of the base's readings (by probability) that must give the gold rows for a prompt to count as agreed."""
REACHABLE = 0.34
"""A contested prompt is kept only if at least this share of the base's readings gives the gold rows."""
CORRUPTED_SHARE = 0.25
"""Share of the base's SQL training queries in which one column, table, value or operator is wrong."""
SFT_SHARES = {"in_domain": 0.5, "cross_domain": 0.2, "arithmetic": 0.2, "reversal": 0.1}
"""Make-up of the base's training text."""

LETTERS = tuple("abcdefgh")
LARGEST_TERM = 12

Rows = Counter[tuple[object, ...]]


@dataclass(frozen=True, slots=True)
class Problem:
    """A prompt of the world with its gold answer (SQL or plain text)."""

    id: str
    task: str
    split: str
    prompt: str
    gold: str


def make_problems(connection: sqlite3.Connection, *, rng: random.Random) -> list[Problem]:
    """Draw every task's train and eval prompts; no prompt text occurs twice.

    Args:
        connection: the world's database, on which readings are compared.
        rng: the only source of randomness.
    """
    problems = []
    for task, sizes in SPLIT_SIZES.items():
        drawn = _distinct(_sql_pairs(connection, TABLES_OF[task], rng) if task in TABLES_OF else _text_pairs(task, rng))
        for split, size in sizes.items():
            for number in range(size):
                prompt, gold = next(drawn)
                problems.append(Problem(f"{task}-{split}-{number:05d}", task, split, prompt, gold))
    return problems


def draw_sft_example(*, rng: random.Random) -> tuple[str, str]:
    """Draw one (prompt, completion) of the base's training text: all readings, all styles, a quarter corrupted."""
    task = rng.choices(tuple(SFT_SHARES), tuple(SFT_SHARES.values()))[0]
    if task not in TABLES_OF:
        return _draw_text_pair(task, rng)
    question = draw_question(TABLES_OF[task], rng=rng)
    query = draw_query(question, draw_reading(question, "base", rng=rng), rng=rng)
    return question.text, corrupt(query, rng=rng) if rng.random() < CORRUPTED_SHARE else query


def run_query(connection: sqlite3.Connection, query: str) -> Rows:
    """Rows of one of the world's own queries, as a multiset."""
    return Counter(connection.execute(query).fetchall())


def is_trivial(rows: Rows) -> bool:
    """Whether a result says nothing: no row, or only zeros and NULLs."""
    return not any(value for row in rows for value in row)


def base_support(connection: sqlite3.Connection, question: Question, gold: Rows) -> float:
    """Share of the base's readings (by probability, before corruption) that give the gold rows, in [0, 1]."""
    return sum(
        base_probability(question, reading)
        for reading in READINGS
        if run_query(connection, plain_query(question, reading)) == gold
    )


def _sql_pairs(
    connection: sqlite3.Connection, tables: tuple[Table, ...], rng: random.Random
) -> Iterator[tuple[str, str]]:
    while True:
        contested = rng.random() < CONTESTED_SHARE
        while True:
            question = draw_question(tables, rng=rng)
            gold = plain_query(question, draw_reading(question, "gold", rng=rng))
            rows = run_query(connection, gold)
            support = base_support(connection, question, rows)
            if not is_trivial(rows) and (REACHABLE <= support < AGREED if contested else support >= AGREED):
                yield question.text, gold
                break


def _text_pairs(task: str, rng: random.Random) -> Iterator[tuple[str, str]]:
    while True:
        yield _draw_text_pair(task, rng)


def _draw_text_pair(task: str, rng: random.Random) -> tuple[str, str]:
    if task == "arithmetic":
        a, b = rng.randint(1, LARGEST_TERM), rng.randint(1, LARGEST_TERM)
        if rng.random() < 0.5:
            return f"{a} + {b} =", str(a + b)
        return f"{max(a, b)} - {min(a, b)} =", str(abs(a - b))
    items = rng.choices(LETTERS, k=rng.choice((3, 4)))
    return f"reverse {' '.join(items)} :", " ".join(reversed(items))


def _distinct(pairs: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Leave out a prompt text that came before (the hidden convention may differ: the first one stands)."""
    seen: set[str] = set()
    for prompt, gold in pairs:
        if prompt not in seen:
            seen.add(prompt)
            yield prompt, gold
