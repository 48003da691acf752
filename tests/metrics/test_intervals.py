"""Bootstrap intervals against a slow loop."""

from __future__ import annotations

from statistics import mean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dphrl.errors import DataError
from dphrl.metrics import intervals
from dphrl.metrics.intervals import Interval, Scores, align, bootstrap, join_scores, paired_bootstrap, widened

NAN = float("nan")


def scores(values: object, ids: str | tuple[str, ...] | None = None, names: str = "xyz") -> Scores:
    values_PM = np.array(values, dtype=np.float64)
    labels = tuple(ids) if ids is not None else tuple(map(str, range(len(values_PM))))
    return Scores(labels, tuple(names[: values_PM.shape[1]]), values_PM)


def slow_interval(column: list[float], picks: np.ndarray) -> tuple[float, float]:
    """One resample at a time, in plain Python."""
    means = []
    for rows in picks:
        counted = [column[row] for row in rows if column[row] == column[row]]
        if counted:
            means.append(mean(counted))
    return tuple(np.percentile(means, [2.5, 97.5]))


@pytest.mark.parametrize("chunk", [1, 40, intervals.CHUNK])
def test_agrees_with_a_slow_loop_over_the_same_resamples(chunk, monkeypatch):
    """Whatever the chunk: the same generator state draws the same resamples; with NaN, prompts leave both sums."""
    monkeypatch.setattr(intervals, "CHUNK", chunk)
    values = np.random.default_rng(0).random((13, 2))
    values[2:9, 1] = np.nan
    found = bootstrap(scores(values), rng=np.random.default_rng(7), resamples=400)
    picks = np.random.default_rng(7).integers(13, size=(400, 13))
    for column, name in enumerate("xy"):
        low, high = slow_interval(values[:, column].tolist(), picks)
        assert found[name].value == pytest.approx(np.nanmean(values[:, column]), abs=1e-12)
        assert (found[name].low, found[name].high) == (pytest.approx(low, abs=1e-12), pytest.approx(high, abs=1e-12))


def test_width_is_that_of_the_normal_approximation():
    """400 coin flips, half right: standard error 0.5 / 20 = 0.025, so the 95 % interval is about 0.5 +- 0.049."""
    found = bootstrap(scores([[0.0], [1.0]] * 200), rng=np.random.default_rng(1))["x"]
    assert found.value == 0.5
    assert found.low == pytest.approx(0.451, abs=0.004) and found.high == pytest.approx(0.549, abs=0.004)


def test_paired_is_the_bootstrap_of_the_difference_joined_by_id():
    """The baseline's rows and columns come in another order; prompt b is NaN on one side and leaves both."""
    after = scores([[0.9, 0.1], [0.5, NAN], [0.2, 0.3]], "abc", "xy")
    before = scores([[0.4, 0.1], [0.6, 0.7], [0.2, 0.2]], "cba", "yx")
    found = paired_bootstrap(after, before, rng=np.random.default_rng(3), resamples=500)
    by_hand = scores([[0.9 - 0.2, 0.1 - 0.2], [0.5 - 0.7, NAN], [0.2 - 0.1, 0.3 - 0.4]], "abc", "xy")
    assert found == bootstrap(by_hand, rng=np.random.default_rng(3), resamples=500)
    assert found["y"].value == pytest.approx(-0.1)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_a_model_against_itself_is_exactly_zero(column, seed):
    mine = scores([[x] for x in column])
    again = Scores(mine.ids[::-1], mine.names, mine.values_PM[::-1])
    found = paired_bootstrap(mine, again, rng=np.random.default_rng(seed), resamples=50)
    assert found == {"x": Interval(0.0, 0.0, 0.0)}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_seeded_and_inside_the_range_of_the_scores(column, seed):
    mine = scores([[x] for x in column])
    first, second = (bootstrap(mine, rng=np.random.default_rng(seed), resamples=60) for _ in range(2))
    assert first == second
    assert min(column) - 1e-12 <= first["x"].low <= first["x"].high <= max(column) + 1e-12


def test_metrics_share_their_resamples():
    found = bootstrap(scores([[x, 2 * x + 1] for x in range(9)]), rng=np.random.default_rng(0), resamples=99)
    assert found["y"].low == pytest.approx(2 * found["x"].low + 1) and found["y"].high == 2 * found["x"].high + 1


def test_a_column_that_no_prompt_counts_in_is_nan():
    found = bootstrap(scores([[1.0, NAN], [0.0, NAN]]), rng=np.random.default_rng(0), resamples=20)
    assert found["x"].value == 0.5 and np.isnan([found["y"].value, found["y"].low, found["y"].high]).all()


def test_weights_make_the_value_a_ratio():
    """Weights 3, 1, 0: (3 * 1 + 1 * 0) / 4, resting on 4^2 / 10 prompts; resampled as a ratio of sums."""
    weighted = Scores(tuple("abc"), ("x",), np.array([[1.0], [0.0], [NAN]]), np.array([[3.0], [1.0], [5.0]]))
    assert bootstrap(weighted, rng=np.random.default_rng(0), resamples=9)["x"].value == 0.75
    assert weighted.sizes() == {"x": pytest.approx(16 / 10)}
    picks = np.random.default_rng(4).integers(3, size=(200, 3))
    values, weights = np.array([0.2, 0.9, 0.4]), np.array([1.0, 2.0, 0.5])
    means = [(values[rows] * weights[rows]).sum() / weights[rows].sum() for rows in picks]
    found = bootstrap(
        Scores(tuple("abc"), ("x",), values[:, None], weights[:, None]), rng=np.random.default_rng(4), resamples=200
    )["x"]
    assert (found.low, found.high) == tuple(map(pytest.approx, np.percentile(means, [2.5, 97.5])))


def test_weights_go_where_the_scores_go():
    left = Scores(("b", "a"), ("x", "y"), np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[5.0, 6.0], [7.0, 8.0]]))
    both = join_scores([left, scores([[0.0], [1.0]], "ab", "z")])
    assert both.weights_PM is not None and both.weights_PM.tolist() == [[7.0, 8.0, 1.0], [5.0, 6.0, 1.0]]
    assert both.only(["z", "y"]).counting().tolist() == [[1.0, 8.0], [1.0, 6.0]]
    assert align(left, both.only(["y", "x"])).counting().tolist() == [[8.0, 7.0], [6.0, 5.0]]
    with pytest.raises(ValueError, match="the same weights on both sides"):
        paired_bootstrap(left, scores([[1.0, 1.0], [1.0, 1.0]], "ab", "xy"), rng=np.random.default_rng(0))


@pytest.mark.parametrize(
    ("value", "prompts", "low", "high"),
    [
        (1.0, 100, 0.9637833, 1.0),  # Clopper-Pearson for 100 of 100, as in any table
        (0.0, 10, 0.0, 0.3084971),
        (0.0, 1, 0.0, 0.975),
        (0.5, 200, 0.5 - 0.0960323, 0.5 + 0.0960323),  # sqrt(ln 40 / 400)
        (0.5, 1, 0.0, 1.0),
    ],
)
def test_where_all_prompts_agree_the_interval_says_how_few_they_are(value, prompts, low, high):
    found = widened(Interval(value, value, value), float(prompts))
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-6), pytest.approx(high, abs=1e-6))


def test_an_interval_with_a_width_or_of_nothing_is_left_alone():
    assert widened(Interval(0.5, 0.4, 0.6), 9.0) == Interval(0.5, 0.4, 0.6)
    assert np.isnan(widened(Interval(NAN, NAN, NAN), 1.0).low)


def test_joined_by_id():
    left, right = scores([[1.0], [2.0]], "ba", "x"), scores([[3.0], [NAN]], "ab", "y")
    both = join_scores([left, right])
    assert (both.ids, both.names) == (("a", "b"), ("x", "y"))
    np.testing.assert_array_equal(both.values_PM, [[2.0, 3.0], [1.0, NAN]])
    np.testing.assert_array_equal(align(left, both.only(["x"])).values_PM, [[2.0], [1.0]])


def test_what_does_not_join_is_named():
    with pytest.raises(DataError, match=r"2 prompt ids are on one side only: \['b', 'c'\]"):
        paired_bootstrap(scores([[1], [1]], "ab"), scores([[1], [1]], "ac"), rng=np.random.default_rng(0))
    with pytest.raises(DataError, match=r"2 metrics are on one side only: \['x', 'y'\]"):
        align(scores([[1]], "a", "x"), scores([[1]], "a", "y"))
    with pytest.raises(DataError, match=r"prompt ids come twice: \['a', 'a'\]"):
        scores([[1], [1]], "aa")
    with pytest.raises(DataError, match="metrics come twice"):
        join_scores([scores([[1]], "a"), scores([[1]], "a")])
    with pytest.raises(ValueError, match="must be 2 ids x 1 names"):
        Scores(("a", "b"), ("x",), np.zeros((1, 1)))


def test_settings_out_of_range_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="at least one prompt"):
        bootstrap(Scores((), ("x",), np.zeros((0, 1))), rng=rng)
    with pytest.raises(ValueError, match="resamples=0 must be >= 1"):
        bootstrap(scores([[1]]), rng=rng, resamples=0)
    with pytest.raises(ValueError, match=r"level=1\.0"):
        bootstrap(scores([[1]]), rng=rng, level=1.0)
