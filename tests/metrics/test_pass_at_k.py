"""Pass@k against brute force and exact fractions."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from math import comb, isnan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dphrl.errors import DataError
from dphrl.metrics.pass_at_k import greedy, mean_at_n, pass_at_k, report_ks, supported_k
from dphrl.types import GREEDY_DRAW, Completion, Verdict

RIGHT, WRONG = Verdict(True, 1.0, "correct"), Verdict(False, 0.0, "wrong")
UNJUDGED = Verdict(False, None, "verifier_error")


def test_by_hand():
    """n=4, c=1: one of four draws is right, so k draws find it with chance k/4. n=4, c=2, k=2: 1 - 1/6."""
    values = pass_at_k(np.array([4, 4, 4, 4]), np.array([0, 1, 2, 4]))
    expected = [[0, 0, 0, 0], [0.25, 0.5, 0.75, 1], [0.5, 5 / 6, 1, 1], [1, 1, 1, 1]]
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("n", [1, 2, 5, 7])
def test_agrees_with_every_subset(n):
    """Pass@k is the share of all k-subsets of the n draws that hold a right one."""
    for c in range(n + 1):
        right = [draw < c for draw in range(n)]
        for k in range(1, n + 1):
            subsets = list(combinations(right, k))
            expected = sum(map(any, subsets)) / len(subsets)
            assert pass_at_k(np.array([n]), np.array([c]), [k]).item() == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("n", [13, 64, 200])
def test_agrees_with_exact_fractions(n):
    values = pass_at_k(np.full(n + 1, n), np.arange(n + 1))
    exact = [[float(1 - Fraction(comb(n - c, k), comb(n, k))) for k in range(1, n + 1)] for c in range(n + 1)]
    np.testing.assert_allclose(values, exact, rtol=0, atol=1e-13)


@given(st.lists(st.integers(0, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))), min_size=1, max_size=9))
@settings(deadline=None)
def test_bounds_monotone_and_pass_at_1_is_the_mean(pairs):
    n, c = np.array(pairs).T
    if n.max() == 0:
        return
    values = pass_at_k(n, c)
    np.testing.assert_allclose(values[:, 0], mean_at_n(n, c), rtol=0, atol=1e-15)
    for row, n_i, c_i in zip(values, n, c, strict=True):
        known = row[:n_i]
        assert not np.isnan(known).any() and np.isnan(row[n_i:]).all()
        assert (known >= 0).all() and (known <= 1).all() and (np.diff(known) >= 0).all()
        assert n_i == 0 or known[-1] == (c_i > 0)


def test_a_hundred_thousand_draws():
    """Finite, monotone, and right to 1e-11 where a closed form exists: c=1 gives k/n, c=n-1 gives 1 from k=2 on."""
    n = 100_000
    values = pass_at_k(np.full(5, n), np.array([0, 1, 2, n // 2, n - 1]))
    k = np.arange(1, n + 1)
    assert np.isfinite(values).all() and (np.diff(values, axis=1) >= 0).all()
    np.testing.assert_allclose(values[1], k / n, rtol=0, atol=1e-11)
    np.testing.assert_allclose(values[2], 1 - (n - k) / n * (n - k - 1) / (n - 1), rtol=0, atol=1e-11)
    assert (values[0] == 0).all() and (values[4, 1:] == 1).all()


def test_chosen_ks_are_columns_of_the_whole():
    n, c = np.array([9, 12, 12]), np.array([3, 1, 12])
    np.testing.assert_array_equal(pass_at_k(n, c, [8, 2, 12]), pass_at_k(n, c)[:, [7, 1, 11]])


@pytest.mark.parametrize("k", [0, 5])
def test_k_out_of_range_is_refused(k):
    with pytest.raises(ValueError, match=rf"k={k} needs 1 <= k <= n=4; draw at least"):
        pass_at_k(np.array([4, 3]), np.array([1, 1]), [k])


def test_no_draws_and_impossible_counts_are_refused():
    with pytest.raises(ValueError, match="k=1 needs 1 <= k <= n=0"):
        pass_at_k(np.array([0]), np.array([0]))
    with pytest.raises(ValueError, match=r"c=5 needs 0 <= c <= n=4 \(row 1\)"):
        pass_at_k(np.array([4, 4]), np.array([1, 5]))
    with pytest.raises(ValueError, match="c=-1"):
        mean_at_n(np.array([4]), np.array([-1]))


def test_mean_at_n_is_nan_without_a_judged_draw():
    np.testing.assert_array_equal(mean_at_n(np.array([4, 0]), np.array([1, 0])), [0.25, np.nan])


def test_report_ks():
    assert report_ks(1) == (1,)
    assert report_ks(12) == (1, 2, 4, 8, 12)
    assert report_ks(64) == (1, 2, 4, 8, 16, 32, 64)


def completion(prompt_id: str, draw: int, verdict: Verdict) -> Completion:
    return Completion(prompt_id, draw, (1,), "", "stop", verdict)


def test_greedy_reads_the_greedy_completion_only():
    rows = [("a", RIGHT), ("b", WRONG), ("c", UNJUDGED)]
    completions = [completion(i, GREEDY_DRAW, verdict) for i, verdict in rows] + [completion("b", 0, RIGHT)]
    found = greedy(completions)
    assert (found["a"], found["b"]) == (1.0, 0.0) and isnan(found["c"])
    assert isnan(greedy([completion("a", 0, RIGHT)])["a"])
    with pytest.raises(DataError, match=r"1 of 2 prompts lack a greedy completion: \['z'\]"):
        greedy([completions[0], completion("z", 0, RIGHT)])


@pytest.mark.parametrize(("n", "k"), [(1, 1), (3, 1), (4, 2), (8, 2), (16, 4), (63, 4), (64, 8), (1024, 32)])
def test_the_k_that_n_draws_support(n: int, k: int) -> None:
    assert supported_k(report_ks(n), n) == k and supported_k([], n) == 1
