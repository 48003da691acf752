"""Each rule of docs/verifiers.md and decision 59 by answers that are paid and answers that are not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from math_rules import RULES

from dphrl.verifiers.math.verify_math import verify_math


@pytest.mark.parametrize("rule", RULES)
def test_rule(rule: str) -> None:
    pairs = [
        (gold, answer, wanted)
        for gold, paid, unpaid in RULES[rule]
        for answers, wanted in (((gold, *paid), "correct"), (unpaid, "wrong"))
        for answer in answers
    ]
    verdicts = verify_math([{"gold": gold, "completion": rf"\boxed{{{answer}}}"} for gold, answer, _ in pairs])
    judged = zip(pairs, verdicts, strict=True)
    assert [(*pair, verdict.status) for pair, verdict in judged if verdict.status != pair[2]] == []


def test_cases_found_elsewhere(shared_data: Path) -> None:
    """Answers found to be judged wrongly once; those that only the question can decide stand without it there."""
    file = shared_data.parent / "cases" / "verifiers" / "math.jsonl"
    if not file.is_file():
        pytest.skip(f"{file} is not there: the cases are not shipped with the project")
    cases = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    asked = [case for case in cases if "only the prompt" not in case["why"] or "prompt" in case]
    verdicts = verify_math(asked)
    judged = zip(asked, verdicts, strict=True)
    assert [(case["id"], verdict.status) for case, verdict in judged if verdict.status != case["expected"]] == []
