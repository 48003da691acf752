"""Verdict counts -> sets and anchors."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dphrl.errors import DataError, EmptyAnchorStore
from dphrl.method.partition import Rules, Selection, extra_draws, looked_at, require_anchors, select, standing, wanted
from dphrl.method.verdict_counts import Counts, count
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


def rules(threshold: int, presamples: int, **other: Any) -> Rules:
    return Rules(threshold=threshold, presamples=presamples, **other)


def taken(selection: Selection) -> dict[str, list[int]]:
    return {i: [c.draw for c in candidates] for i, candidates in selection.candidates.items()}


def test_four_prompts_by_hand():
    """threshold 2 of 3: a has 3 right, b exactly 2, c 1, d none."""
    completions = draws(a="+++", b="+t+", c="+--", d="---")
    after = select("abcd", completions, rules(2, 3, debias=False))
    assert after.partition == Partition(("a", "b"), ("c", "d"), {})
    assert taken(after) == {"a": [0, 1], "b": [0, 2]}, "draw 2 of a came after its set was settled"


def test_unjudged_draws_matter_only_where_they_could_change_the_set():
    """threshold 3 of 4. a: 3 right already. b: 1 right + 1 unjudged < 3. c: 2 + 1 = 3 could be reached. d: bad data
    before the set was settled, e: after three right draws had shown that the data is fine."""
    completions = draws(a="+++v", b="+v--", c="++v-", d="++g+", e="+++g")
    partition = select("abcde", completions, rules(3, 4, debias=False)).partition
    assert (partition.near_perfect, partition.exploration) == (("a", "e"), ("b",))
    assert partition.dropped == {
        "c": "could not be judged: 2 right and 1 unjudged of 4 draws, near-perfect from 3; verifier_error: worker died",
        "d": "gold_error: gold fails",
    }


def test_the_debiasing_draw_decides():
    completions = draws(a="+++", b="++-", c="++l", d="++t", e="++v", f="++g", h="--+", i="--")
    after = select("abcdefhi", completions, rules(2, 2))
    assert after.partition.near_perfect == ("a",)
    assert after.partition.exploration == ("b", "c", "d", "h", "i")
    assert after.partition.dropped == {
        "e": "could not be judged: debiasing draw; verifier_error: worker died",
        "f": "could not be judged: debiasing draw; gold_error: gold fails",
    }
    assert taken(after) == {"a": [2]}


def test_a_failed_debiasing_draw_may_drop_the_prompt():
    completions = draws(a="+++", b="++-", c="++l", d="++t", h="--+")
    after = select("abcdh", completions, rules(2, 2, failed_debias="drop"))
    assert (after.partition.near_perfect, after.partition.exploration) == (("a",), ("h",))
    assert after.partition.dropped == {
        "b": "debiasing draw failed; wrong",
        "c": "debiasing draw was cut at the token limit",
        "d": "debiasing draw failed; timeout: 5 s",
    }


def test_without_debias_the_candidates_are_the_right_finished_presamples_that_settled_it():
    completions = draws(a="-l+++", b="lll--", c="---")
    after = select("abc", completions, rules(3, 5, debias=False))
    assert taken(after) == {"a": [2, 3]}
    assert after.partition == Partition(("a",), ("b", "c"), {})
    kept = select("abc", completions, rules(3, 5, debias=False, failed_debias="drop"))
    assert kept == after, "failed_debias speaks of the debiasing draw only"


def test_more_anchors_of_a_prompt_come_from_further_extra_draws():
    several = rules(2, 2, per_prompt=3)
    completions = draws(a="+++-+", b="++-", c="++++l")
    assert taken(select("abc", completions, several)) == {"a": [2, 4], "c": [2, 3]}
    assert wanted(dict(enumerate(draws(a="+++"))), several) == (3, 4)
    with pytest.raises(DataError, match=r"2 completions are missing.*\('a', draw 3\), \('a', draw 4\)"):
        select("a", draws(a="+++"), several)


def test_right_draws_of_any_prompt_leave_the_sets_as_they_are():
    """threshold 2 of 3. a: settled by its first two draws. b: one right of three. d: bad data gives no anchor."""
    completions = draws(a="++l+", b="-+-", c="---", d="+g")
    paper, wide = (select("abcd", completions, rules(2, 3, source=source)) for source in ("near_perfect", "correct"))
    assert paper.partition == wide.partition
    assert paper.partition == Partition(("a",), ("b", "c"), {"d": "gold_error: gold fails"})
    assert (taken(paper), taken(wide)) == ({"a": [3]}, {"a": [0, 1], "b": [1]})


def test_full_counts_ask_for_all_presamples_and_widen_the_candidates_only():
    early, full = (rules(2, 4, source="correct", debias=False, full_counts=f) for f in (False, True))
    assert wanted({}, early) == (0, 1) and wanted({}, full) == (0, 1, 2, 3)
    completions = draws(a="++-+", b="---+")
    assert taken(select("ab", completions, early)) == {"a": [0, 1]}
    assert taken(select("ab", completions, full)) == {"a": [0, 1, 3], "b": [3]}
    assert select("ab", completions, full).partition == select("ab", completions, early).partition


def by_waves(row: dict[int, Completion], of: Rules) -> tuple[dict[int, Completion], int]:
    """What a prompt has when nothing more is wanted of it, and how many waves that took."""
    mine: dict[int, Completion] = {}
    waves = 0
    while more := wanted(mine, of):
        assert not set(more) & set(mine), "a draw is asked for once"
        mine |= {draw: row[draw] for draw in more}
        waves += 1
    return mine, waves


def check_stopping(marks: str, of: Rules) -> None:
    """Early stopping gives what drawing everything gives, and spares what can be spared."""
    row = dict(enumerate(draws(a=marks)))
    mine, waves = by_waves(row, of)
    whole, early = (select("a", d.values(), of) for d in (row, mine))
    assert whole == early
    assert looked_at(row, of) == looked_at(mine, of) and extra_draws(row, of) == extra_draws(mine, of)
    assert waves <= of.presamples + 2
    presamples = sum(draw < of.presamples for draw in mine)
    one_by_one = standing(row, of).counts.drawn
    assert presamples == one_by_one or "g" in marks, "as few as drawing one by one"


def reference(marks: str, threshold: int) -> str:
    """The set by counting all presamples, bad data aside."""
    right, unjudged = sum(m in "+l" for m in marks), marks.count("v")
    return "near_perfect" if right >= threshold else "dropped" if right + unjudged >= threshold else "exploration"


@pytest.mark.parametrize("presamples", [1, 2, 3, pytest.param(4, marks=pytest.mark.slow)])
def test_stopping_early_changes_nothing_for_every_threshold_and_sequence(presamples):
    for threshold in range(1, presamples + 1):
        for marks in map("".join, itertools.product(*["+-vg"] * presamples, "+-vgl")):
            check_stopping(marks, rules(threshold, presamples))
            if "g" not in marks:
                place = standing(dict(enumerate(draws(a=marks))), rules(threshold, presamples)).place or "dropped"
                assert place == reference(marks[:presamples], threshold)


@given(st.data())
@settings(deadline=None, max_examples=150)
def test_stopping_early_changes_nothing_under_any_rules(data):
    presamples = data.draw(st.integers(1, 16))
    per_prompt = data.draw(st.integers(1, 4))
    marks = data.draw(st.text("++++--tvgl", min_size=presamples + per_prompt, max_size=presamples + per_prompt))
    of = rules(
        data.draw(st.integers(1, presamples)),
        presamples,
        per_prompt=per_prompt,
        debias=data.draw(st.booleans()),
        failed_debias=data.draw(st.sampled_from(["exploration", "drop"])),
        source=data.draw(st.sampled_from(["near_perfect", "correct"])),
    )
    check_stopping(marks, of)
    full = replace(of, full_counts=True)
    mine, _ = by_waves(dict(enumerate(draws(a=marks))), full)
    assert select("a", mine.values(), full).partition == select("a", draws(a=marks), of).partition


@given(st.text("+-vg", min_size=6, max_size=6), st.integers(1, 6), st.integers(0, 6))
@settings(deadline=None)
def test_a_set_is_settled_exactly_when_no_further_draw_could_change_it(row, threshold, drawn):
    """Among rows that agree in the first draws, all agree in the set as soon as it is settled, and not before."""
    of = rules(threshold, 6)
    now = standing(dict(enumerate(draws(a=row[:drawn]))), of)
    rest = 6 - now.counts.drawn
    ends = {standing(dict(enumerate(draws(a=row[: now.counts.drawn] + end * rest))), of).place for end in "+-g"}
    assert (len(ends) == 1) == (now.place is not None) or (rest == 0 and now.place is None)


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
    of = rules(threshold, 4, debias=debias, failed_debias=failed)
    after = select(list(marks), completions, of)
    sets = [after.partition.near_perfect, after.partition.exploration, tuple(after.partition.dropped)]
    assert sorted(i for ids in sets for i in ids) == sorted(marks)
    assert all(list(ids) == sorted(ids, reverse=True) for ids in sets), "the order of the prompts given"
    assert tuple(after.candidates) == after.partition.near_perfect
    for prompt_id, (anchor, *_) in after.candidates.items():
        assert anchor.prompt_id == prompt_id and anchor.text == "+" and (anchor.draw == 4) == debias
        assert sum(mark in "+l" for mark in marks[prompt_id][:4]) >= threshold
    random.Random(seed).shuffle(completions)
    assert select(list(marks), completions, of) == after


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
        ("ab", draws(a="++"), r"2 completions are missing.*: \('a', draw 2\), \('b', draw 0\)$"),
        ("a", [*draws(a="++"), *draws(a="+")], r"come twice.*\('a', draw 0\)"),
        ("a", draws(a="++", b="++"), "unknown: 'b'"),
        ("a", [*draws(a="++"), Completion("a", GREEDY_DRAW, (1,), "", "stop", VERDICTS["+"])], r"\('a', draw -1\)"),
        ("a", without_verdict(draws(a="++")), "no verdict; verify them first"),
        ("abcd", [], r"4 completions are missing.*\('a', draw 0\), \('b', draw 0\), \('c', draw 0\) and 1 more"),
        ("ab", draws(a="++", b="--"), r"1 completions are missing.*\('a', draw 2\)"),
    ],
)
def test_ids_that_do_not_join_are_named(ids, completions, message):
    with pytest.raises(DataError, match=message):
        select(ids, completions, rules(2, 2))


@pytest.mark.parametrize(
    ("of", "message"),
    [
        ({"threshold": 0}, r"threshold=0 must be in 1..presamples=2"),
        ({"threshold": 3}, r"threshold=3 must be in 1..presamples=2"),
        ({"failed_debias": "explore"}, "failed_debias"),
        ({"source": "right"}, "source"),
        ({"per_prompt": 0}, "per_prompt=0"),
    ],
)
def test_rules_out_of_range_are_refused(of, message):
    with pytest.raises((ValueError, TypeError), match=message):  # TypeError under jaxtyping
        Rules(**{"threshold": 2, "presamples": 2, **of})


def test_no_candidate_is_an_error_only_where_anchors_are_needed():
    of = rules(2, 2)
    with pytest.raises(
        EmptyAnchorStore,
        match=r"^no near-perfect prompt at threshold=2 of presamples=2: 0 prompts near-perfect, 1 in exploration, 1 dr",
    ):
        require_anchors(select("ab", draws(a="+-", b="g-"), of), of)
    require_anchors(select("a", draws(a="+++"), of), of)
    with pytest.raises(EmptyAnchorStore, match=r"^keep set 'x': no right, finished draw"):
        wide = rules(2, 2, source="correct")
        require_anchors(select("a", draws(a="-l"), wide), wide, "keep set 'x': ")
