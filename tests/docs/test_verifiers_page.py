"""docs/verifiers.md: each of its examples is judged, its code runs, its defaults and statuses are those of the code."""

from __future__ import annotations

import inspect
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from dphrl.types import NO_REWARD, STATUSES
from dphrl.verifiers.math.verify_math import verify_math
from dphrl.verifiers.sql.query_settings import SCRIPT_RULES
from dphrl.verifiers.sql.verify_sql import verify_sql

PAGE = (Path(__file__).parents[2] / "docs" / "verifiers.md").read_text()


def block(language: str) -> str:
    found = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert len(found) == 1
    return str(found[0])


def table(header: str) -> list[list[str]]:
    """Rows of the table that begins with a line."""
    lines = PAGE[PAGE.index(header) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


EXAMPLES = table("| | gold query | completion's query | spider | bird |")


ANSWERS = table("| the answer is | paid | not paid |")
SCRIPTS = table("| option | for training, the default | as the scripts | gold query |")


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("docs") / "shop.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(block("sql"))
    return path


@pytest.mark.parametrize("example", EXAMPLES, ids=[example[0] for example in EXAMPLES])
def test_examples(db: Path, example: list[str]) -> None:
    _, gold, query, spider, bird = example
    item = {"gold": gold.strip("`"), "db": str(db), "completion": query.strip("`")}
    verdicts = verify_sql([item | {"mode": "spider"}, item | {"mode": "bird"}])
    assert [verdict.status for verdict in verdicts] == [spider, bird]


@pytest.mark.parametrize("answer", ANSWERS, ids=[answer[0] for answer in ANSWERS])
def test_what_counts_as_the_answer(db: Path, answer: list[str]) -> None:
    gold = "SELECT name FROM singer"
    paid, not_paid = (re.sub(r"^(`+) ?(.*?) ?\1$", r"\2", cell).replace("\u23ce", "\n") for cell in answer[1:])
    items = [{"gold": gold, "db": str(db), "completion": re.sub(r"\bQ\b", gold, text)} for text in (paid, not_paid)]
    assert [verdict.correct for verdict in verify_sql(items)] == [True, False]


@pytest.mark.parametrize("row", SCRIPTS, ids=[row[0] for row in SCRIPTS])
def test_the_rules_of_the_scripts(db: Path, row: list[str]) -> None:
    option, usual, of_script, gold, query, by_default, by_script = (cell.strip("`") for cell in row)
    item = {"gold": gold, "db": str(db), "completion": query}
    assert [verify_sql([item])[0].status, verify_sql([item], **SCRIPT_RULES)[0].status] == [by_default, by_script]
    default = inspect.signature(verify_sql).parameters[option].default
    words = [str(value).lower() for value in (default, SCRIPT_RULES[option])]
    assert [usual, of_script.split(":")[0]] == words
    assert len(SCRIPTS) == len(SCRIPT_RULES)
    assert yaml.safe_load(block("yaml"))["eval_tasks"]["spider-dev"]["verifier_args"] == SCRIPT_RULES


def test_the_code_runs(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(db.parent)
    names: dict[str, object] = {}
    exec(block("python"), names)
    assert str(names["verdict"]).startswith("Verdict(correct=True")


def test_statuses() -> None:
    assert [row[0].strip("`") for row in table("| status | reward | |")] == list(STATUSES)
    assert {row[0].strip("`") for row in table("| status | reward | |") if row[1] == "none"} == NO_REWARD


def test_options_and_their_defaults() -> None:
    """Those that are None have words of the page's own."""
    shown: dict[str, str] = {}
    for names, values, _ in table("| option | default | |"):
        shown |= zip(re.findall(r"`(\w+)`", names), values.replace("`", "").split(", "), strict=False)
    options = [p for p in inspect.signature(verify_sql).parameters.values() if p.kind is p.KEYWORD_ONLY]
    assert list(shown) and set(shown) == {option.name for option in options}
    for option in options:
        if isinstance(option.default, int | float) and not isinstance(option.default, bool):
            assert float(shown[option.name].replace(",", "")) == option.default
        elif option.default is not None:
            assert shown[option.name] == str(option.default).lower()


def test_each_rule_of_mathematics_has_an_answer_of_both_sides() -> None:
    lines = PAGE[PAGE.index("| rule | gold answer | paid | not paid |") :].split("\n\n")[0].splitlines()[2:]
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
    answers = [[re.findall("`(.*)`", cell)[0].replace("\\|", "|") for cell in row[1:]] for row in rows]
    assert len(answers) > 30
    judged = verify_math(
        [{"gold": gold, "completion": rf"\boxed{{{text}}}"} for gold, *pair in answers for text in pair]
    )
    assert [verdict.status for verdict in judged] == ["correct", "wrong"] * len(rows)
