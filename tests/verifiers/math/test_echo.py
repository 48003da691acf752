"""Answers that repeat the question."""

from __future__ import annotations

import pytest

from dphrl.types import Prompt, item_of
from dphrl.verifiers.math.verify_math import verify_math
from dphrl.verifiers.trl_reward import math_reward

ECHOES = [
    ("Simplify $7a+2-3a-9$.", "4a-7", "7a+2-3a-9"),
    ("Simplify $7a + 2 - 3a - 9$.", "4a-7", "7a+2-3a-9"),
    ("Compute (-3)-(-9).", "6", "(-3)-(-9)"),
    (r"What is $\int_0^2 x^2 \,dx$?", r"\frac{8}{3}", r"\int_0^2 x^2 dx"),
    (r"Reduce $\frac{18}{24}$.", r"\frac{3}{4}", r"\dfrac{18}{24}"),
    (r"Simplify $\sqrt{175}$.", r"5\sqrt{7}", r"\sqrt{175}"),
    ("Expand $(x+3)(x-5)$.", "x^2-2x-15", "(x+3)(x-5)"),
    ("Factor $x^2-2x-15$.", "(x+3)(x-5)", "x^2-2x-15"),
]
NO_ECHOES = [
    ("Simplify $7a+2-3a-9$.", "4a-7", "-7+4a"),
    ("Is $4a-7$ or $7-4a$ right?", "4a-7", "4a - 7"),
    ("Which is it, 3/4 or 2/3?", "0.75", "3/4"),
    ("A car goes 48 m/s. How fast is it?", "48", r"48 \text{ m/s}"),
    ("Is it $x+3$?", "3+x", "x+3"),
    ("Reach 17 from 1.", "7", "7.0"),
    ("Give the interval $(-3, 5)$.", "(-3,5)", "(-3, 5)"),
]


def judged(prompt: object, gold: str, answer: str, **options: bool) -> bool:
    item = {"prompt": prompt, "gold": gold, "completion": rf"\boxed{{{answer}}}"}
    return verify_math([item], **options)[0].correct


@pytest.mark.parametrize(("prompt", "gold", "answer"), ECHOES)
def test_the_questions_own_expression_is_no_answer(prompt: str, gold: str, answer: str) -> None:
    assert not judged(prompt, gold, answer)
    assert judged("", gold, gold) and judged(prompt, gold, gold)


@pytest.mark.parametrize(("prompt", "gold", "answer"), ECHOES[:3])
def test_without_the_question_or_the_option_it_is_paid(prompt: str, gold: str, answer: str) -> None:
    assert judged("", gold, answer) and judged(prompt, gold, answer, echo=False)


@pytest.mark.parametrize(("prompt", "gold", "answer"), NO_ECHOES)
def test_what_is_in_the_question_and_asked_for_is_paid(prompt: str, gold: str, answer: str) -> None:
    assert judged(prompt, gold, answer)


def test_messages_of_the_user_are_read() -> None:
    prompt, gold, answer = ECHOES[0]
    messages = ({"role": "system", "content": "Think."}, {"role": "user", "content": prompt})
    assert not judged(messages, gold, answer)
    assert judged([{"role": "assistant", "content": prompt}], gold, answer)
    item = item_of(Prompt("p", messages, {"gold": gold}), rf"\boxed{{{answer}}}")
    assert not verify_math([item])[0].correct


def test_trl_hands_over_its_prompts() -> None:
    prompt, gold, answer = ECHOES[0]
    rows = {"completions": [rf"\boxed{{{answer}}}", rf"\boxed{{{gold}}}"], "gold": [gold] * 2}
    assert math_reward(**rows, prompts=[prompt] * 2) == [0.0, 1.0]
    assert math_reward(**rows) == [1.0, 1.0]
