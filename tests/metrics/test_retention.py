"""Keep and explore against a base."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dphrl.errors import DataError
from dphrl.method.verdict_counts import Counts
from dphrl.metrics.intervals import bootstrap
from dphrl.metrics.retention import retention, retention_at

NAN = float("nan")


def counts(successes: dict[str, int], n: int = 8) -> dict[str, Counts]:
    return {prompt_id: Counts(n, n, c) for prompt_id, c in successes.items()}


def test_by_hand():
    """The base solves a, b, c; the trained model keeps a and b and finds d: keep 2/3, explore 1/2."""
    base = counts({"a": 8, "b": 1, "c": 3, "d": 0, "e": 0})
    trained = counts({"e": 0, "d": 2, "c": 0, "b": 8, "a": 1})
    found = retention(base, trained)
    assert (found.ids, found.names) == (tuple("abcde"), ("keep", "explore"))
    np.testing.assert_array_equal(found.column("keep"), [1, 1, 0, NAN, NAN])
    np.testing.assert_array_equal(found.column("explore"), [NAN, NAN, NAN, 1, 0])


def test_a_prompt_with_an_unjudged_draw_is_compared_on_neither_side():
    base = counts({"a": 8, "b": 8}) | {"c": Counts(8, 7, 3)}
    trained = counts({"a": 8, "c": 8}) | {"b": Counts(8, 7, 0)}
    found = retention(base, trained)
    np.testing.assert_array_equal(found.values_PM, [[1, NAN], [NAN, NAN], [NAN, NAN]])


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=20))
@settings(deadline=None)
def test_every_judged_prompt_counts_once(pairs):
    base = counts({str(i): b for i, (b, _) in enumerate(pairs)}, 4)
    trained = counts({str(i): t for i, (_, t) in enumerate(pairs)}, 4)
    found = retention(base, trained)
    assert (np.isnan(found.values_PM).sum(axis=1) == 1).all()
    assert np.nansum(found.values_PM) == sum(t > 0 for _, t in pairs), "what it keeps and finds is what it solves"
    assert np.nanmin(retention(base, base).column("keep"), initial=1.0) == 1.0, "a model keeps all of itself"


def test_other_prompts_or_another_n_are_refused():
    with pytest.raises(DataError, match=r"2 prompts were evaluated for one .*\['a', 'b'\]"):
        retention(counts({"a": 1}), counts({"b": 1}))
    with pytest.raises(DataError, match=r"n=\[8, 16\] draws per prompt differ"):
        retention(counts({"a": 1}), counts({"a": 1}, 16))


def test_fewer_draws_follow_the_hypergeometric_formula():
    """Base 1, 2, 0 of 2 right, model 2, 1, 1 of 4. At k = 1: chances 1/2, 1, 0 against 1/2, 1/4, 1/4, so keep@1 is
    (1/2 * 1/2 + 1 * 1/4) / (3/2) and explore@1 (1/2 * 1/2 + 1 * 1/4) / (3/2); n may differ."""
    base = {"a": Counts(2, 2, 1), "b": Counts(2, 2, 2), "c": Counts(2, 2, 0)}
    model = {"a": Counts(4, 4, 2), "b": Counts(4, 4, 1), "c": Counts(4, 4, 1)}
    found = bootstrap(retention_at(base, model, [1, 2]), rng=np.random.default_rng(0), resamples=9)
    assert found["keep@1"].value == pytest.approx((1 / 4 + 1 / 4) / (3 / 2))
    assert found["explore@1"].value == pytest.approx((1 / 4 + 1 / 4) / (3 / 2))
    assert found["keep@2"].value == pytest.approx((5 / 6 + 1 / 2) / 2) and found["explore@2"].value == 0.5


def test_expected_keep_agrees_with_every_choice_of_draws():
    """Expected prompts kept over expected prompts solved, over every pair of 2 of 3 draws."""
    right = {"base": {"a": (1, 0, 0), "b": (1, 1, 0)}, "model": {"a": (0, 1, 0), "b": (0, 0, 0)}}
    kept = solved = 0
    for i in "ab":
        for before in combinations(right["base"][i], 2):
            for after in combinations(right["model"][i], 2):
                solved, kept = solved + any(before), kept + (any(before) and any(after))
    base, model = ({i: Counts(3, 3, sum(x)) for i, x in side.items()} for side in right.values())
    found = bootstrap(retention_at(base, model, [2]), rng=np.random.default_rng(0), resamples=9)
    assert found["keep@2"].value == pytest.approx(kept / solved)


def test_at_n_it_is_keep_and_explore_and_unjudged_prompts_leave():
    base = {"a": Counts(2, 2, 1), "b": Counts(2, 2, 0), "c": Counts(2, 1, 1), "d": Counts(2, 2, 2)}
    model = {"a": Counts(2, 2, 1), "b": Counts(2, 2, 1), "c": Counts(2, 2, 2), "d": Counts(2, 2, 0)}
    there, here = retention(base, model), retention_at(base, model, [2])
    found = bootstrap(here, rng=np.random.default_rng(0), resamples=50)
    for name in ("keep", "explore"):
        assert found[f"{name}@2"] == bootstrap(there, rng=np.random.default_rng(0), resamples=50)[name]
    assert here.sizes() == {"keep@2": 2.0, "explore@2": 1.0}
