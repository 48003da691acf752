"""Anchors, the stream of anchors over steps, and scoring; the store is in test_anchors_store.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dphrl.config.load import build_config
from dphrl.method.anchor_order import share, step_anchors
from dphrl.models.fingerprint import fingerprint
from dphrl.models.policy import load_policy
from dphrl.models.scoring import pad_sequences, score
from dphrl.types import Anchor


def test_an_anchor_has_a_logp_for_each_token() -> None:
    with pytest.raises(ValueError, match="2 completion tokens and 1"):
        Anchor("a", (1,), (2, 3), (-1.0,))


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


def test_fewer_anchors_than_parts_are_refused() -> None:
    with pytest.raises(ValueError, match="anchors_per_step=3"):
        share(np.arange(3), micro=0, micros=2, rank=0, ranks=2)


def test_padding_is_trl_s_prompts_left_completions_right() -> None:
    ids, mask, completion = pad_sequences([[1, 2], [3]], [[4], [5, 6]], 0)
    assert ids.tolist() == [[1, 2, 4, 0], [0, 3, 5, 6]]
    assert mask.tolist() == [[1, 1, 1, 0], [0, 1, 1, 1]]
    assert completion.tolist() == [[1, 0], [1, 1]]


def test_scores_agree_with_a_plain_forward_whatever_the_batch() -> None:
    config = build_config({"model": {"path": "demo", "device": "cpu"}, "sampling": {"temperature": 0.7}})
    policy = load_policy(config)
    rng = np.random.default_rng(0)
    prompts = [rng.integers(3, 60, size=n).tolist() for n in (3, 9, 5, 1)]
    completions = [rng.integers(3, 60, size=n).tolist() for n in (7, 2, 1, 12)]
    expected = []
    for prompt, completion in zip(prompts, completions, strict=True):
        with torch.no_grad():
            logits = policy.model(torch.tensor([prompt + completion])).logits[0] / 0.7
        logps = logits.log_softmax(-1)[len(prompt) - 1 : -1]
        expected.append(logps.gather(1, torch.tensor(completion)[:, None])[:, 0].tolist())
    for batch_size in (1, 3, 4):
        found = score(policy.model, prompts, completions, pad_id=0, temperature=0.7, batch_size=batch_size)
        for mine, theirs in zip(found, expected, strict=True):
            assert mine.logps == pytest.approx(theirs, abs=2e-5)


def test_the_fingerprint_follows_weights_tokenizer_and_temperature() -> None:
    config = build_config({"model": {"path": "demo", "device": "cpu"}})
    policy = load_policy(config)
    first = fingerprint(policy, config)
    policy.tokenizer(["a b", "a"], padding=True)  # a call leaves padding state in the tokenizer
    assert fingerprint(load_policy(config), config) == first == fingerprint(policy, config)
    warmer = build_config({"model": {"path": "demo", "device": "cpu"}, "sampling": {"temperature": 0.5}})
    assert fingerprint(policy, warmer)["temperature"] != first["temperature"]
    with torch.no_grad():
        next(policy.model.parameters())[0, 0] += 1e-3
    assert fingerprint(policy, config)["weights"] != first["weights"]
