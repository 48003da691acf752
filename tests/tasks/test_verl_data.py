"""Files for verl as task.data: messages, nested columns, what our own export wrote, and what cannot be read."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dphrl.config.sources import TaskConfig
from dphrl.errors import DataError, DphrlError
from dphrl.tasks import load_task
from dphrl.tasks.load import is_chat
from dphrl.tasks.nested_columns import as_messages, names_of, value_at
from dphrl.tasks.verl_rows import verl_row
from dphrl.types import Task, item_of

USER = {"role": "user", "content": '3 * 3? Let\'s think step by step and output the final answer after "####".'}
GSM8K = {
    "data_source": "openai/gsm8k",
    "prompt": [USER],
    "ability": "math",
    "reward_model": {"style": "rule", "ground_truth": "9"},
    "extra_info": {"split": "train", "index": 0, "answer": "3 * 3 = 9\n#### 9", "question": "3 * 3?"},
}
"""As verl's examples/data_preprocess/gsm8k.py has it."""
DAPO = {
    "data_source": "math_dapo",
    "prompt": [{"content": "Solve it. 17 * 2?", "role": "user"}],
    "ability": "MATH",
    "reward_model": {"ground_truth": "34", "style": "rule-lighteval/MATH_v2"},
    "extra_info": {"index": "9a9b6eb4-a1cb-49d1-8c1e-62eaf2f74079"},
}
"""As BytedTsinghua-SIA/DAPO-Math-17k has it."""
Load = Callable[..., Task]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load a task from rows in a Parquet file (or JSON); settings as keyword arguments."""

    def load(rows: Sequence[dict[str, Any]], *, name: str = "rows.parquet", **settings: Any) -> Task:
        if name.endswith("parquet"):
            pq.write_table(pa.Table.from_pylist(list(rows)), tmp_path / name)
        else:
            (tmp_path / name).write_text(json.dumps(list(rows)))
        return load_task("t", TaskConfig(data=name, **settings), base_dir=tmp_path)

    return load


@pytest.mark.parametrize("name", ["rows.parquet", "rows.json"])
@pytest.mark.parametrize(("row", "gold"), [(GSM8K, "9"), (DAPO, "34")])
def test_files_of_verls_examples_need_no_names(load: Load, row: dict[str, Any], gold: str, name: str) -> None:
    task = load([row, row], name=name)
    assert [p.id for p in task.prompts] == ["row-0000000", "row-0000001"]
    prompt = task.prompts[1]
    assert prompt.prompt == tuple(row["prompt"])
    assert prompt.columns["gold"] == gold
    assert prompt.columns["index"] == row["extra_info"]["index"]
    right, wrong = task.verify([item_of(prompt, f"\\boxed{{{gold}}}"), item_of(prompt, "\\boxed{7}")])
    assert right.correct and wrong.status == "wrong"


@pytest.mark.parametrize(
    "value",
    [
        json.dumps([USER]),
        np.array([USER], dtype=object),
        {"role": ["user"], "content": [USER["content"]]},
        {"role": np.array(["user"]), "content": np.array([USER["content"]])},
        [{**USER, "name": None}],
    ],
)
def test_messages_in_all_their_forms(value: Any) -> None:
    assert as_messages(value, "here") == (USER,)


@pytest.mark.parametrize("value", ["text", "[1]", "[not JSON", '{"role": "user"}', None, [], [1], 7, {"a": 1}])
def test_what_is_no_messages(value: Any) -> None:
    assert as_messages(value, "here") is None


def test_messages_as_json_text_in_a_file(load: Load) -> None:
    row = {**GSM8K, "prompt": json.dumps(GSM8K["prompt"]), "reward_model": json.dumps(GSM8K["reward_model"])}
    prompt = load([row]).prompts[0]
    assert prompt.prompt == (USER,)
    assert prompt.columns["gold"] == "9"


def test_a_column_of_messages_without_the_rest_of_verls_columns(load: Load) -> None:
    rows = [{"prompt": [USER], "gold": "9"}]
    assert load(rows).prompts[0].prompt == (USER,)
    assert load([{"asked": [USER], "gold": "9"}], template="{asked}").prompts[0].prompt == (USER,)
    assert load([{"asked": [USER], "gold": "9"}], columns={"prompt": "asked"}).prompts[0].prompt == (USER,)
    assert load([{**rows[0], "question": "3 * 3?"}]).prompts[0].prompt == "3 * 3?", "as it was before"


def test_a_template_of_ones_own_reads_the_members(load: Load) -> None:
    assert load([GSM8K], template="Q: {question}").prompts[0].prompt == "Q: 3 * 3?"
    task = load([GSM8K], template="Q: {q}", columns={"q": "extra_info.question", "id": "extra_info.index"}, chat=True)
    assert task.prompts[0].id == "0"
    assert task.prompts[0].prompt == ({"role": "user", "content": "Q: 3 * 3?"},)
    assert load([GSM8K], name="rows.parquet", columns={"question": "extra_info.question"}).prompts[0].prompt == "3 * 3?"


def test_nested_names() -> None:
    row = {"a": {"b": {"c": 1}}, "a.b": {"d": 2}, "text": '{"e": [3]}'}
    assert (value_at(row, "a.b.c"), value_at(row, "a.b.d"), value_at(row, "text.e")) == (1, 2, [3])
    assert list(names_of(row)) == ["a", "a.b", "a.b.c", "a.b", "a.b.d", "text", "text.e"]
    for name in ("a.c", "text.f", "b", "a.", ".a", "a.b.c.d"):
        with pytest.raises(KeyError):
            value_at(row, name)


def test_the_system_message(load: Load) -> None:
    system = {"role": "system", "content": "Be brief."}
    assert load([GSM8K], chat=True, system="Be brief.").prompts[0].prompt == (system, USER)
    with pytest.raises(DataError, match=r"column 'prompt' holds a system message, and task\.system is set too"):
        load([{**GSM8K, "prompt": [system, USER]}], chat=True, system="Be brief.")


def test_chat_false_reads_one_message_as_a_text(load: Load) -> None:
    assert load([GSM8K], chat=False).prompts[0].prompt == USER["content"]
    with pytest.raises(DataError, match=r"row 0 .*messages \(user, user\) is to be read as a text.*chat: false"):
        load([{**GSM8K, "prompt": [USER, USER]}], chat=False)


def test_a_bound_on_tokens_counts_messages(load: Load) -> None:
    assert "do not fit 5 tokens" in load([GSM8K], prompt_tokens=5).notes[0]


@pytest.mark.parametrize(
    ("row", "settings", "message"),
    [
        (GSM8K, {"columns": {"gold": "reward_model.ground_trut"}}, "did you mean 'reward_model.ground_truth'"),
        (GSM8K, {"columns": {"gold": "extra_info.gold"}}, "no column 'extra_info.gold'.*it has .*extra_info.question"),
        (GSM8K, {"template": "Q: {prompt}"}, "holds chat messages; a template can only be all of them: '{prompt}'"),
        ({**GSM8K, "images": [{"bytes": "x"}]}, {}, "has images beside it; dphrl trains on texts alone"),
        (
            {**GSM8K, "prompt": [{"role": "user", "content": [{"type": "text"}]}]},
            {},
            "'content' of a message is a list",
        ),
        ({**GSM8K, "prompt": [{"role": "user", "content": None}]}, {}, "'user' has no content"),
    ],
)
def test_errors_name_what_is_wrong(load: Load, row: dict[str, Any], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(DphrlError, match=message):
        load([row], **settings)


def test_messages_and_texts_in_one_file_are_refused(load: Load) -> None:
    with pytest.raises(DataError, match="'row-0000000' is chat messages, and 'row-0000001' is a text"):
        load([GSM8K, {**GSM8K, "prompt": "3 * 3?"}], name="rows.json")


def test_whether_prompts_are_chat_messages(load: Load, tmp_path: Path) -> None:
    load([GSM8K])
    cfg = TaskConfig(data="rows.parquet")
    assert is_chat(cfg, tmp_path)
    assert not is_chat(dataclasses.replace(cfg, chat=False), tmp_path)
    assert not is_chat(dataclasses.replace(cfg, template="{question}"), tmp_path)
    assert is_chat(TaskConfig(name="gsm8k", data="not-there.json"), tmp_path), "no file is read"
    load(exported(load_task("demo", TaskConfig(name="demo:arithmetic", limit=1), base_dir=Path())))
    assert not is_chat(cfg, tmp_path)


def exported(task: Task) -> list[dict[str, Any]]:
    return [verl_row(p, task, source="t", split="train", index=i) for i, p in enumerate(task.prompts)]


def test_the_demo_comes_back_from_its_export(load: Load) -> None:
    demo = load_task("demo", TaskConfig(name="demo:in_domain", limit=5), base_dir=Path())
    back = load(exported(demo))
    assert [(p.id, p.prompt) for p in back.prompts] == [(p.id, p.prompt) for p in demo.prompts]
    assert [p.columns["gold"] for p in back.prompts] == [p.columns["gold"] for p in demo.prompts]
    assert (back.verifier, back.verifier_args) == ("sql", {"keep_distinct": True})
    items = [item_of(p, f"```sql\n{p.columns['gold']}\n```") for p in back.prompts]
    assert all(verdict.correct for verdict in back.verify(items))
    assert exported(back) == exported(demo)


def test_chat_prompts_come_back_from_their_export(load: Load) -> None:
    rows = [{"question": "1 + 1?", "answer": 2, "id": 7}]
    first = load(rows, name="rows.json", columns={"gold": "answer"}, chat=True, system="Add.", verifier="exact")
    back = load(exported(first))
    assert [(p.id, p.prompt) for p in back.prompts] == [(p.id, p.prompt) for p in first.prompts]
    assert back.prompts[0].columns["gold"] == 2
    assert back.verifier == "exact"
    assert exported(back) == exported(first)
    assert load(exported(first), columns={"gold": "reward_model.ground_truth"}).prompts[0].columns["gold"] == "2"


def test_another_verifier_than_the_rows_name(load: Load) -> None:
    rows = exported(load_task("demo", TaskConfig(name="demo:in_domain", limit=1), base_dir=Path()))
    assert (load(rows, verifier="exact").verifier, load(rows, verifier="exact").verifier_args) == ("exact", {})
    own = load(rows, verifier_args={"mode": "bird"})
    assert own.verifier_args == {"keep_distinct": True, "mode": "bird"}
    assert load(rows, verifier="sql").verifier_args == {"keep_distinct": True}


def changed(**info: str) -> list[dict[str, Any]]:
    rows = exported(load_task("demo", TaskConfig(name="demo:arithmetic", limit=2), base_dir=Path()))
    rows[1]["extra_info"] |= info
    return rows


def test_rows_of_several_verifiers_are_refused(load: Load) -> None:
    with pytest.raises(DataError, match=r"several verifiers: exact \{\}, math \{\}; keep the rows of each"):
        load(changed(verifier="math"))
    with pytest.raises(DataError, match=r"several verifiers: exact \{\}, none"):
        load([*changed()[:1], GSM8K], name="rows.json")


def test_a_file_chooses_no_code_and_no_file_to_write(load: Load) -> None:
    with pytest.raises(DphrlError, match=r"a data file may not choose; set task\.verifier: os:system"):
        load(changed(verifier="os:system")[1:])
    with pytest.raises(DphrlError, match=r"set task\.verifier_args.gold_cache instead"):
        load(changed(verifier_args='{"gold_cache": "x"}')[1:])
