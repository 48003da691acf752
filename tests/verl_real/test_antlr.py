"""One verdict whatever the antlr: 4.9.3, which verl's hydra needs, and the others that the parser is built for.

The Makefile lays the others beside the environment, `.venv-verl/antlr/VERSION`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from math_tables import DIFFERENT, EQUAL, TINY

from dphrl.verifiers.math.final_answer import extract_answer, extract_gold
from dphrl.verifiers.math.verify_math import MAX_ANSWER

SCRIPT = Path(__file__).with_name("antlr_readings.py")
OTHERS = Path(sys.prefix) / "antlr"
TABLES = [*EQUAL, *DIFFERENT, *TINY]
NEIGHBOURS = 1
"""Answers of the rows below that each gold of the tables is judged against, beside its own."""
CASES = Path(__file__).parents[3] / "shared" / "cases" / "verifiers" / "math.jsonl"


def pairs() -> list[tuple[str, str]]:
    """The tables' own pairs first, then golds with answers of other rows, then cases that were found elsewhere."""
    answers = [answer for _, answer in TABLES]
    crossed = [
        (gold, answers[(row + step) % len(answers)])
        for step in range(1, NEIGHBOURS + 1)
        for row, (gold, _) in enumerate(TABLES)
    ]
    cases = [json.loads(line) for line in CASES.read_text("utf-8").splitlines()] if CASES.is_file() else []
    found = [(extract_gold(case["gold"]), extract_answer(case["completion"])) for case in cases]
    return [*TABLES, *crossed, *(pair for pair in found if all(0 < len(text) <= MAX_ANSWER for text in pair))]


@cache
def under(path: str) -> dict[str, Any]:
    """What `antlr_readings.py` says with another antlr first on the path; '' = the one installed."""
    asked = {"texts": sorted({text for pair in pairs() for text in pair}), "pairs": pairs()}
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [path, os.environ.get("PYTHONPATH")]))}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", SCRIPT],
        input=json.dumps(asked), capture_output=True, text=True, timeout=300, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    return said | {"readings": dict(zip(asked["texts"], said["readings"], strict=True))}


def test_verdicts_under_verls_antlr_are_those_of_the_tables() -> None:
    assert under("")["antlr"] == "4.9.3"
    wanted = ["correct"] * len(EQUAL) + ["wrong"] * (len(DIFFERENT) + len(TINY))
    judged = zip(TABLES, under("")["verdicts"], wanted, strict=False)  # the tables come first
    assert [(pair, verdict) for pair, verdict, want in judged if verdict != want] == []


@pytest.mark.parametrize("version", ["4.11.1", "4.13.2"])
def test_readings_and_verdicts_are_the_same_under_another_antlr(version: str) -> None:
    here, there = under(""), under(str(OTHERS / version))
    assert there["antlr"] == version
    differing = {text: (read, there["readings"][text]) for text, read in here["readings"].items()}
    assert {text: both for text, both in differing.items() if both[0] != both[1]} == {}
    verdicts = zip(pairs(), here["verdicts"], there["verdicts"], strict=True)
    assert [(pair, one, other) for pair, one, other in verdicts if one != other] == []
