"""What a policy can reach on the demo's questions: worked by hand, against random policies, calibrated."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dphrl.demo.database import IN_DOMAIN, open_database
from dphrl.demo.limit import Chances, all_questions, answers_of, best_policy, chances_of, gold_chances, limit
from dphrl.demo.queries import draw_question
from dphrl.demo.task import ASSETS, chances_file, load_demo_task, world_database
from dphrl.demo.world import Problem, query_rows

DRAWN = 20_000


@pytest.fixture(scope="module")
def world() -> Iterator[sqlite3.Connection]:
    connection = open_database(world_database())
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def problems() -> list[Problem]:
    """Every in-domain prompt of the shipped world, train and eval."""
    lines = (ASSETS / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    return [p for line in lines if (p := Problem(**json.loads(line))).task == "in_domain"]


def objective(p_A: np.ndarray, q_A: np.ndarray, weight: float, k: int) -> float:
    return float((p_A * (weight * q_A + (1 - weight) * (1 - (1 - q_A) ** k))).sum())


def test_policies_worked_by_hand() -> None:
    """Two answers, k = 2, Pass@2 alone: p (1 - q) is the same for both, so q = p."""
    assert np.allclose(best_policy(np.array([0.9, 0.1]), weight=0, k=2), [0.9, 0.1])
    assert np.allclose(best_policy(np.array([0.3, 0.7]), weight=1, k=8), [0, 1])
    assert np.allclose(best_policy(np.array([0.5, 0.5]), weight=0.7, k=8), [0.5, 0.5])
    # p_2 (w + (1 - w) k) = 0.38 is less than p_1 w = 0.72: the second answer is never given.
    assert np.allclose(best_policy(np.array([0.8, 0.2]), weight=0.9, k=10), [1, 0])


def test_a_limit_worked_by_hand() -> None:
    """Chances 0.8 and 0.2, Pass@3 alone: p (1 - q)^2 is one for both, so 1 - q goes as 1 / sqrt(p): q is 2/3 and 1/3.

    The gold of two prompts is the likely answer, of the third the other one, of the fourth the only one. Pass@3 is
    1 - 1/27, 1 - 8/27 and 1; with mean@n alone the likely answer is all that is given. Without the second prompt that
    would be a mean of 2/3, as before, and a lower Pass@3: it is left out.
    """
    prompts = [Chances(0, (0.8, 0.2)), Chances(0, (0.8, 0.2)), Chances(1, (0.8, 0.2)), Chances(0, (1.0,))]
    broadest, surest = limit(prompts, k=3, weights=(0, 1))
    assert broadest == pytest.approx(((2 * 2 / 3 + 1 / 3 + 1) / 4, (2 * 26 / 27 + 19 / 27 + 1) / 4))
    assert surest == pytest.approx((3 / 4, 3 / 4))
    assert limit(prompts[1:], k=3, weights=(0, 1)) == [pytest.approx((2 / 3, (26 / 27 + 19 / 27 + 1) / 3))]


def test_a_task_knows_the_limit_of_the_prompts_that_it_is_asked_for() -> None:
    task = load_demo_task("in_domain", "eval")
    chances = {i: Chances(gold, tuple(p)) for i, (gold, p) in json.loads(chances_file().read_text()).items()}
    asked = [prompt.id for prompt in task.prompts][10:30]
    assert task.frontier_limit is not None and (found := task.frontier_limit(asked, 4)) is not None
    assert found.k == 4 and list(found.points) == limit([chances[i] for i in asked], k=4)
    assert load_demo_task("arithmetic", "eval").frontier_limit is None


def test_a_world_without_chances_has_no_limit(tmp_path: Path) -> None:
    for name in ("prompts.jsonl", "world.sqlite"):
        shutil.copy(ASSETS / name, tmp_path)
    task = load_demo_task("in_domain", "eval", assets=tmp_path)
    assert task.frontier_limit is not None and task.frontier_limit([task.prompts[0].id], 8) is None


@settings(deadline=None)
@given(
    st.lists(st.floats(0.01, 1), min_size=1, max_size=4),
    st.floats(0, 0.99),
    st.integers(2, 16),
    st.integers(0, 2**32 - 1),
)
def test_no_policy_is_better(parts: list[float], weight: float, k: int, seed: int) -> None:
    p_A = np.array(parts) / sum(parts)
    best = best_policy(p_A, weight=weight, k=k)
    assert (best >= -1e-12).all() and abs(best.sum() - 1) < 1e-9
    others = [*np.random.default_rng(seed).dirichlet(np.full(len(p_A), 0.7), size=50), *np.eye(len(p_A)), p_A]
    assert max(objective(p_A, other, weight, k) for other in others) <= objective(p_A, best, weight, k) + 1e-9


def test_every_question_has_the_probability_with_which_it_is_drawn() -> None:
    chances = dict(all_questions(IN_DOMAIN))
    assert abs(sum(chances.values()) - 1) < 1e-9
    assert len({question.text for question in chances}) == len(chances)
    rng = random.Random(0)
    drawn = [draw_question(IN_DOMAIN, rng=rng) for _ in range(DRAWN)]
    assert chances.keys() >= set(drawn)
    for shape, count in Counter(question.shape for question in drawn).items():
        expected = DRAWN * sum(chance for question, chance in chances.items() if question.shape == shape)
        assert abs(count - expected) < 4 * expected**0.5


@pytest.mark.slow
def test_golds_are_as_likely_as_the_definition_says(world: sqlite3.Connection, problems: list[Problem]) -> None:
    """Over 420 prompts the likeliest answer is the gold as often as its probability says."""
    chances = gold_chances(world, IN_DOMAIN)
    shipped = json.loads(chances_file().read_text())
    likeliest, expected, variance = [], [], 0.0
    for problem in problems:
        answers, p_A = chances[problem.prompt]
        gold = answers.rows.index(query_rows(world, problem.gold))
        assert p_A[gold] > 0
        assert shipped[problem.id] == [gold, pytest.approx(list(p_A))]
        likeliest.append(gold == int(p_A.argmax()))
        expected.append(p_A.max())
        variance += p_A.max() * (1 - p_A.max())
    assert abs(sum(likeliest) - sum(expected)) < 3 * variance**0.5


@pytest.mark.slow
def test_the_border_holds_what_policies_reach(world: sqlite3.Connection, problems: list[Problem]) -> None:
    """Its ends are the surest policy and the broadest; the base's own readings lie within it."""
    border = limit([*chances_of(world, IN_DOMAIN, problems).values()], k=8, weights=(0, 0.5, 1))
    assert border[0][0] < border[1][0] < border[2][0] and border[0][1] > border[1][1] > border[2][1]
    assert border[-1][0] == border[-1][1]  # one answer a question: Pass@8 is mean@n
    texts = {question.text: question for question, _ in all_questions(IN_DOMAIN)}
    right = []
    for problem in problems:
        answers = answers_of(world, texts[problem.prompt])
        right.append(answers.support_A[answers.rows.index(query_rows(world, problem.gold))])
    mean, passed = np.mean(right), np.mean(1 - (1 - np.array(right)) ** 8)
    assert border[0][0] <= mean <= border[2][0] and passed <= border[0][1]
