"""The anchors of each step: a pure function of seed and step, shared over micro-batches and ranks."""

from __future__ import annotations

from itertools import groupby

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dphrl.method.anchor_order import AnchorOrder, share, share_bundles, together_by_length


@given(st.integers(1, 20), st.integers(1, 30), st.integers(0, 5))
def test_every_anchor_comes_once_before_any_comes_again(total: int, per_step: int, seed: int) -> None:
    stream = np.concatenate([AnchorOrder(total, seed).step(s, per_step) for s in range(8)])
    for start in range(0, len(stream) - total + 1, total):
        assert sorted(stream[start : start + total]) == list(range(total))


def test_the_stream_is_a_pure_function_of_seed_and_step() -> None:
    assert (AnchorOrder(10, 1).step(7, 4) == AnchorOrder(10, 1).step(7, 4)).all()
    assert (AnchorOrder(100, 1).step(0, 50) != AnchorOrder(100, 2).step(0, 50)).any()


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9)), min_size=1, max_size=6))
def test_a_step_is_a_slice_of_shuffled_passes_whatever_was_asked_before(asked: list[tuple[int, int]]) -> None:
    for seed, step in asked:
        passes = [np.random.default_rng([seed, number]).permutation(7) for number in range(10)]
        expected = np.concatenate(passes)[step * 5 : (step + 1) * 5]
        assert AnchorOrder(7, seed).step(step, 5).tolist() == expected.tolist()


@given(st.integers(1, 4), st.integers(1, 4), st.integers(16, 40))
def test_shares_cover_the_step_disjointly(micros: int, ranks: int, per_step: int) -> None:
    indices = np.arange(per_step)
    parts = [share(indices, micro=m, micros=micros, rank=r, ranks=ranks) for m in range(micros) for r in range(ranks)]
    assert sorted(np.concatenate(parts)) == list(range(per_step))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_fewer_anchors_than_parts_leave_the_last_ones_empty() -> None:
    parts = [share(np.arange(3), micro=m, micros=2, rank=r, ranks=2).tolist() for m in range(2) for r in range(2)]
    assert parts == [[0], [1], [2], []]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=24), st.integers(1, 6), st.integers(0, 3))
def test_anchors_of_one_prompt_follow_one_another(prompts: list[int], together: int, seed: int) -> None:
    """In bundles of `together`, each prompt's last one with what is left, in a shuffled order; each anchor once."""
    codes = np.array(sorted(prompts))
    order = AnchorOrder(len(codes), seed, codes, together).step(0, len(codes))
    assert sorted(order) == list(range(len(codes)))
    runs = [len(list(group)) for _, group in groupby(codes[order])]
    for code in set(prompts):
        count = prompts.count(code)
        assert sum(c == code for c, _ in groupby(codes[order])) <= -(-count // together)
    assert together > 1 or (order == AnchorOrder(len(codes), seed).step(0, len(codes))).all()
    assert len(runs) >= len(set(prompts))


@given(st.integers(1, 4), st.integers(1, 3), st.lists(st.integers(0, 3), min_size=1, max_size=20))
def test_bundles_stay_in_one_micro_batch_and_ranks_have_equally_many(
    micros: int, ranks: int, prompts: list[int]
) -> None:
    indices, codes = np.arange(len(prompts)) + 7, np.array(prompts)
    parts = {
        (r, m): share_bundles(indices, codes, micro=m, micros=micros, rank=r, ranks=ranks).tolist()
        for r in range(ranks)
        for m in range(micros)
    }
    assert sorted(i for own in parts.values() for i in own) == indices.tolist()
    sizes = [sum(len(parts[r, m]) for m in range(micros)) for r in range(ranks)]
    assert max(sizes) - min(sizes) <= 1
    owner = {i: part for part, own in parts.items() for i in own}
    for i in indices[:-1]:
        if prompts[i - 7] == prompts[i - 6] and owner[i][0] == owner[i + 1][0]:
            assert owner[i] == owner[i + 1]


def test_long_prompts_bring_their_anchors_together() -> None:
    assert [together_by_length(p, c) for p, c in ((9, 17), (100, 200), (400, 40), (120, 40), (400, 0))] == [
        1,
        1,
        8,
        3,
        8,
    ]
