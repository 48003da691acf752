"""Majority voting against every subset, counted one by one."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from statistics import mean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dphrl.metrics import voting
from dphrl.metrics.voting import majority
from dphrl.types import Completion, Verdict

RIGHT, WRONG, UNJUDGED = Verdict(True, 1.0, "correct"), Verdict(False, 0.0, "wrong"), Verdict(False, None, "gold_error")
GOLD = "a"


def draws(answers: str) -> list[Completion]:
    """One completion a letter: a is right, - gives no answer, ? could not be judged."""
    verdicts = {GOLD: RIGHT, "?": UNJUDGED}
    return [Completion("p", d, (), x, "stop", verdicts.get(x, WRONG)) for d, x in enumerate(answers)]


def maj(answers: str, ks: list[int], seed: int = 0) -> list[float]:
    """maj@k of one prompt."""
    answer = lambda text: None if text == "-" else text  # noqa: E731
    return majority({"p": draws(answers)}, answer, ks, rng=np.random.default_rng(seed)).values_PM[0].tolist()


def by_hand(answers: str, k: int) -> float:
    """Mean over all subsets; a tie of m answers gives each 1/m."""

    def won(votes: tuple[str, ...]) -> float:
        counts = Counter(vote for vote in votes if vote != "-")
        lead = [x for x, count in counts.items() if count == max(counts.values())]
        return lead.count(GOLD) / len(lead) if lead else 0.0

    return mean(won(votes) for votes in combinations(answers, k))


@given(st.text("abc-", min_size=1, max_size=8))
@settings(deadline=None, max_examples=60)
def test_agrees_with_every_subset(answers):
    ks = list(range(1, len(answers) + 1))
    assert maj(answers, ks) == pytest.approx([by_hand(answers, k) for k in ks])


def test_one_or_two_votes_are_worth_the_mean():
    """A tie of two is decided by chance, so without abstentions a second vote changes nothing: 3 of 7."""
    assert maj("aaabbcd", [1, 2]) == pytest.approx([3 / 7, 3 / 7])


def test_a_plurality_is_enough_and_a_closed_form_holds():
    """aab, three of three: a wins. aabb + c: k = 4 leaves out one of 5: without c a tie (1/2), without an a b wins (0),
    without a b a wins (1): (1/2 + 2 * 0 + 2 * 1) / 5."""
    assert maj("aab", [3]) == [1.0]
    assert maj("aabbc", [4]) == pytest.approx([(0.5 + 0 + 2) / 5])


def test_unjudged_draws_leave_and_too_few_are_nan():
    found = maj("a?b?", [1, 2, 3])
    assert found[:2] == [0.5, 0.5] and np.isnan(found[2])
    assert maj("??", [1])[0] != maj("--", [1])[0] == 0.0


def test_many_draws_are_estimated_without_bias(monkeypatch):
    """40 draws, 16 right, 24 over 3 answers: at k = 5, against draws one by one and against all subsets."""
    answers = "a" * 16 + "b" * 10 + "c" * 8 + "d" * 6
    rng = np.random.default_rng(0)
    slow = mean(by_hand("".join(rng.permutation(list(answers))[:5]), 5) for _ in range(8000))
    found = mean(maj(answers, [5], seed)[0] for seed in range(40))  # 40 x 256 subsets
    assert found == pytest.approx(slow, abs=0.02)  # four standard errors of both
    monkeypatch.setattr(voting, "SUBSETS", 10**6)
    assert maj(answers, [5])[0] == pytest.approx(slow, abs=0.02)  # all 658,008 subsets


def test_the_order_of_draws_does_not_matter_and_rows_follow_the_ids():
    mine = {"q": draws("aab"), "p": draws("bba")}
    found = majority(mine, str, [2, 3], rng=np.random.default_rng(0))
    again = majority({i: c[::-1] for i, c in mine.items()}, str, [2, 3], rng=np.random.default_rng(0))
    assert found.ids == ("p", "q") and found.names == ("maj@2", "maj@3")
    assert found.values_PM.tolist() == again.values_PM.tolist()
    assert found.column("maj@3").tolist() == [0.0, 1.0]
