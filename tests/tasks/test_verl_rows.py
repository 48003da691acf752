"""Rows for verl: what a verifier needs is in them, through JSON and Parquet, and wrong ones are named."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dphrl.config.sources import TaskConfig
from dphrl.errors import DataError, VerifierError
from dphrl.tasks import load_task
from dphrl.tasks.verl_rows import RowVerifier, row_columns, row_verifier, verifier_item, verl_row
from dphrl.types import Prompt, Task, Verdict
from dphrl.verifiers.registry import load_verifier, verifier_of


def through_parquet(tmp_path: Path, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    pq.write_table(pa.Table.from_pylist(list(rows)), tmp_path / "rows.parquet")
    read: list[dict[str, Any]] = pq.read_table(tmp_path / "rows.parquet").to_pylist()
    return read


def rows_of(task: Task) -> list[dict[str, Any]]:
    return [verl_row(p, task, source=task.name, split="train", index=i) for i, p in enumerate(task.prompts)]


def judged(row: dict[str, Any], completion: str) -> Verdict:
    """As a reward function that knows only what verl gives it."""
    info = row["extra_info"]
    who = row_verifier(info)
    assert who is not None
    item = verifier_item(info, row["reward_model"]["ground_truth"], completion)
    return load_verifier(who.spec, who.args)([item])[0]


@pytest.fixture
def math_task(tmp_path: Path) -> Task:
    rows = [{"question": f"{i} + {i}?", "gold": 2 * i if i % 2 else f"${2 * i}$", "id": i} for i in range(4)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    return load_task("sums", TaskConfig(data="rows.json", chat=True, system="Add."), base_dir=tmp_path)


@pytest.mark.parametrize("name", ["demo:in_domain", "demo:arithmetic"])
def test_golds_of_the_demo_are_judged_right_from_parquet(tmp_path: Path, name: str) -> None:
    task = load_task("demo", TaskConfig(name=name, limit=6), base_dir=Path())
    rows = through_parquet(tmp_path, rows_of(task))
    assert [row["extra_info"]["id"] for row in rows] == [p.id for p in task.prompts]
    record = verifier_of(task.verifier)
    for row, prompt in zip(rows, task.prompts, strict=True):
        assert row["prompt"] == [{"role": "user", "content": prompt.prompt}]
        assert row["extra_info"]["chat"] is False
        assert row["reward_model"] == {"style": "rule", "ground_truth": prompt.columns["gold"]}
        assert judged(row, record.gold_completion(prompt.columns["gold"])).status == "correct"
        assert not judged(row, "no").correct


def test_arguments_reach_the_verifier() -> None:
    task = load_task("demo", TaskConfig(name="demo:in_domain", limit=1), base_dir=Path())
    assert row_verifier(rows_of(task)[0]["extra_info"]) == RowVerifier("sql", {"keep_distinct": True})


def test_messages_and_golds_that_are_no_text(tmp_path: Path, math_task: Task) -> None:
    rows = through_parquet(tmp_path, rows_of(math_task))
    assert rows[1]["prompt"] == [{"role": "system", "content": "Add."}, {"role": "user", "content": "1 + 1?"}]
    assert [row["reward_model"]["ground_truth"] for row in rows] == ["$0$", "2", "$4$", "6"]
    asked = [{"role": "system", "content": "Add."}, {"role": "user", "content": "1 + 1?"}]
    assert row_columns(rows[1]["extra_info"], "2") == {"gold": 2, "prompt": asked}
    assert [judged(row, f"\\boxed{{{2 * i}}}").correct for i, row in enumerate(rows)] == [True] * 4


def test_a_function_of_the_user_gets_every_column_and_the_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_reward_of_rows.py").write_text(
        "def near(prompts, completions, id, question, hint):\n"
        "    rows = zip(completions, prompts, id, question, hint)\n"
        "    return [float(c == f'{p}|{i}|{q}|{h}') for c, p, i, q, h in rows]\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    (tmp_path / "rows.json").write_text(json.dumps([{"question": "q", "hint": [1], "id": "a"}]))
    cfg = TaskConfig(data="rows.json", verifier="own_reward_of_rows:near", template="-{question}-")
    row = through_parquet(tmp_path, rows_of(load_task("own", cfg, base_dir=tmp_path)))[0]
    assert row["reward_model"]["ground_truth"] == ""
    assert judged(row, "-q-|a|q|[1]").correct


def test_rows_of_others_give_their_members_and_the_gold() -> None:
    assert row_verifier({"index": 3}) is None and row_verifier(None) is None
    assert verifier_item({"index": 3, "answer": "x"}, "72", "c") == {
        "id": None,
        "index": 3,
        "answer": "x",
        "gold": "72",
        "completion": "c",
    }
    assert verifier_item(None, "72", "c")["gold"] == "72"


def test_a_changed_row_is_refused(math_task: Task) -> None:
    info = rows_of(math_task)[1]["extra_info"]
    with pytest.raises(VerifierError, match=r"row '1': reward_model.ground_truth is '3'.*judged by, is 2"):
        verifier_item(info, "3", "c")
    with pytest.raises(VerifierError, match=r"row '1': extra_info.columns='no' is not the JSON text"):
        verifier_item({**info, "columns": "no"}, "2", "c")
    with pytest.raises(VerifierError, match=r"verifier_args='\[\]' is not the JSON text of an object"):
        row_verifier({**info, "verifier_args": "[]"})


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (Prompt("p", "q", {"gold": b"\0"}), "prompt 'p' cannot be written as JSON.*bytes"),
        (Prompt("p", ({"role": "user", "content": "q", "name": "x"},), {"gold": "1"}), "message with 'name'"),
    ],
)
def test_what_a_row_cannot_hold_is_named(prompt: Prompt, message: str) -> None:
    task = Task("t", (prompt,), lambda items: [], str, verifier="exact")
    with pytest.raises(DataError, match=message):
        verl_row(prompt, task, source="t", split="train", index=0)
