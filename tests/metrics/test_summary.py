"""The summary of one evaluation."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest

from dphrl.errors import DataError
from dphrl.metrics.intervals import paired_bootstrap
from dphrl.metrics.per_prompt import per_prompt
from dphrl.metrics.summary import TaskSummary, summarise
from dphrl.types import GREEDY_DRAW, Completion, Verdict

VERDICTS = {
    "+": Verdict(True, 1.0, "correct"),
    "-": Verdict(False, 0.0, "wrong"),
    "v": Verdict(False, None, "verifier_error"),
    "g": Verdict(False, None, "gold_error"),
}


def evaluation(**rows: str) -> list[Completion]:
    """evaluation(a="+/+-v") = greedy right, then three draws; without a slash no greedy completion."""
    completions = []
    for prompt_id, row in rows.items():
        greedy, _, sampled = row.rpartition("/")
        marks = [*zip(greedy, [GREEDY_DRAW], strict=False), *zip(sampled, range(len(sampled)), strict=True)]
        for mark, draw in marks:
            text = "greedy" if draw == GREEDY_DRAW else f"{prompt_id}{draw % 2}"
            completions.append(Completion(prompt_id, draw, (1,), text, "stop", VERDICTS[mark]))
    return completions


def summary(completions: list[Completion], base: list[Completion] | None = None) -> dict[str, Any]:
    """As summary.json holds it; what is read again says the same."""
    found = summarise(
        completions, base=base, solution=str, rng=np.random.default_rng(0), resamples=300, dataset="t", model="m"
    ).to_json()
    assert TaskSummary.from_json(json.loads(json.dumps(found, allow_nan=False))).to_json() == found
    return found


AFTER = evaluation(a="+/+++-", b="-/----", c="+/-+--")
BASE = evaluation(a="+/+---", b="+/+---", c="-/----")


def test_by_hand():
    """mean (3/4 + 0 + 1/4)/3; pass@2 (1 + 0 + 1/2)/3; of a, b the model keeps a; it finds c; a has 2 texts, c has 1."""
    found = summary(AFTER, BASE)
    assert (found["n"], found["prompts"], found["unjudged"], found["excluded"]) == (4, 3, 0, {})
    assert found["greedy"] == pytest.approx(2 / 3) and found["mean_at_n"] == pytest.approx(1 / 3)
    values = {k: interval["value"] for k, interval in found["pass_at_k"].items()}
    assert values == {"1": pytest.approx(1 / 3), "2": pytest.approx(0.5), "4": pytest.approx(2 / 3)}
    assert (found["keep"], found["explore"], found["distinct_correct"]) == (0.5, 1.0, 1.0)
    assert found["retention"] == {"base_solved": 2, "kept": 1, "base_unsolved": 1, "explored": 1}
    assert found["statuses"] == {"correct": 4, "wrong": 8}
    assert found["intervals"]["keep"] == {"value": 0.5, "low": 0.0, "high": 1.0}
    json.dumps(found, allow_nan=False)


def test_keys_are_the_contract():
    design = {"n", "prompts", "greedy", "mean_at_n", "pass_at_k", "keep", "explore", "distinct_correct", "statuses"}
    at_k, shares = {"maj_at_k", "keep_at_k", "explore_at_k"}, {"style_entropy", "truncated", "no_answer"}
    counted = {"intervals", "retention", "unjudged", "excluded", "bands", "length"}
    callers = {"dataset", "model", "seconds", "tokens_per_second", "too_long", "drift", "contaminated"}
    assert set(summary(AFTER, BASE)) == design | counted | at_k | shares | callers
    assert set(summary(AFTER)) == set(summary(AFTER, BASE))


def test_what_is_not_available_is_none():
    found = summary(evaluation(a="+-", b="--"))
    assert found["greedy"] is found["keep"] is found["explore"] is found["retention"] is None
    assert found["intervals"]["keep"] is None
    assert found["intervals"]["greedy"] == {"value": None, "low": None, "high": None}
    nothing_new = summary(evaluation(a="+-"), evaluation(a="++"))
    assert (nothing_new["keep"], nothing_new["explore"]) == (1.0, None)
    json.dumps(found, allow_nan=False)


def test_unjudged_draws_leave_the_n_of_their_prompt():
    """a: 1 of 2 judged; b: judged in full, 1 of 4; c: bad data, in no metric but counted as a prompt."""
    found = summary(evaluation(a="v/+-vv", b="+/-+--", c="g/gggg"))
    assert (found["prompts"], found["unjudged"]) == (3, 6)
    assert found["greedy"] == 1.0 and found["mean_at_n"] == pytest.approx((1 / 2 + 1 / 4) / 2)
    assert {k: x["value"] for k, x in found["pass_at_k"].items()} == {"1": 0.375, "2": 0.75, "4": 1.0}
    assert found["excluded"] == {"1": 1, "2": 1, "4": 2}
    assert found["statuses"] == {"correct": 2, "wrong": 4, "gold_error": 4, "verifier_error": 2}


def test_a_k_that_no_prompt_reaches_is_none():
    found = summary(evaluation(a="+-v-", b="v+--"))
    assert found["pass_at_k"]["4"] == {"value": None, "low": None, "high": None}
    assert found["excluded"] == {"4": 2}


def test_order_of_completions_does_not_matter_and_the_seed_does():
    after, base = list(AFTER), list(BASE)
    random.Random(1).shuffle(after)
    random.Random(2).shuffle(base)
    assert summary(after, base) == summary(AFTER, BASE)
    other = summarise(AFTER, solution=str, rng=np.random.default_rng(5), resamples=7)
    assert other.to_json()["intervals"] != summary(AFTER)["intervals"]


def test_per_prompt_feeds_the_paired_comparison():
    scores = per_prompt(AFTER, solution=str, base=BASE, ks=[1, 3])
    names = ("greedy", "mean_at_n", "pass@1", "pass@3", "distinct_correct", "style_entropy", "tokens", "truncated")
    names += ("no_answer", "keep", "explore", "keep@1", "keep@3", "explore@1", "explore@3")
    assert (scores.ids, scores.names) == (("a", "b", "c"), names)
    np.testing.assert_allclose(scores.column("pass@3"), [1.0, 0.0, 0.75])
    difference = paired_bootstrap(
        scores, per_prompt(BASE, solution=str, base=BASE, ks=[1, 3]), rng=np.random.default_rng(0), resamples=50
    )
    assert difference["pass@1"].value == pytest.approx(1 / 3 - 1 / 6)
    assert difference["keep"].value == -0.5


@pytest.mark.parametrize(
    ("completions", "base", "message"),
    [
        ([], None, "no sampled completion"),
        (evaluation(a="+/"), None, "no sampled completion"),
        (evaluation(a="++", b="+"), None, r"missing; every prompt needs draws 0..1: \('b', draw 1\)"),
        (evaluation(a="+/++", b="++"), None, "lack a greedy completion"),
        (evaluation(a="vg"), None, r"no completion could be judged \(\{'gold_error': 1, 'verifier_error': 1\}\)"),
        (evaluation(a="++"), evaluation(b="++"), "evaluated for one of base and trained only"),
        (evaluation(a="++"), evaluation(a="++++"), r"n=\[2, 4\] draws per prompt differ"),
        ([*evaluation(a="++"), *evaluation(a="+")], None, "come twice"),
    ],
)
def test_bad_input_is_refused(completions, base, message):
    with pytest.raises(DataError, match=message):
        summary(completions, base)


def test_what_a_row_says_besides():
    """Three prompts, draws of 1 token; the base solves a in 1 of 4 (rarely), b in 3 (mostly), c never."""
    base = evaluation(a="+---", b="+++-", c="----")
    found = summary(evaluation(a="++++", b="++--", c="+---"), base)
    assert [(band["band"], band["prompts"], band["keep"] and band["keep"]["value"]) for band in found["bands"]] == [
        ("never", 1, None),
        ("rarely", 1, 1.0),
        ("mostly", 1, 1.0),
    ]
    assert [band["mean_at_n"]["value"] for band in found["bands"]] == [0.25, 1.0, 0.5]
    assert found["length"] == {"mean": {"value": 1.0, "low": 1.0, "high": 1.0}, "p90": 1.0}
    assert found["maj_at_k"] is None and found["truncated"]["value"] == found["no_answer"]["value"] == 0.0
    assert found["keep_at_k"]["1"]["value"] == pytest.approx(1 / 4 * 1 + 3 / 4 * 1 / 2)
    assert {key: found[f"{key}_at_k"]["4"]["value"] for key in ("keep", "explore")} == {
        key: found[key] for key in ("keep", "explore")
    }
    assert summary(base)["bands"] is summary(base)["keep_at_k"] is None
    json.dumps(found, allow_nan=False)


def test_votes_are_counted_where_answers_can_be_compared():
    """a is right whatever wins, b wrong whatever wins."""
    found = summarise(
        evaluation(a="++++", b="----"),
        solution=str,
        answer=lambda text: text,
        rng=np.random.default_rng(0),
        resamples=100,
    )
    assert found.maj_at_k is not None and {k: x.value for k, x in found.maj_at_k.items()} == {1: 0.5, 2: 0.5, 4: 0.5}


def test_lengths_of_unknown_tokens_are_unknown_and_ends_are_shares():
    cut = [Completion("a", d, (), f"{d}", "length" if d < 3 else "stop", VERDICTS["-"]) for d in range(4)]
    silent = Completion("a", 4, (), "", "stop", Verdict(False, 0.0, "no_answer"))
    found = summarise([*cut, silent], solution=str, rng=np.random.default_rng(0), resamples=100)
    assert found.length is None and found.truncated.value == 0.6 and found.no_answer.value == 0.2


def test_a_rate_that_all_prompts_share_has_an_interval_with_a_width():
    """Two prompts: Clopper and Pearson's [0.025 ** (1/2), 1]; keep rests on the one prompt that the base solved."""
    found = summary(evaluation(a="+/++", b="+/++"), evaluation(a="-/+-", b="-/--"))
    assert found["intervals"]["greedy"] == {"value": 1.0, "low": pytest.approx(0.025**0.5), "high": 1.0}
    assert found["intervals"]["keep"] == {"value": 1.0, "low": pytest.approx(0.025), "high": 1.0}
    assert found["keep_at_k"]["2"] == found["intervals"]["keep"]


def test_k_beyond_the_draws_is_refused():
    with pytest.raises(ValueError, match="k=5 needs 1 <= k <= n=4; draw at least 5"):
        per_prompt(AFTER, solution=str, ks=[1, 5])


OLD_ROW = {
    "dataset": "t",
    "n": 2,
    "prompts": 3,
    "mean_at_n": 0.5,
    "pass_at_k": {"1": {"value": 0.5, "low": 0, "high": 1}},
}


def test_a_row_of_an_earlier_version_is_read_and_what_it_lacks_is_unknown():
    old = TaskSummary.from_json(OLD_ROW)
    assert (old.value("pass@1"), old.value("mean_at_n")) == (0.5, 0.5)
    for metric in ("keep", "pass@n", "maj@1", "tokens", "truncated"):
        assert old.value(metric) is None
    assert old.bands is old.drift is old.contaminated is None and old.intervals == {}
    assert {key: value for key, value in old.to_json().items() if key in OLD_ROW} == OLD_ROW


def test_keys_that_dphrl_does_not_know_are_kept():
    row = TaskSummary.from_json(OLD_ROW).with_facts({"seconds": 2.0, "theirs": {"x": [1]}})
    assert row.seconds == 2.0 and row.to_json()["theirs"] == {"x": [1]}
    assert TaskSummary.from_json(row.to_json()) == row


@pytest.mark.parametrize("lacking", ["dataset", "n", "prompts"])
def test_a_row_without_these_is_none(lacking):
    with pytest.raises(KeyError, match=lacking):
        TaskSummary.from_json({key: value for key, value in OLD_ROW.items() if key != lacking})
