"""The anchors of each step: a pure function of seed and step, shared over micro-batches and ranks."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dphrl.method.anchor_order import share, step_anchors


@given(st.integers(1, 20), st.integers(1, 30), st.integers(0, 5))
def test_every_anchor_comes_once_before_any_comes_again(total: int, per_step: int, seed: int) -> None:
    stream = np.concatenate([step_anchors(total, per_step, seed=seed, step=s) for s in range(8)])
    for start in range(0, len(stream) - total + 1, total):
        assert sorted(stream[start : start + total]) == list(range(total))


def test_the_stream_is_a_pure_function_of_seed_and_step() -> None:
    assert (step_anchors(10, 4, seed=1, step=7) == step_anchors(10, 4, seed=1, step=7)).all()
    assert (step_anchors(100, 50, seed=1, step=0) != step_anchors(100, 50, seed=2, step=0)).any()


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9)), min_size=1, max_size=6))
def test_a_step_is_a_slice_of_shuffled_passes_whatever_was_asked_before(asked: list[tuple[int, int]]) -> None:
    for seed, step in asked:
        passes = [np.random.default_rng([seed, number]).permutation(7) for number in range(10)]
        expected = np.concatenate(passes)[step * 5 : (step + 1) * 5]
        assert step_anchors(7, 5, seed=seed, step=step).tolist() == expected.tolist()


@given(st.integers(1, 4), st.integers(1, 4), st.integers(16, 40))
def test_shares_cover_the_step_disjointly(micros: int, ranks: int, per_step: int) -> None:
    indices = np.arange(per_step)
    parts = [share(indices, micro=m, micros=micros, rank=r, ranks=ranks) for m in range(micros) for r in range(ranks)]
    assert sorted(np.concatenate(parts)) == list(range(per_step))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_fewer_anchors_than_parts_leave_the_last_ones_empty() -> None:
    parts = [share(np.arange(3), micro=m, micros=2, rank=r, ranks=2).tolist() for m in range(2) for r in range(2)]
    assert parts == [[0], [1], [2], []]
