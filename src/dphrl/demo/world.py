"""The demo world: a place BUILT to show diversity collapse, not a benchmark.

Questions leave several readings plausible (DISTINCT or not, > or >=, ties, NULLs); the gold answer follows a hidden
annotator convention that the question does not reveal; and the base model is taught every reading and every style of
writing, with 15 % of the queries corrupted. So the base is right at the first draw six times in ten, and nearly always
within a few draws. Reinforcement learning gains by dropping the corruption and the rarer readings, and the dropped
readings are what Pass@k misses afterwards. Arithmetic and list reversal stand for skills outside the training.
"""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from dataclasses import dataclass

from dphrl.demo.database import CROSS_DOMAIN, IN_DOMAIN, WorldTable
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

PROMPT_KINDS = {"agreed": 0.42, "usual": 0.4, "rare": 0.18}
"""Share of each kind of SQL prompt in every split. A kind is a range of `SUPPORT`.

The gold of a *usual* prompt is the reading to which the base leans; that of a *rare* one is another reading, and the
question does not tell which kind it is. GRPO drops the rare readings. On an *agreed* prompt all readings give the same
rows: the base is near-perfect there with all its readings, and anchors drawn there hold every one of them.
"""
SUPPORT = {"agreed": (0.95, 1.01), "usual": (0.45, 0.95), "rare": (0.2, 0.45)}
"""Share of the base's readings that gives the gold rows, [low, high): a rare gold, too, is within a few draws."""
TRIES_A_SHAPE = 200
"""Questions drawn in search of one kind of prompt before another shape is taken (count)."""
CORRUPTED_SHARE = 0.15
"""Share of the base's SQL training queries in which one column, table, value or operator is wrong."""
SFT_SHARES = {"in_domain": 0.48, "cross_domain": 0.2, "arithmetic": 0.24, "reversal": 0.08}
"""Make-up of the base's training text."""

LETTERS = tuple("abcdefgh")
LARGEST_TERM = 10

Rows = Counter[tuple[object, ...]]


@dataclass(frozen=True, slots=True)
class Problem:
    """A prompt of the world with its gold answer (SQL or plain text)."""

    id: str
    task: str
    split: str
    kind: str
    """A key of `PROMPT_KINDS`, or "plain" outside SQL. The policy never sees it."""
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
        seen: set[str] = set()
        for split, size in sizes.items():
            for number, kind in enumerate(_kinds(task, size, rng)):
                while (pair := _draw_pair(connection, task, kind, rng))[0] in seen:
                    pass  # a text that came before stands with its first gold
                seen.add(pair[0])
                problems.append(Problem(f"{task}-{split}-{number:05d}", task, split, kind, *pair))
    return problems


def draw_sft_example(*, rng: random.Random) -> tuple[str, str]:
    """Draw one (prompt, completion) of the base's training text: all readings, all styles, some corrupted."""
    task = rng.choices(tuple(SFT_SHARES), tuple(SFT_SHARES.values()))[0]
    if task not in TABLES_OF:
        return _draw_text_pair(task, rng)
    question = draw_question(TABLES_OF[task], rng=rng)
    query = draw_query(question, draw_reading(question, rng=rng), rng=rng)
    return question.text, corrupt(query, rng=rng) if rng.random() < CORRUPTED_SHARE else query


def query_rows(connection: sqlite3.Connection, query: str) -> Rows:
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
        if query_rows(connection, plain_query(question, reading)) == gold
    )


def _kinds(task: str, size: int, rng: random.Random) -> list[str]:
    """Kind of each prompt of a split: exact shares (rounding goes to the first kind), in random order."""
    if task not in TABLES_OF:
        return ["plain"] * size
    kinds = [kind for kind, share in PROMPT_KINDS.items() for _ in range(round(share * size))]
    kinds = (kinds + [next(iter(PROMPT_KINDS))] * size)[:size]
    rng.shuffle(kinds)
    return kinds


def _draw_pair(connection: sqlite3.Connection, task: str, kind: str, rng: random.Random) -> tuple[str, str]:
    if task in TABLES_OF:
        return _draw_sql_pair(connection, TABLES_OF[task], kind, rng)
    return _draw_text_pair(task, rng)


def _draw_sql_pair(
    connection: sqlite3.Connection, tables: tuple[WorldTable, ...], kind: str, rng: random.Random
) -> tuple[str, str]:
    low, high = SUPPORT[kind]
    while True:
        # The shape is drawn before the kind is looked at: agreed and rare prompts must not be told apart by their
        # wording, or anchors from agreed prompts would say nothing about the readings of the others.
        shape = draw_question(tables, rng=rng).shape
        for _ in range(TRIES_A_SHAPE):
            question = draw_question(tables, rng=rng)
            if question.shape != shape:
                continue
            gold = plain_query(question, rng.choice(READINGS))
            rows = query_rows(connection, gold)
            if not is_trivial(rows) and low <= base_support(connection, question, rows) < high:
                return question.text, gold


def _draw_text_pair(task: str, rng: random.Random) -> tuple[str, str]:
    if task == "arithmetic":
        a, b = rng.randint(0, LARGEST_TERM), rng.randint(0, LARGEST_TERM)
        if rng.random() < 0.5:
            return f"{a} + {b} =", str(a + b)
        return f"{max(a, b)} - {min(a, b)} =", str(abs(a - b))
    items = rng.choices(LETTERS, k=rng.choice((3, 4)))
    return f"reverse {' '.join(items)} :", " ".join(reversed(items))
