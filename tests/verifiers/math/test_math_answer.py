"""What majority voting compares."""

from __future__ import annotations

import pytest

from dphrl.config.sources import TaskConfig
from dphrl.tasks.ready import resolved
from dphrl.verifiers.exact import exact_answer
from dphrl.verifiers.math.verify_math import math_answer
from dphrl.verifiers.registry import verifier_of


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("so \\boxed{1,200}", "The answer is 1200."),
        ("\\boxed{\\frac{1}{2}}", "#### 0.5"),
        ("\\boxed{12\\text{ cm}}", "\\boxed{12}"),
        ("\\boxed{x + 1}", "\\boxed{x+1}"),
        ("\\boxed{\\text{Monday}}", "\\boxed{\\text{monday}}"),
    ],
)
def test_answers_written_otherwise_are_one(one: str, other: str) -> None:
    assert math_answer(one) == math_answer(other) is not None


@pytest.mark.parametrize(("one", "other"), [("\\boxed{12}", "\\boxed{13}"), ("\\boxed{5}", "\\boxed{5\\%}")])
def test_different_answers_are_two(one: str, other: str) -> None:
    assert math_answer(one) != math_answer(other)


def test_no_answer_is_none_and_a_long_one_is_itself() -> None:
    assert math_answer("I do not know") is None and exact_answer(" \n") is None
    long = "x" * 3000
    assert math_answer(f"\\boxed{{{long}}}") == long


@pytest.mark.parametrize(
    ("cfg", "answer"),
    [
        (TaskConfig(name="gsm8k"), math_answer),
        (TaskConfig(data="x.jsonl", verifier="exact"), exact_answer),
        (TaskConfig(data="demo:reversal"), exact_answer),
        (TaskConfig(data="demo:in_domain"), None),
        (TaskConfig(name="spider", data="x"), None),
        (TaskConfig(data="x.jsonl", verifier="json:loads"), None),
    ],
)
def test_the_task_decides(cfg: TaskConfig, answer: object) -> None:
    assert verifier_of(resolved(cfg).verifier).answer is answer
