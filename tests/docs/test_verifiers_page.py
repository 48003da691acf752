"""docs/verifiers.md: each of its examples is judged, its code runs, its defaults and statuses are those of the code."""

from __future__ import annotations

import inspect
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from dphrl.types import NO_REWARD, STATUSES
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
