"""Verdicts on final answers of mathematics: what is equal, what is not, who is to blame."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from math_tables import DIFFERENT, EQUAL, TINY

from dphrl.errors import VerifierError
from dphrl.types import Verdict
from dphrl.verifiers.math import verify_math as math_verifier
from dphrl.verifiers.math.math_worker import compare_answers
from dphrl.verifiers.math.plain_text import plain_number, plain_row, same_text
from dphrl.verifiers.math.verify_math import verify_math


def status(gold: object, completion: str, **args: float) -> str:
    return verify_math([{"gold": gold, "completion": completion}], **args)[0].status


def boxed(gold: str, answer: str) -> str:
    return status(gold, rf"\boxed{{{answer}}}")


@pytest.mark.parametrize(("gold", "answer"), EQUAL)
def test_equal_in_value(gold: str, answer: str) -> None:
    assert boxed(gold, answer) == "correct"


@pytest.mark.parametrize(("gold", "answer"), DIFFERENT)
def test_different_in_value(gold: str, answer: str) -> None:
    assert boxed(gold, answer) == "wrong"


@pytest.mark.parametrize(("gold", "answer"), TINY)
def test_what_is_tiny_is_not_nothing(gold: str, answer: str) -> None:
    """math-verify alone calls half of these equal."""
    assert boxed(gold, answer) == "wrong"


@pytest.mark.parametrize(
    ("gold", "completion", "expected"),
    [
        ("#### 18", "The answer is 18.", "correct"),
        ("#### 18", "The answer is $18.00", "correct"),
        ("18", "The answer is 19. No: the answer is 18.", "correct"),
        ("2", r"\boxed{1} or rather \boxed{2}", "correct"),  # math-verify makes a set of them
        ("1", r"\boxed{1} \boxed{2} \boxed{3}", "wrong"),
        ("27", "so 27.0", "correct"),
        (27.0, r"\boxed{27}", "correct"),
        (["$1$", "$2$"], r"\boxed{2, 1}", "correct"),
        ("5", "I cannot say", "no_answer"),
        ("5", "", "no_answer"),
        ("", "The answer is 5", "gold_error"),
        (None, "The answer is 5", "gold_error"),
        (float("nan"), "The answer is 5", "gold_error"),
        pytest.param(10**5000, "The answer is 5", "gold_error", id="an integer Python does not write out"),
        ("x" * 3000, "The answer is 5", "gold_error"),
        ("5", r"\boxed{5" + "+0" * 1500 + "}", "wrong"),  # too long to be read
    ],
)
def test_verdicts(gold: object, completion: str, expected: str) -> None:
    assert status(gold, completion) == expected


HOSTILE = {
    "power tower": "9^{9^{9^9}}",
    "plain tower": "9^9^9^9",
    "factorials": "((9!)!)!",
    "binomial": r"\binom{99999999}{49999999}",
    "exponent": "1e999999999",
    "exponentials": r"e^{e^{e^{e^{x}}}}",
    "large power": "(x+y+1)^{2999}-(x-1)^{2999}",
    "brackets": "(" * 10_000 + "1" + ")" * 10_000,
    "some brackets": "(" * 400 + "1" + ")" * 400,
    "roots": r"\sqrt{" * 10_000 + "2" + "}" * 10_000,
    "some roots": r"\sqrt" * 390 + "2",
    "fractions": r"\frac{1}{" * 190 + "2" + "}" * 190,
    "signs": "-" * 1_900 + "2",
    "powers": "x" + "^x" * 900,
    "percent": "7" + "%" * 1_900,
    "code": "__import__('os').system('false')",
    "bidi": "\u202e7\u202c",
    "surrogates": "\ud800" * 100 + "7",
    "digits": "7" * 1_990,
    "nothing": r"\text{}",
}


@pytest.mark.parametrize("gold", ["5", r"\sqrt{2}", "x+1"])
def test_hostile_answers_are_wrong_and_the_next_one_is_right(gold: str) -> None:
    items = []
    for text in HOSTILE.values():
        items += [
            {"gold": gold, "completion": rf"\boxed{{{text}}}"},
            {"gold": gold, "completion": rf"\boxed{{{gold}+0}}"},
        ]
    statuses = [verdict.status for verdict in verify_math(items, deadline_s=2.0)]
    verdicts = dict(zip(HOSTILE, statuses[::2], strict=True))
    assert {name: verdict for name, verdict in verdicts.items() if verdict not in ("wrong", "timeout")} == {}
    assert set(statuses[1::2]) == {"correct"}


@pytest.mark.slow
def test_a_slow_comparison_is_killed_and_the_next_one_judged() -> None:
    items = [
        {"gold": "x+1", "completion": r"\boxed{|x" + "|x" * 600 + "}"},
        {"gold": r"2\sqrt{3}", "completion": "#### $\\sqrt{12}$"},
    ]
    verdicts = verify_math(items, deadline_s=1.5)
    assert [(verdict.status, verdict.reward) for verdict in verdicts] == [("timeout", 0.0), ("correct", 1.0)]


@pytest.mark.slow
def test_a_gold_answer_that_takes_too_long_alone_is_not_held_against_a_completion() -> None:
    gold = "|x" * 600
    verdicts = verify_math(
        [{"gold": gold, "completion": r"\boxed{x+1}"}, {"gold": "y", "completion": r"\boxed{y+0}"}], deadline_s=1.0
    )
    assert [verdict.status for verdict in verdicts] == ["gold_error", "correct"]
    assert verdicts[0].reward is None


def test_a_bug_of_ours_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """What sympy raises is the answer's fault; anything else is not caught on the way to `verifier_error`."""

    def broken(*_: object) -> bool:
        raise KeyError("ours")

    monkeypatch.setattr("dphrl.verifiers.math.math_worker._same", broken)
    with pytest.raises(KeyError):
        compare_answers(("x", "x+1"), None)


def test_identical_pairs_are_judged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[object] = []

    class Recorder:
        def run(self, items: list[object], *_: object, **__: object) -> list[tuple[str, str]]:
            sent.extend(items)
            return [("correct", "")] * len(items)

    monkeypatch.setattr(math_verifier, "pool_of", lambda job: Recorder())
    item = {"gold": "x+1", "completion": r"\boxed{1+x}"}
    assert [verdict.correct for verdict in verify_math([item] * 3)] == [True] * 3
    assert sent == [("x+1", "1+x")]


@pytest.mark.parametrize(
    ("item", "args", "message"),
    [
        ({"id": "p7", "completion": "5", "answer": "5"}, {}, "'p7' has no 'gold'"),
        ({"gold": "5", "completion": "5"}, {"deadline_s": 0}, "deadline_s=0"),
        ({"gold": "5", "completion": "5"}, {"workers": 0}, "workers=0"),
    ],
)
def test_wrong_use_is_named(item: dict[str, str], args: dict[str, int], message: str) -> None:
    with pytest.raises(VerifierError, match=message):
        verify_math([item], **args)


@given(st.fractions(max_denominator=10**6), st.fractions(max_denominator=10**6))
def test_plain_numbers_agree_with_fractions(left: Fraction, right: Fraction) -> None:
    def written(value: Fraction) -> str:
        return rf"{'-' if value < 0 else ''}\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"

    assert plain_number(written(left)) == plain_number(str(left)) == left
    assert boxed(written(left), str(left)) == "correct"
    assert (
        boxed(str(left), written(right))
        == boxed(str(right), written(left))
        == ("correct" if left == right else "wrong")
    )


@given(st.integers(-(10**12), 10**12))
def test_ways_to_write_an_integer(value: int) -> None:
    for text in (f"{value}", f"{value:,}", f"{value}.", f"{value}.00", f"{value}e0", rf"\${value}"):
        assert plain_number(text) == value


@given(st.lists(st.integers(-99, 99), min_size=2, max_size=5, unique=True), st.randoms())
def test_rows_of_numbers(values: list[int], random: object) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    row, other = (", ".join(map(str, part)) for part in (values, shuffled))
    assert plain_row(row) == plain_row(rf"\{{{other}\}}")
    assert (plain_row(f"({row})") == plain_row(rf"\left({other}\right)")) == (values == shuffled)
    assert plain_row(f"({row})") != plain_row(f"[{row})")


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(-9, 9), min_size=2, max_size=3, unique=True),
    st.lists(st.integers(-9, 9), min_size=2, max_size=3, unique=True),
)
def test_rows_are_judged_by_the_caller_as_by_the_worker(left: list[int], right: list[int]) -> None:
    """The shortcut says what math-verify's parser and our comparison say."""
    for brackets in ("{}", "({})", r"\{{{}\}}"):
        gold, answer = (brackets.format(",".join(map(str, part))) for part in (left, right))
        ours, theirs = plain_row(gold), plain_row(answer)
        assert (ours == theirs) == (compare_answers((gold, answer), None)[0] == "correct")


@given(st.text(st.characters(exclude_characters="\\~")))
def test_text_equals_itself(text: str) -> None:
    assert same_text(text, text) and same_text(text, f" {text} ") and not same_text(text, text + "z")


@pytest.mark.parametrize("split", ["train", "test"])
def test_gsm8k_golds_verify_against_themselves(shared_data: Path, split: str) -> None:
    with (shared_data / "gsm8k" / f"{split}.jsonl").open(encoding="utf-8") as file:
        answers = [json.loads(line)["answer"] for line in file]
    texts = [f"Let us see. The answer is {answer.split('####')[1].strip()}." for answer in answers]
    for completions in (texts, answers):
        items = [{"gold": gold, "completion": text} for gold, text in zip(answers, completions, strict=True)]
        assert [
            item["gold"] for item, verdict in zip(items, verify_math(items), strict=True) if not verdict.correct
        ] == []


NOTHING = (
    r"\%",
    "%",
    r"^{\circ}",
    r"^\circ",
    r"\text{}",
    r"\text{ }",
    r"\,",
    "{}",
    "()",
    r"\$",
    "cm",
    r"\text{ cm}",
    "_2",
    r"\frac{}{}",
    "=",
    "x=",
    ",",
)


@pytest.mark.parametrize(
    "gold", ["5", "0", "x+1", r"\sqrt{104729}-611953", "(1,2)", "even", "50\\%", r"30 \text{ cm}", "3:00"]
)
def test_signs_and_units_without_a_value_are_never_right(gold: str) -> None:
    """A lone percent sign, once its sign is taken off, is empty, and so is what words a number has."""
    assert {
        text: verdict.status for text, verdict in zip(NOTHING, judged(gold, NOTHING), strict=True) if verdict.correct
    } == {}


def judged(gold: str, answers: Sequence[str]) -> list[Verdict]:
    return verify_math([{"gold": gold, "completion": rf"\boxed{{{answer}}}"} for answer in answers])
