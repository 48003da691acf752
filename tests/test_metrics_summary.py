"""The summary of one evaluation."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from dphrl.errors import DataError
from dphrl.metrics import paired_bootstrap, per_prompt, summarise
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


def summary(completions: list[Completion], base: list[Completion] | None = None) -> dict[str, object]:
    return summarise(completions, base=base, solution=str, rng=np.random.default_rng(0), resamples=300)


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
    assert set(summary(AFTER, BASE)) == design | {"intervals", "retention", "unjudged", "excluded"}
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
    assert other["intervals"] != summary(AFTER)["intervals"]


def test_per_prompt_feeds_the_paired_comparison():
    scores = per_prompt(AFTER, solution=str, base=BASE, ks=[1, 3])
    names = ("greedy", "mean_at_n", "pass@1", "pass@3", "distinct_correct", "style_entropy", "keep", "explore")
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


def test_k_beyond_the_draws_is_refused():
    with pytest.raises(ValueError, match="k=5 needs 1 <= k <= n=4; draw at least 5"):
        per_prompt(AFTER, solution=str, ks=[1, 5])
