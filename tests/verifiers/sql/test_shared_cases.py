"""The cases that were found by looking at the verifier with a hostile eye, where they lie beside the project."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from dphrl.verifiers.sql.verify_sql import verify_sql

CASES = Path(__file__).parents[3].parent / "shared" / "cases" / "verifiers" / "sql.jsonl"


def test_each_case_is_judged_as_it_should_be(tmp_path: Path) -> None:
    if not CASES.is_file():
        pytest.skip(f"{CASES} is not there: the cases are not shipped with the project; ours are in the tests beside")
    cases = [json.loads(line) for line in CASES.read_text(encoding="utf-8").splitlines()]
    databases: dict[str, Path] = {}
    for script in {case["db_setup_sql"] for case in cases}:
        databases[script] = tmp_path / f"{len(databases)}.sqlite"
        with closing(sqlite3.connect(databases[script])) as connection:
            connection.executescript(script)
    items = [
        {**{name: case[name] for name in ("completion", "gold", "mode")}, "db": str(databases[case["db_setup_sql"]])}
        for case in cases
    ]
    verdicts = verify_sql(items)
    assert all(verdict.reward is not None for verdict in verdicts)
    missed = [
        case["id"] for case, v in zip(cases, verdicts, strict=True) if v.correct != (case["expected"] == "correct")
    ]
    assert not missed
