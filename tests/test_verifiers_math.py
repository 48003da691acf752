"""Verdicts on final answers of mathematics."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest

from dphrl.errors import VerifierError
from dphrl.types import Prompt
from dphrl.verifiers.math import math_verify
from dphrl.verifiers.math_text import clean, extract_answer, extract_gold, last_box, number


def status(gold: object, completion: str, **args: float) -> str:
    return math_verify([Prompt("p", "q", {"gold": gold})], [completion], **args)[0].status


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        (r"so \boxed{\frac{1}{2}}, no, \boxed{x^{2}}.", r"x^{2}"),
        (r"\boxed{1} and \boxed{2", "1"),  # the last one that is closed
        (r"\boxed{\boxed{3}}", r"\boxed{3}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        ("#### 1\n#### 2\nthanks", "2"),
        ("The answer is 18.", "18"),
        ("the answer is: $18", "18"),
        ("The answer is 1,000.", "1,000"),
        ("The answer is 18 dollars.", "18"),
        ("The answer is 1.5 hours per day. Good bye", "1.5"),
        (r"The final answer is \$18.50.", "18.50"),
        ("The answer is **18**.", "18"),
        ("The answer is 3. No, the answer is 4.", "4"),
        ("The answer is $x=3$.", "x=3"),
        ("The answer is 5 or 6", "5 or 6"),
        ("3 + 4 = 7", "7"),  # else the last number
        (r"\boxed{3", "3"),
        ("no idea", ""),
        ("", ""),
    ],
)
def test_extract_answer(completion: str, answer: str) -> None:
    assert extract_answer(completion) == answer


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("She has 3.\n#### 1,800", "1,800"),
        (r"thus $\boxed{4}$", "4"),
        ("$10-4 n$", "10-4 n"),
        (27.0, "27.0"),
        (["5"], "5"),
        (None, ""),
        ("", ""),
        ([], ""),
        (True, ""),
        ("#### ", ""),
    ],
)
def test_extract_gold(gold: object, answer: str) -> None:
    assert extract_gold(gold) == answer


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("18", 18),
        ("-5", -5),
        ("1,234.50", Fraction(2469, 2)),
        ("$1,000", 1000),
        (r"50\%", 50),
        ("1/2", Fraction(1, 2)),
        (r"-\frac{3}{4}", Fraction(-3, 4)),
        (".5", Fraction(1, 2)),
        ("1/0", None),
        ("12,34", None),
        ("x", None),
        ("", None),
    ],
)
def test_number(text: str, value: Fraction | None) -> None:
    assert number(text) == value


@pytest.mark.parametrize(
    ("gold", "completion", "expected"),
    [
        ("#### 18", "The answer is 18.", "correct"),
        ("#### 18", "The answer is $18.00", "correct"),
        ("#### 1000", r"\boxed{1,000}", "correct"),
        ("#### 18", "The answer is 19.", "wrong"),
        ("18", "The answer is 19. No: the answer is 18.", "correct"),
        (r"\frac{1}{2}", r"\boxed{0.5}", "correct"),
        (r"\frac{1}{2}", r"\boxed{\dfrac{1}{2}}", "correct"),
        ("0.3333333333333333333333", "#### 1/3", "wrong"),  # plain numbers compare exactly
        (r"(3, \frac{\pi}{2})", r"\boxed{\left(3, \frac{\pi}{2}\right)}", "correct"),
        (r"2\sqrt{3}", r"\boxed{\sqrt{12}}", "correct"),  # math-verify
        ("x^2 + 2x + 1", r"\boxed{(x+1)^2}", "correct"),
        ("x^2 + 2x + 1", r"\boxed{(x+1)^3}", "wrong"),
        ("5", r"\boxed{5!}", "wrong"),
        ("5", r"\boxed{__import__('os').system('false')}", "wrong"),
        ("5", r"\boxed{" + "(" * 3000 + "}", "wrong"),
        ("5", "I cannot say", "no_answer"),
        ("", "The answer is 5", "gold_error"),
        (None, "The answer is 5", "gold_error"),
    ],
)
def test_verdicts(gold: object, completion: str, expected: str) -> None:
    assert status(gold, completion) == expected


def test_a_slow_comparison_is_killed_and_the_next_one_judged() -> None:
    prompts = [Prompt("a", "q", {"gold": "x+1"}), Prompt("b", "q", {"gold": r"2\sqrt{3}"})]
    verdicts = math_verify(prompts, [r"\boxed{9^{9^{9}}x}", r"\boxed{\sqrt{12}}"], deadline_s=1.0)
    assert [(verdict.status, verdict.reward) for verdict in verdicts] == [("timeout", 0.0), ("correct", 1.0)]
    assert status("x+1", r"\boxed{x+2}", deadline_s=1e-4) == "timeout"


def test_reading_text_is_linear() -> None:
    """A hundred thousand characters of anything are nothing."""
    for text in (
        r"\boxed{" * 10**4,
        "{" * 10**5,
        "answer is " * 10**4,
        "£" * 10**5,
        " ." * 10**4,
        "1" * 10**5,
        "1," * 10**4,
    ):
        extract_answer(text)
        extract_answer("the answer is " + text)
        extract_gold("#### " + text)
        clean(text)
        number(text)
        last_box(text)
    extract_answer("the answer is 18 " + "a" * 10**5 + "_")


def test_wrong_use_is_named() -> None:
    with pytest.raises(VerifierError, match="no column 'gold'"):
        math_verify([Prompt("p", "q", {"answer": "5"})], ["5"])
    with pytest.raises(VerifierError, match="deadline_s=0"):
        status("5", "5", deadline_s=0)


@pytest.mark.parametrize("split", ["train", "test"])
def test_gsm8k_golds_verify_against_themselves(shared_data: Path, split: str) -> None:
    with (shared_data / "gsm8k" / f"{split}.jsonl").open(encoding="utf-8") as file:
        answers = [json.loads(line)["answer"] for line in file]
    prompts = [Prompt(str(i), "q", {"gold": answer}) for i, answer in enumerate(answers)]
    texts = [f"Let us see. The answer is {answer.split('####')[1].strip()}." for answer in answers]
    for completions in (texts, answers):
        verdicts = math_verify(prompts, completions)
        assert [answers[i] for i, verdict in enumerate(verdicts) if not verdict.correct] == []
