"""The best mean@n and Pass@k that any policy can have on the demo's questions, from the world's own definition.

A question has up to four readings; readings that give the same rows are one *answer*. The gold reading was drawn evenly
and kept by kind (`world.py`), which the question does not tell. So a policy that writes no wrong query can choose no
more than how often it gives each answer, q. Given the question, answer a is the gold with a probability p_a that
follows from the definition. Expected mean@n is then sum p_a q_a, expected Pass@k is sum p_a (1 - (1 - q_a)^k), and the
policies that weigh both are the border of what is possible.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from dphrl.demo.database import HIGHEST, LOWEST, WorldTable
from dphrl.demo.queries import (
    CONDITION_PHRASES,
    CONDITION_WEIGHTS,
    READINGS,
    TARGET_PHRASES,
    TARGET_WEIGHTS,
    Question,
    base_probability,
    plain_query,
)
from dphrl.demo.world import PROMPT_KINDS, SUPPORT, TRIES_A_SHAPE, Problem, Rows, is_trivial, query_rows

PLACES = 12
"""Decimal places of a chance: what differs by less is as likely."""
HALVINGS = 60
"""Of the interval in which a multiplier is sought: its width ends below 1e-16."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What a question can be answered with: readings that give the same rows are one answer."""

    rows: tuple[Rows, ...]
    readings_A: NDArray[np.float64]
    """Share of the four readings that means each answer; the shares sum to 1."""
    support_A: NDArray[np.float64]
    """Probability of each answer in the base's training text, before corruption; they sum to 1."""

    def kind(self, answer: int) -> str | None:
        """Kind of the prompt whose gold is this answer; None = the world has no such prompt."""
        if is_trivial(self.rows[answer]):
            return None
        found = (kind for kind, (low, high) in SUPPORT.items() if low <= self.support_A[answer] < high)
        return next(found, None)


@dataclass(frozen=True, slots=True)
class Chances:
    """How likely each answer to a prompt's question is the gold of a prompt that asks it."""

    gold: int
    """Place of this prompt's own among them."""
    answers: tuple[float, ...]
    """Their probabilities, which sum to 1."""


def answers_of(connection: sqlite3.Connection, question: Question) -> Answers:
    """Group the readings of a question by the rows that they give."""
    rows: list[Rows] = []
    readings: list[float] = []
    support: list[float] = []
    for reading in READINGS:
        found = query_rows(connection, plain_query(question, reading))
        if found not in rows:
            rows.append(found)
            readings.append(0.0)
            support.append(0.0)
        readings[rows.index(found)] += 1 / len(READINGS)
        support[rows.index(found)] += base_probability(question, reading)
    return Answers(tuple(rows), np.array(readings), np.array(support))


def all_questions(tables: Sequence[WorldTable]) -> Iterator[tuple[Question, float]]:
    """Every question about `tables` with its probability in `draw_question`; the probabilities sum to 1."""
    for table, target in itertools.product(tables, TARGET_PHRASES):
        conditions = {"is": 1.0} if target == "top" else CONDITION_WEIGHTS
        for condition, weight in conditions.items():
            named = {table.label: 1.0} if condition == "is" else {table.label: 0.75, table.category: 0.25}
            evenly = dict.fromkeys(table.numbers, 1 / len(table.numbers))
            columns = {"list": named, "count_values": named, "top": {table.numbers[0]: 1.0}}.get(target, evenly)
            places = (
                [(column, str(value)) for column in table.numbers for value in range(LOWEST, HIGHEST + 1)]
                if condition == "compare"
                else [(table.category, f"'{value}'") for value in table.categories]
            )
            phrases = list(itertools.product(TARGET_PHRASES[target], CONDITION_PHRASES[condition], places))
            share = TARGET_WEIGHTS[target] * weight / len(tables) / len(phrases)
            for (phrase, condition_phrase, place), (column, part) in itertools.product(phrases, columns.items()):
                yield Question(table, target, phrase, column, condition, condition_phrase, *place), share * part


def gold_chances(
    connection: sqlite3.Connection, tables: Sequence[WorldTable]
) -> dict[str, tuple[Answers, NDArray[np.float64]]]:
    """Text of every question -> its answers and how likely each is the gold of a prompt that asks it.

    Questions that the world never asks are left out. How prompts were drawn (`world.make_problems`): a kind by its
    share, a shape, then questions and readings until one is of that kind.
    """
    asked = [(question, chance, answers_of(connection, question)) for question, chance in all_questions(tables)]
    accepted: dict[tuple[object, str], float] = {}
    shapes: dict[object, float] = {}
    for question, chance, answers in asked:
        shapes[question.shape] = shapes.get(question.shape, 0.0) + chance
        for answer, share in enumerate(answers.readings_A):
            if kind := answers.kind(answer):
                key = (question.shape, kind)
                accepted[key] = accepted.get(key, 0.0) + chance * float(share)
    found = {}
    for question, _, answers in asked:
        p_A = np.zeros(len(answers.rows))
        for answer, share in enumerate(answers.readings_A):
            if kind := answers.kind(answer):
                p_A[answer] = share * PROMPT_KINDS[kind] * _shape_weight(question.shape, kind, shapes, accepted)
        if p_A.sum() > 0:
            found[question.text] = (answers, p_A / p_A.sum())
    return found


def _shape_weight(
    shape: object, kind: str, shapes: Mapping[object, float], accepted: Mapping[tuple[object, str], float]
) -> float:
    """P(shape | kind) / P(a draw of the shape is of the kind): a shape is given up after TRIES_A_SHAPE questions, of
    which those of other shapes are skipped."""
    reached = {s: p * (1 - (1 - accepted.get((s, kind), 0.0)) ** TRIES_A_SHAPE) for s, p in shapes.items()}
    return reached[shape] / sum(reached.values()) / accepted[shape, kind]


def chances_of(
    connection: sqlite3.Connection, tables: Sequence[WorldTable], problems: Sequence[Problem]
) -> dict[str, Chances]:
    """Id of each SQL prompt about `tables` -> how likely its answers are. It asks all questions: some seconds.

    Args:
        connection: the world's database.
        tables: of the task.
        problems: of the task.
    """
    by_text, found = gold_chances(connection, tables), {}
    for problem in problems:
        answers, p_A = by_text[problem.prompt]
        gold = answers.rows.index(query_rows(connection, problem.gold))
        found[problem.id] = Chances(gold, tuple(round(float(p), PLACES) for p in p_A))
    return found


def best_policy(p_XA: Float[np.ndarray, "*X A"], *, weight: float, k: int) -> Float[np.ndarray, "*X A"]:
    """Probabilities q of the answers that maximise weight * mean + (1 - weight) * Pass@k, both expected over p.

    Args:
        p_XA: probability that each answer is the gold; 0 where a question has fewer answers than others.
        weight: of mean@n, in [0, 1].
        k: draws of Pass@k, >= 2.
    Returns:
        q, on the simplex. At weight 1 all lies on the likeliest answer.

    The objective is concave: every answer that is given has the same slope p (weight + (1 - weight) k (1 - q)^(k - 1)).
    """
    likeliest_XA = np.arange(p_XA.shape[-1]) == p_XA.argmax(axis=-1, keepdims=True)
    if weight >= 1:
        return np.asarray(likeliest_XA, dtype=np.float64)
    high_X1 = p_XA.max(axis=-1, keepdims=True) * (weight + (1 - weight) * k)
    low_X1 = np.zeros_like(high_X1)
    for _ in range(HALVINGS):
        middle_X1 = (low_X1 + high_X1) / 2
        too_much_X1 = _given(p_XA, middle_X1, weight, k).sum(axis=-1, keepdims=True) > 1
        low_X1, high_X1 = np.where(too_much_X1, middle_X1, low_X1), np.where(too_much_X1, high_X1, middle_X1)
    q_XA = _given(p_XA, high_X1, weight, k)
    # Where the slope is flat (weight alone is left), what is missing goes to the likeliest answer.
    return np.asarray(q_XA + likeliest_XA * (1 - q_XA.sum(axis=-1, keepdims=True)))


def _given(p_XA: NDArray[np.float64], slope_X1: NDArray[np.float64], weight: float, k: int) -> NDArray[np.float64]:
    """q at which each answer's slope is `slope_X1`, within [0, 1]."""
    rest_XA = np.where(p_XA > 0, (slope_X1 / np.where(p_XA > 0, p_XA, 1) - weight) / ((1 - weight) * k), np.inf)
    return np.asarray(1 - np.clip(rest_XA, 0, 1) ** (1 / (k - 1)))


def limit(
    chances: Sequence[Chances], *, k: int, weights: Sequence[float] = tuple(np.linspace(0, 1, 21))
) -> list[tuple[float, float]]:
    """(mean@n, Pass@k) of the best policies on these prompts, in [0, 1]: from the highest Pass@k to the highest mean,
    without pairs that another one is not below in either.

    The policies know the world's definition and no prompt's gold; what they reach is counted at the golds, as for a
    trained model. n may be any number: both are expectations.

    Args:
        chances: of the prompts, one or more.
        k: draws of Pass@k, >= 2.
        weights: of mean@n against Pass@k, one policy each.
    """
    most = max(len(each.answers) for each in chances)
    p_PA = np.array([each.answers + (0.0,) * (most - len(each.answers)) for each in chances])
    golds_P1 = np.array([[each.gold] for each in chances])
    points = []
    for weight in weights:
        right_P = np.take_along_axis(best_policy(p_PA, weight=weight, k=k), golds_P1, axis=-1)
        points.append((float(right_P.mean()), float((1 - (1 - right_P) ** k).mean())))
    return [p for p in points if not any(q != p and q[0] >= p[0] and q[1] >= p[1] for q in points)]
