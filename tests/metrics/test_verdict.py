"""The verdict's words follow from intervals; its lines do not depend on the order of what is given."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dphrl.errors import DataError
from dphrl.metrics.verdict import (
    COLLAPSED_PASS,
    COLLAPSED_SHARE,
    NARROWED,
    REACHES,
    Change,
    Verdict,
    accuracy_word,
    by_loss,
    over_tasks,
    reach_word,
    warnings_of,
)


def change(value: float, half: float = 0.02) -> Change:
    return Change(value, value - half, value + half)


def line(method: str = "grpo", task: str | None = "a", passed: float = 0.0, **more: object) -> Verdict:
    known = {"n": 64, "k": 32, "prompts": 100, "mean": change(0.1), "passed": change(passed), "distinct": change(0.0)}
    known |= {"distinct_before": 8.0, "distinct_after": 8.0, "kept": Change(0.9, 0.8, 0.95)}
    return Verdict(method=method, setting="", task=task, **{**known, **more})  # type: ignore[arg-type]


ends = st.integers(-1000, 1000).map(lambda x: x / 1000)
intervals = st.tuples(ends, ends, ends).map(sorted).map(lambda x: Change(x[1], x[0], x[2]))


@given(intervals, intervals)
def test_words_follow_from_the_intervals(passed: Change, distinct: Change) -> None:
    """A loss is named only where the whole interval lies there, and always then."""
    assert passed.high is not None and distinct.high is not None
    word = reach_word(passed, distinct)
    lost = passed.high < -NARROWED or distinct.high < -NARROWED
    far = passed.high < -COLLAPSED_PASS or distinct.high < -COLLAPSED_SHARE
    assert (
        (word == "collapsed") == far and (word == "narrowed") == (lost and not far) and (word == "kept") == (not lost)
    )
    assert accuracy_word(passed) == {1: "gained", 0: "unchanged", -1: "lost"}[passed.sign]  # type: ignore[index]


@given(intervals, intervals, st.floats(0, 0.5))
def test_a_wider_interval_never_makes_a_verdict_worse(passed: Change, distinct: Change, more: float) -> None:
    assert passed.high is not None
    wider = replace(passed, high=passed.high + more)
    assert REACHES.index(reach_word(wider, distinct)) >= REACHES.index(reach_word(passed, distinct))


def test_without_an_interval_nothing_is_said() -> None:
    assert reach_word(None, None) == reach_word(Change(-0.5), change(-0.9)) == "unknown"
    assert accuracy_word(None) == accuracy_word(Change(0.5)) == "unknown"
    assert reach_word(change(-0.1), None) == "collapsed" and reach_word(change(0.1), Change(-0.9)) == "kept"
    assert reach_word(change(-0.01, 0.006), None) == "kept", "a hundredth of a point is no narrowing"
    assert Change(0.0, -1e-17, -1e-17).sign == 0, "what rounding leaves is no loss"


@given(st.permutations([line("a", "x", -0.3), line("b", "x", -0.3), line("a", "y", 0.1), line("c", "x", -0.04)]))
def test_lines_are_sorted_by_loss_whatever_their_order(lines: list[Verdict]) -> None:
    """Collapsed before narrowed before kept; equal losses by name."""
    assert [(v.method, v.task) for v in by_loss(lines)] == [("a", "x"), ("b", "x"), ("c", "x"), ("a", "y")]


@given(st.permutations([-0.3, 0.1, 0.2, 0.02]))
def test_a_mean_over_tasks_does_not_depend_on_their_order(gaps: list[float]) -> None:
    """Four tasks of half-width 0.02: the mean's is 0.02 / sqrt 4."""
    found = over_tasks([line(task=str(gap), passed=gap) for gap in gaps])
    assert found.passed is not None and found.task is None and found.prompts == 400
    assert (found.passed.value, found.passed.low) == (pytest.approx(0.005), pytest.approx(0.005 - 0.01))
    assert found.passed.high == pytest.approx(0.015) and found.distinct_before is None and found.k == 32


def test_a_mean_needs_one_method_and_knows_what_is_not_known() -> None:
    found = over_tasks([line(task="a", n=8, kept=None), line(task="b", passed=0.1, mean=Change(0.2))])
    assert found.mean is not None and found.mean.value == pytest.approx(0.15) and found.mean.low is None
    assert found.n is None and found.kept is None
    with pytest.raises(DataError, match=r"is of one method, each task once; these are of \[\('a', ''\), \('b', ''\)\]"):
        over_tasks([line("a"), line("b", "b")])


def test_a_line_that_is_unsafe_says_why() -> None:
    safe = line()
    assert warnings_of(safe, base_passed=0.7, base_solved=80) == ()
    assert warnings_of(safe, base_passed=1.0, base_solved=100) == ("base solves all",)
    few = replace(line(), prompts=12, passed=change(0.0, 0.07))
    assert warnings_of(few, base_passed=0.0, base_solved=3) == (
        *("base solves none", "only 12 prompts", "few prompts: ±7", "kept rests on 3"),
    )
    assert over_tasks([few]).warnings == ("few prompts: ±7",)
