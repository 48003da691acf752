"""Final answers read off text."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dphrl.verifiers.math.characters import ascii_text
from dphrl.verifiers.math.final_answer import extract_answer, extract_gold, last_box
from dphrl.verifiers.math.plain_text import clean_answer, plain_number


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        (r"so \boxed{\frac{1}{2}}, no, \boxed{x^{2}}.", "x^{2}"),
        (r"\boxed{1} and \boxed{2", "1"),  # the last one that is closed
        (r"\boxed{1} then {{ }} and } here", "1"),
        (r"{ \boxed{5}", "5"),
        (r"\boxed{\boxed{3}}", r"\boxed{3}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed 5", "5"),
        (r"\boxed 52", "5"),  # one token, as LaTeX reads it
        (r"\boxed\pi", r"\pi"),
        (r"\boxed\frac{1}{2}", r"\frac{1}{2}"),
        (r"\boxed{4}, in \boxed notation", "4"),
        (r"\fbox{7}", "7"),
        (r"\\boxed{8}", "8"),
        ("#### 1\n#### 2\nthanks", "2"),
        ("The answer is 18.", "18"),
        ("the answer is: $18", r"\$18"),
        ("The answer is 1,000.", "1,000"),
        ("The answer is 18 dollars every day at the market.", "18 dollars"),
        ("The answer is 5 million people.", "5 million people"),
        ("The answer is 1.5 hours per day. Good bye", "1.5 hours per day"),
        (r"The final answer is \$18.50.", r"\$18.50"),
        ("The answer is **18**.", "18"),
        ("**Final Answer:** 18", "18"),
        ("Answer: therefore 18, because 9 + 9 = 18", "18"),
        ("The answer is\n$$\nx = 3. 5\n$$", "x = 3. 5"),
        ("The answer is 3. No, the answer is 4.", "4"),
        ("The answer is 3. That is what the answer is", "3"),
        ("The answer is $x=3$.", "x=3"),
        ("The answer is 5 or 6", "5 or 6"),
        ("The answer is 3? No. It is 4.", "4"),
        ("The answer is 4, not 3.", "4"),
        ("The answer is 3 out of 4.", "3 out of 4"),
        ("The answer is 8 below zero.", "8 below zero"),
        ("3 + 4 = 7", "7"),  # else the last expression
        ("10-5", "10-5"),
        ("it is -5", "-5"),
        ("so 2 + 3 = 5 and 5 + 4 = 9", "9"),
        (r"The chance is $\frac{2}{3}$.", r"\frac{2}{3}"),
        (r"We get \[ y = 3\sqrt{7} \] as the length.", r"3\sqrt{7}"),
        ("The area is 70 cm².", "70 cm^{2}"),
        ("That makes 12 3/4.", "12 3/4"),
        ("It is 2√3.", "2 sqrt 3"),
        ("That is 30% of them.", "30%"),
        ("It is x + 4.", "x + 4"),
        ("They cost $5 and $7.", r"\$7"),
        ("There are 3 dozen.", "3 dozen"),
        ("<think>four</think><answer>y + 4</answer>", "y + 4"),
        (r"<answer>so \boxed{4}</answer>", "4"),
        ("<answer>3</answer> no <answer>4", "4"),
        (r"<think>\boxed{3}</think>It is 4.", "4"),
        (r"<think>\boxed{3}</think> ", "3"),
        (r"<think>3</think>The result: \boxed{4}", "4"),
        (r"Put it into \boxed{}. The answer is 4.", "4"),
        (r"The answer is 4. \boxed{}", "4"),
        (r"\boxed{4} as in \boxed{\text{answer}}", r"\text{answer}"),
        (r"\boxed{1} \quad \text{and} \quad \boxed{2}", "1, 2"),
        (r"$\boxed{1}$, $\boxed{2}$ and $\boxed{3}$", "1, 2, 3"),
        (r"\boxed{1} but then \boxed{2}", "2"),
        (r"\boxed{2} and again \boxed{2}", "2"),
        (r"so we have \boxed{\frac{3}{4}", r"\frac{3}{4}"),
        ("#### The answer is 5", "The answer is 5"),
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
        (["$1$", "$2$"], "1, 2"),
        (["1", ""], ""),
        (None, ""),
        ("", ""),
        ([], ""),
        (True, ""),
        (float("inf"), ""),
        ({"answer": "5"}, ""),
        ("#### ", ""),
    ],
)
def test_extract_gold(gold: object, answer: str) -> None:
    assert extract_gold(gold) == answer


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("18", 18),
        ("+2", 2),
        ("42.", 42),
        ("1,234.50", Fraction(2469, 2)),
        (r"1,\!234", 1234),
        (r"\$1,000", 1000),
        ("1/2", Fraction(1, 2)),
        ("1 / 2", Fraction(1, 2)),
        (r"-\frac{3}{4}", Fraction(-3, 4)),
        (r"\frac34", Fraction(3, 4)),
        (".5", Fraction(1, 2)),
        ("4.5e2", 450),
        ("1e-2", None),  # -2+e
        ("1.0e-2", Fraction(1, 100)),
        ("1e-12", Fraction(1, 10**12)),
        ("1e9999", None),
        ("1/0", None),
        ("12,34", None),
        ("0,245", None),
        ("3 1/2", None),  # for the worker, like all that follow
        (r"50\%", None),
        ("x", None),
        ("", None),
    ],
)
def test_number(text: str, value: Fraction | None) -> None:
    assert plain_number(text) == value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("−5", "-5"),
        ("５", "5"),
        ("٥", "5"),
        ("x²", "x^{2}"),
        ("x₁₂", "x_{12}"),
        ("3½", r"3\frac{1}{2}"),
        ("a\u202eb\u200bc", "abc"),
        ("a\x00b", "a b"),
        ("π ≤ ∞", r"\pi  \le  \infty "),
        ("plain\n", "plain\n"),
    ],
)
def test_characters_with_another_way_to_write_them(text: str, expected: str) -> None:
    assert ascii_text(text) == expected


@pytest.mark.slow
def test_reading_text_is_linear() -> None:
    """Any amount of anything is read; what were quadratic would not come back."""
    many = 3 * 10**5
    for text in (
        r"\boxed{" * (many // 7),
        r"\boxed" * (many // 6),
        r"\boxed{5}" + "{" * many,
        r"\boxed{5}" + "{}" * (many // 2),
        "}" * many,
        "\n" * many,
        "answer is " * (many // 10),
        "answer" + " " * many,
        "####" * (many // 4),
        "£" * many,
        " ." * (many // 2),
        "1" * many,
        "1," * (many // 2),
        "the answer is 18 " + "a" * many + "_",
        "$$" * (many // 2),
    ):
        extract_answer(text)
        extract_answer("the answer is " + text)
        extract_gold(text)
        last_box(text)
        clean_answer(text)
        plain_number(text)


ANY_TEXT = st.text(st.characters(codec=None)) | st.text("\\boxed{}#answeris: $\n.1,-", max_size=60)


@given(ANY_TEXT)
def test_extraction_takes_any_text(text: str) -> None:
    assert isinstance(extract_answer(text), str)
    assert isinstance(extract_gold(text), str)


@given(ANY_TEXT, st.integers(-999, 999), st.text(st.sampled_from("abc 123.$\n(")))
def test_the_last_box_counts(before: str, value: int, after: str) -> None:
    assert extract_answer(f"{before} \\boxed{{{value}}} {after}") == str(value)


@given(st.integers(-999, 999), st.integers(-999, 999))
def test_a_model_that_corrects_itself_is_judged_by_its_last_word(first: int, last: int) -> None:
    assert extract_answer(f"The answer is {first}. Wait. The answer is {last}.") == str(last)
    assert extract_answer(rf"\boxed{{{first}}} \boxed{{{last}}}") == str(last)


def test_emphasis_around_label_and_answer_is_no_part_of_it() -> None:
    assert extract_answer("**Answer: 3**") == "3"
