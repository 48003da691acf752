"""Verdict counts -> sets and anchors."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dphrl.errors import DataError, EmptyAnchorStore
from dphrl.partition import Counts, count, decide, require_near_perfect, select, split
from dphrl.types import GREEDY_DRAW, Completion, Partition, Verdict

VERDICTS = {
    "+": Verdict(True, 1.0, "correct"),
    "-": Verdict(False, 0.0, "wrong"),
    "t": Verdict(False, 0.0, "timeout", "5 s"),
    "v": Verdict(False, None, "verifier_error", "worker died"),
    "g": Verdict(False, None, "gold_error", "gold fails"),
    "l": Verdict(True, 1.0, "correct"),  # right, but cut at the token limit
}


def draws(**marks: str) -> list[Completion]:
    """draws(a="+-v") = three completions of prompt a: right, wrong, unjudged."""
    return [
        Completion(prompt_id, draw, (draw,), mark, "length" if mark == "l" else "stop", VERDICTS[mark])
        for prompt_id, row in marks.items()
        for draw, mark in enumerate(row)
    ]


def test_four_prompts_by_hand():
    """threshold 2 of 3: a has 3 right, b exactly 2, c 1, d none."""
    completions = draws(a="+++", b="+t+", c="+--", d="---")
    assert split("abcd", completions, threshold=2, presamples=3) == Partition(("a", "b"), ("c", "d"), {})


def test_unjudged_draws_matter_only_where_they_could_change_the_set():
    """threshold 3 of 4. a: 3 right already. b: 1 right + 1 unjudged < 3. c: 2 + 1 = 3 could be reached. d: bad data."""
    completions = draws(a="+++v", b="+v--", c="++v-", d="+++g")
    partition = split("abcd", completions, threshold=3, presamples=4)
    assert (partition.near_perfect, partition.exploration) == (("a",), ("b",))
    assert partition.dropped == {
        "c": "could not be judged: 2 right and 1 unjudged of 4 draws, near-perfect from 3; verifier_error: worker died",
        "d": "gold_error: gold fails",
    }


def test_the_debiasing_draw_decides():
    completions = draws(a="+++", b="++-", c="++l", d="++t", e="++v", f="++g", h="--+", i="--")
    after = select("abcdefhi", completions, threshold=2, presamples=2)
    assert after.partition.near_perfect == ("a",)
    assert after.partition.exploration == ("b", "c", "d", "h", "i")
    assert after.partition.dropped == {
        "e": "could not be judged: debiasing draw; verifier_error: worker died",
        "f": "could not be judged: debiasing draw; gold_error: gold fails",
    }
    assert {i: c.draw for i, c in after.anchors.items()} == {"a": 2}


def test_a_failed_debiasing_draw_may_drop_the_prompt():
    completions = draws(a="+++", b="++-", c="++l", d="++t", h="--+")
    after = select("abcdh", completions, threshold=2, presamples=2, failed_debias="drop")
    assert (after.partition.near_perfect, after.partition.exploration) == (("a",), ("h",))
    assert after.partition.dropped == {
        "b": "debiasing draw failed; wrong",
        "c": "debiasing draw was cut at the token limit",
        "d": "debiasing draw failed; timeout: 5 s",
    }


def test_without_debias_the_anchor_is_the_first_right_finished_presample():
    completions = draws(a="-l+++", b="lll--", c="----+")
    after = select("abc", completions, threshold=3, presamples=5, debias=False)
    assert {i: c.draw for i, c in after.anchors.items()} == {"a": 2}
    assert after.partition == Partition(("a",), ("b", "c"), {})
    kept = select("abc", completions, threshold=3, presamples=5, debias=False, failed_debias="drop")
    assert kept == after, "failed_debias speaks of the debiasing draw only"


@given(
    rows=st.lists(st.text("+-tvgl", min_size=5, max_size=5), min_size=1, max_size=8),
    threshold=st.integers(1, 4),
    debias=st.booleans(),
    failed=st.sampled_from(["exploration", "drop"]),
    seed=st.integers(0, 9),
)
@settings(deadline=None)
def test_sets_cover_are_disjoint_keep_order_and_ignore_the_order_of_completions(rows, threshold, debias, failed, seed):
    marks = {f"p{9 - i}": row for i, row in enumerate(rows)}
    completions = draws(**marks)
    options = {"threshold": threshold, "presamples": 4, "debias": debias, "failed_debias": failed}
    after = select(list(marks), completions, **options)
    sets = [after.partition.near_perfect, after.partition.exploration, tuple(after.partition.dropped)]
    assert sorted(i for ids in sets for i in ids) == sorted(marks)
    assert all(list(ids) == sorted(ids, reverse=True) for ids in sets), "the order of the prompts given"
    assert tuple(after.anchors) == after.partition.near_perfect
    for prompt_id, anchor in after.anchors.items():
        assert anchor.prompt_id == prompt_id and anchor.text == "+" and (anchor.draw == 4) == debias
        assert sum(mark in "+l" for mark in marks[prompt_id][:4]) >= threshold
    random.Random(seed).shuffle(completions)
    assert select(list(marks), completions, **options) == after


@given(st.text("+-v", min_size=6, max_size=6), st.integers(1, 6))
@settings(deadline=None)
def test_decide_agrees_with_every_way_the_unjudged_draws_could_have_gone(row, threshold):
    """Decided exactly when all completions of the row agree."""
    worst, best = (sum(m == "+" for m in row.replace("v", to)) >= threshold for to in "-+")
    expected = {(True, True): "near_perfect", (False, False): "exploration", (False, True): None}[worst, best]
    assert decide(count(draws(a=row), n=6)["a"], threshold=threshold) == expected


def test_counts_leave_out_unjudged_greedy_and_later_draws():
    greedy = Completion("a", GREEDY_DRAW, (1,), "", "stop", VERDICTS["+"])
    counts = count([greedy, *draws(a="+vg-+", b="+tl++")], n=4)
    assert counts == {"a": Counts(4, 2, 1), "b": Counts(4, 4, 3)}


def without_verdict(completions: Iterable[Completion]) -> list[Completion]:
    return [Completion(c.prompt_id, c.draw, c.token_ids, c.text, c.finish_reason) for c in completions]


@pytest.mark.parametrize(
    ("ids", "completions", "message"),
    [
        ("aa", draws(a="++"), "1 prompt ids come twice.*'a'"),
        ("ab", draws(a="++"), r"missing; every prompt needs draws 0..1: \('b', draw 0\), \('b', draw 1\)$"),
        ("a", [*draws(a="++"), *draws(a="+")], r"come twice.*\('a', draw 0\)"),
        ("a", draws(a="++", b="++"), "unknown: 'b'"),
        ("a", draws(a="++++"), r"outside 0..2.*\('a', draw 3\)"),
        ("a", [*draws(a="++"), Completion("a", GREEDY_DRAW, (1,), "", "stop", VERDICTS["+"])], r"\('a', draw -1\)"),
        ("a", without_verdict(draws(a="++")), "no verdict; verify them first"),
        ("abcd", [], r"8 completions are missing.*\('a', draw 0\), \('a', draw 1\), \('b', draw 0\) and 5 more"),
        ("ab", draws(a="++", b="--"), r"1 debiasing draws are missing.*\('a', draw 2\)"),
    ],
)
def test_ids_that_do_not_join_are_named(ids, completions, message):
    with pytest.raises(DataError, match=message):
        select(ids, completions, threshold=2, presamples=2)


@pytest.mark.parametrize("threshold", [0, 3])
def test_a_threshold_out_of_range_is_refused(threshold):
    with pytest.raises(ValueError, match=rf"threshold={threshold} must be in 1..presamples=2"):
        split("a", draws(a="++"), threshold=threshold, presamples=2)
    with pytest.raises((ValueError, TypeError), match="failed_debias"):  # TypeError under jaxtyping
        select("a", draws(a="+++"), threshold=2, presamples=2, failed_debias="explore")


def test_an_empty_near_perfect_set_is_an_error_only_where_anchors_are_needed():
    partition = split("ab", draws(a="+-", b="g-"), threshold=2, presamples=2)
    with pytest.raises(
        EmptyAnchorStore, match=r"threshold=2 of presamples=2: 1 prompts in exploration, 1 dropped; lower"
    ):
        require_near_perfect(partition, threshold=2, presamples=2)
    require_near_perfect(Partition(("a",), (), {}), threshold=2, presamples=2)
