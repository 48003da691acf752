"""The six benchmarks' own gold answers: right against themselves and when rewritten, wrong against one another."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from dphrl.verifiers.math.final_answer import extract_gold
from dphrl.verifiers.math.formula import parsed
from dphrl.verifiers.math.plain_text import same_text
from dphrl.verifiers.math.reading import read
from dphrl.verifiers.math.records import values
from dphrl.verifiers.math.verify_math import MAX_ANSWER, verify_math

COLUMNS = {
    "aime24": "answer",
    "amc23": "answer",
    "math500": "answer",
    "olympiadbench": "final_answer",
    "minerva_math": "solution",
    "college_math": "answer",
}
QUICK = [pytest.param(name, marks=pytest.mark.slow if name == "college_math" else ()) for name in COLUMNS]
SEED = 0
OTHERS = 5
"""Other golds of its benchmark that each gold is judged against."""
MOST_PAIRS = 500
"""Random pairs of college_math's golds that are judged; as many for each gold as elsewhere would take half an hour."""
EVERY = 3
"""Of college_math's golds every third is parsed."""

Gold = str | float | list[str]


@pytest.fixture
def golds(shared_data: Path) -> Callable[[str], list[Gold]]:
    def load(name: str) -> list[Gold]:
        file = shared_data / "math" / f"{name}.jsonl"
        if not file.is_file():
            pytest.skip(f"{file} is not there: real data is not shipped with the project")
        with file.open(encoding="utf-8") as lines:
            return [json.loads(line)[COLUMNS[name]] for line in lines]

    return load


def missed(golds: list[Gold], completions: list[str]) -> list[str]:
    """Golds whose completion is not judged correct."""
    items = [{"gold": gold, "completion": text} for gold, text in zip(golds, completions, strict=True)]
    verdicts = verify_math(items, deadline_s=10.0)
    return [extract_gold(gold) for gold, verdict in zip(golds, verdicts, strict=True) if not verdict.correct]


@pytest.mark.parametrize("name", COLUMNS)
def test_golds_are_right(golds: Callable[[str], list[Gold]], name: str) -> None:
    rows = golds(name)
    assert missed(rows, [rf"\boxed{{{extract_gold(gold)}}}" for gold in rows]) == []
    assert max(len(extract_gold(gold)) for gold in rows) <= MAX_ANSWER


BY_VALUE = {
    "aime24": 30,
    "amc23": 40,
    "math500": 491,
    "olympiadbench": 673,
    "minerva_math": 265,
    "college_math": 756,
}
"""Golds that hold formulas, all of which the parser reads; equations between two formulas, words and what is not
understood are compared otherwise."""


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_golds_that_the_parser_reads(golds: Callable[[str], list[Gold]], name: str) -> None:
    texts = [extract_gold(gold) for gold in golds(name)][:: EVERY if name == "college_math" else 1]
    formulas = {text: [value.latex for value in values(read(text))] for text in set(texts)}
    wholly = {text: bool(parts) and all(parsed(part) is not None for part in parts) for text, parts in formulas.items()}
    count = sum(wholly[text] for text in texts)
    print(f"{name}: {count} of {len(texts)} by value")
    assert count >= BY_VALUE[name]


REWRITTEN: dict[str, Callable[[str], str]] = {
    "dfrac": lambda text: re.sub(r"\\d?frac(?![a-z])", r"\\dfrac", text),
    "left": lambda text: re.sub(r"(?<!\\left)(?<!\\)\((?=[^()]*\))([^()]*)(?<!\\right)\)", r"\\left(\1\\right)", text),
    "spaces": lambda text: re.sub(r"(?<=[\d)}])([+=])(?=[\da-z(\\])", r" \1 ", text),
    "dollars": lambda text: f"${text}$" if "$" not in text else text,
    "period": lambda text: f"{text}.",
}


@pytest.mark.parametrize("way", REWRITTEN)
@pytest.mark.parametrize("name", QUICK)
def test_golds_written_another_way_are_right(golds: Callable[[str], list[Gold]], name: str, way: str) -> None:
    rows = golds(name)
    texts = [REWRITTEN[way](extract_gold(gold)) for gold in rows]
    assert missed(rows, [rf"\boxed{{{text}}}" for text in texts]) == []


@pytest.mark.parametrize("name", ["aime24", "amc23", "math500", "olympiadbench", "minerva_math"])
def test_golds_in_a_sentence_are_right(golds: Callable[[str], list[Gold]], name: str) -> None:
    rows = [gold for gold in golds(name) if "$" not in extract_gold(gold)]
    assert (
        missed(rows, [f"So we see. The final answer is ${extract_gold(gold).strip()}$. Done." for gold in rows]) == []
    )


UNIT = re.compile(r"\s*(?:\^\s*\{?\\circ\}?|\\(?:text|mbox)\s*\{[^{}]*\}(?:\^2)?|\\?%)$")


@pytest.mark.parametrize("name", ["math500", "olympiadbench"])
def test_golds_without_their_unit_are_right(golds: Callable[[str], list[Gold]], name: str) -> None:
    rows = [gold for gold in golds(name) if UNIT.sub("", extract_gold(gold)) not in ("", extract_gold(gold))]
    assert len(rows) > 5
    assert missed(rows, [rf"\boxed{{{UNIT.sub('', extract_gold(gold))}}}" for gold in rows]) == []


TRULY_EQUAL = {
    ("10", "k=10"),
    ("6", "x=6"),
    ("5", r"\log _{2}(32)=5"),
    ("2", r"\left|\begin{array}{lll} 1 & 2 & 1 \\ 1 & 0 & 1 \\ 2 & 1 & 1 \end{array}\right|=2"),
}
"""Pairs of golds that were looked at and have the same value though they are written differently."""


@pytest.mark.slow
@pytest.mark.parametrize("name", COLUMNS)
def test_golds_of_other_problems_are_wrong(golds: Callable[[str], list[Gold]], name: str) -> None:
    texts = [extract_gold(gold) for gold in golds(name)]
    rng = random.Random(SEED)
    if name == "college_math":
        pairs = [(rng.choice(texts), rng.choice(texts)) for _ in range(MOST_PAIRS)]
    else:
        pairs = [(text, other) for text in texts for other in rng.sample(texts, OTHERS)]
    items = [{"gold": gold, "completion": rf"\boxed{{{other}}}"} for gold, other in pairs]
    verdicts = verify_math(items, deadline_s=10.0)
    paid = {
        (gold, " ".join(other.split()))
        for (gold, other), verdict in zip(pairs, verdicts, strict=True)
        if verdict.correct
    }
    assert {pair for pair in paid if not same_text(*pair)} <= TRULY_EQUAL
    assert {verdict.status for verdict in verdicts} <= {"correct", "wrong", "timeout"}
