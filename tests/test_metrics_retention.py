"""Keep and explore against a base."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dphrl.errors import DataError
from dphrl.metrics.retention import retention
from dphrl.partition import Counts

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
