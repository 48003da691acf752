"""Entropy and divergences from log-probabilities of drawn tokens, against sums over the vocabulary."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dphrl.metrics.kl import drift_from_base, summed_k3

MODEL, BASE = np.array([0.7, 0.2, 0.1]), np.array([0.3, 0.3, 0.4])


def kl(p: np.ndarray, q: np.ndarray) -> float:
    """Over the whole vocabulary."""
    return float((p * np.log(p / q)).sum())


def drawn(by: np.ndarray, other: np.ndarray, tokens: int) -> tuple[list[float], list[float]]:
    """Every token exactly as often as its probability says, so that means are expectations."""
    picks = np.repeat(np.arange(3), (by * tokens).round().astype(int))
    return np.log(by)[picks].tolist(), np.log(other)[picks].tolist()


def test_means_are_the_entropy_and_the_two_divergences():
    """One prompt of 10 tokens and one of 1,000: tokens count alike, wherever they stand."""
    own = {"a": [drawn(MODEL, BASE, 10)], "b": [drawn(MODEL, BASE, 1000)]}
    bases = {"a": [drawn(BASE, MODEL, 10)], "b": [drawn(BASE, MODEL, 500), drawn(BASE, MODEL, 500)]}
    found = drift_from_base(own, bases, draws=4, rng=np.random.default_rng(0), resamples=100)
    assert found.entropy.value == pytest.approx(-float((MODEL * np.log(MODEL)).sum()))
    assert found.reverse_kl.value == pytest.approx(kl(MODEL, BASE))
    assert found.forward_kl.value == pytest.approx(kl(BASE, MODEL))
    assert set(found.estimator) == {"entropy", "reverse_kl", "forward_kl"}


def test_the_base_has_an_entropy_only():
    own = {"a": [([-0.5, -1.5], [-0.5, -1.5])]}
    found = drift_from_base(own, None, draws=4, rng=np.random.default_rng(0), resamples=10)
    assert found.entropy.value == 1.0 and found.reverse_kl is found.forward_kl is None
    assert set(found.estimator) == {"entropy"}


def test_tokens_are_weighted_not_prompts():
    """-logp 1 over 3 tokens and 5 over one: (3 + 5) / 4; a prompt without tokens does not count."""
    own = {"a": [([-1.0] * 3, [-1.0] * 3)], "b": [([-5.0], [-5.0])], "c": []}
    assert drift_from_base(own, None, draws=4, rng=np.random.default_rng(0), resamples=10).entropy.value == 2.0


@given(st.lists(st.tuples(st.floats(-900, 0), st.floats(-900, 0)), min_size=1, max_size=5))
def test_k3_is_never_negative_and_stays_a_number(pairs):
    ours, theirs = zip(*pairs, strict=True)
    assert 0.0 <= summed_k3(ours, theirs) < math.inf
    assert summed_k3(ours, ours) == 0.0
