"""Distinct right solutions and their entropy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dphrl.metrics.diversity import entropy, solution_forms, style_diversity
from dphrl.types import Completion, Verdict

RIGHT, WRONG = Verdict(True, 1.0, "correct"), Verdict(False, 0.0, "wrong")
UNJUDGED = Verdict(False, None, "verifier_error")


def draws(*rows: tuple[str, Verdict]) -> list[Completion]:
    return [Completion("p", draw, (1,), text, "stop", verdict) for draw, (text, verdict) in enumerate(rows)]


def test_forms_count_right_completions_and_ask_once_for_each_text():
    asked: list[str] = []

    def solution(text: str) -> str:
        asked.append(text)
        return text.lower()

    found = solution_forms(
        draws(("A", RIGHT), ("a", RIGHT), ("A", RIGHT), ("b", RIGHT), ("c", WRONG), ("d", UNJUDGED)), solution
    )
    assert found == {"a": 3, "b": 1}
    assert sorted(asked) == ["A", "a", "b"]


def test_style_by_hand():
    """a: forms x, x, y: 2 forms, entropy ln 3 - 2/3 ln 2. b: none right: 0 forms. c: none judged: unknown."""
    found = style_diversity(
        {
            "b": draws(("x", WRONG), ("y", UNJUDGED)),
            "a": draws(("x", RIGHT), ("y", RIGHT), ("x", RIGHT), ("z", WRONG)),
            "c": draws(("x", UNJUDGED)),
        },
        str,
    )
    assert (found.ids, found.names) == (("a", "b", "c"), ("distinct_correct", "style_entropy"))
    expected = [[2, math.log(3) - 2 / 3 * math.log(2)], [0, np.nan], [np.nan, np.nan]]
    np.testing.assert_allclose(found.values_PM, expected, rtol=0, atol=1e-15)


def test_entropy_of_equal_shares_is_the_log_of_their_number():
    assert entropy({"a": 5}) == 0.0
    assert entropy(dict.fromkeys("abcd", 3)) == pytest.approx(math.log(4), abs=1e-15)
    assert math.isnan(entropy({}))


@given(st.lists(st.integers(1, 50), min_size=1, max_size=10), st.randoms())
@settings(deadline=None)
def test_entropy_bounds_and_order(counts, random):
    labelled = dict(enumerate(counts))
    keys = list(labelled)
    random.shuffle(keys)
    value = entropy({str(key): labelled[key] for key in labelled})
    assert -1e-15 <= value <= math.log(len(counts)) + 1e-12
    assert entropy({str(key): labelled[key] for key in keys}) == value
