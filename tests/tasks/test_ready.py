"""Ready tasks: what they fill in, what the user's settings override, and the real benchmarks end to end."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from dphrl.config.sources import TaskConfig
from dphrl.errors import ConfigError, DataError, DphrlError
from dphrl.tasks import READY, load_task, resolved
from dphrl.tasks.ready import all_ready_tasks
from dphrl.types import Prompt, Task, item_of
from dphrl.verifiers.math.math_style import math_style
from dphrl.verifiers.registry import verifier_of
from dphrl.verifiers.sql.sql_style import sql_style
from dphrl.verifiers.verifier import text_style

INSTRUCTION = "\n\nPlease reason step by step, and put your final answer within \\boxed{}."


def load(folder: Path, name: str, rows: list[dict[str, Any]], **settings: Any) -> Task:
    """A ready task on rows of its own."""
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return load_task("t", TaskConfig(name=name, data="rows.jsonl", **settings), base_dir=folder)


def user_text(task: Task, number: int = 0) -> str:
    """What the user message of a prompt says."""
    (message,) = task.prompts[number].prompt
    assert isinstance(message, dict) and message["role"] == "user"
    return str(message["content"])


def gold_statuses(task: Task, verifier: str) -> list[str]:
    """What the verifier says of every gold."""
    golds = [item_of(p, verifier_of(verifier).gold_completion(p.columns["gold"])) for p in task.prompts]
    return [verdict.status for verdict in task.verify(golds)]


@pytest.mark.parametrize(
    ("name", "row", "question", "gold", "key"),
    [
        ("gsm8k", {"question": "Q?", "answer": "1 + 1 = 2\n#### 2"}, "Q?", "1 + 1 = 2\n#### 2", "row-0000000"),
        ("aime24", {"id": 60, "problem": "Q?", "answer": "204", "question": "x"}, "Q?", "204", "60"),
        ("amc23", {"id": 3, "question": "Q?", "answer": 27.0}, "Q?", 27.0, "3"),
        ("math500", {"problem": "Q?", "answer": "p - q", "unique_id": "test/1.json"}, "Q?", "p - q", "test/1.json"),
        ("college_math", {"question": "Q?", "answer": "$x$", "question_number": "1"}, "Q?", "$x$", "row-0000000"),
        ("minerva_math", {"problem": "Q?", "solution": r"\boxed{1} so \boxed{1.6} cm", "idx": 7}, "Q?", "1.6", "7"),
        ("minerva_math", {"question": "Q?", "answer": "1.6"}, "Q?", "1.6", "row-0000000"),
        ("olympiadbench", {"id": 1, "context": None, "question": "Q?", "final_answer": ["2"]}, "Q?", ["2"], "1"),
        ("olympiadbench", {"id": 1, "context": "C.", "question": "Q?", "final_answer": ["2"]}, "C.\n\nQ?", ["2"], "1"),
    ],
)
def test_rows_of_the_math_tasks(
    tmp_path: Path, name: str, row: dict[str, Any], question: str, gold: object, key: str
) -> None:
    task = load(tmp_path, name, [row])
    assert user_text(task) == question + INSTRUCTION
    assert (task.prompts[0].columns["gold"], task.prompts[0].id) == (gold, key)
    assert gold_statuses(task, "math") == ["correct"]
    assert task.solution is math_style


def test_a_solution_without_a_box_is_the_golds_fault(tmp_path: Path) -> None:
    task = load(tmp_path, "minerva_math", [{"problem": "Q?", "solution": "no box"}])
    assert [v.status for v in task.verify([item_of(task.prompts[0], "\\boxed{1}")])] == ["gold_error"]


def test_what_the_user_writes_comes_first(tmp_path: Path) -> None:
    row = {"question": "Q?", "hint": "H", "answer": "1", "solved": "#### 2", "uid": "a", "id": "b"}
    plain = load(tmp_path, "gsm8k", [row], chat=False, columns={"gold": "solved"}, template="{question} {hint}")
    assert (plain.prompts[0].prompt, plain.prompts[0].columns["gold"], plain.prompts[0].id) == ("Q? H", "#### 2", "b")
    told = load(tmp_path, "gsm8k", [row], columns={"id": "uid", "question": "hint"}, system="S", verifier="exact")
    assert told.prompts[0].id == "a"
    assert [m["content"] for m in told.prompts[0].prompt] == ["S", "H" + INSTRUCTION]  # type: ignore[index]
    assert told.prompts[0].columns["gold"] == "1", "columns merge field by field"
    assert told.solution is text_style
    assert [v.status for v in told.verify([item_of(told.prompts[0], r"\boxed{1}")])] == ["wrong"]


@pytest.mark.parametrize("name", list(READY))
def test_a_setting_written_at_its_default_is_still_written(name: str) -> None:
    """An explicit `chat: false` or `template: "{question}"` is what jsonl has, and must hold for every task."""
    written = {"template": "{question}", "chat": False, "verifier": "exact", "split": "x", "data": "d", "subset": "s"}
    cfg = resolved(TaskConfig(name=name, **written))  # type: ignore[arg-type]
    assert {key: getattr(cfg, key) for key in written} == written
    assert cfg.verifier_args == {}, "arguments of the task's verifier are none of another one's"


@pytest.mark.parametrize("name", [name for name, _ in all_ready_tasks()])
def test_filling_in_twice_changes_nothing(name: str) -> None:
    once = resolved(TaskConfig(name=name))
    assert resolved(once) == once
    assert once.template and once.verifier and once.split and once.chat is not None


def test_nothing_is_filled_in_where_jsonl_had_its_defaults() -> None:
    cfg = resolved(TaskConfig(data="x.jsonl"))
    assert (cfg.template, cfg.chat, cfg.verifier, cfg.split, cfg.subset) == ("{question}", False, "math", "train", None)


def test_verifier_arguments_merge() -> None:
    cfg = resolved(TaskConfig(name="spider", verifier_args={"keep_distinct": True, "mode": "bird"}))
    assert cfg.verifier_args == {"keep_distinct": True, "mode": "bird"}
    assert resolved(TaskConfig(name="bird", verifier_args={"max_rows": 5})).verifier_args == {
        "mode": "bird",
        "max_rows": 5,
    }


def test_public_data_is_asked_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[Any] = []

    def load_dataset(name: str, subset: str | None, *, split: str) -> Any:
        asked.append((name, subset, split))
        if name != "openai/gsm8k":
            raise ConnectionError("offline")
        return datasets.Dataset.from_list([{"question": "Q?", "answer": "#### 2"}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    load_task("t", TaskConfig(name="gsm8k"), base_dir=tmp_path)
    load_task("t", TaskConfig(name="gsm8k", split="test"), base_dir=tmp_path)
    for name in READY:
        if READY[name].data not in ("", "openai/gsm8k"):
            with pytest.raises(DataError, match=r"offline.*let task\.data name a local file"):
                load_task("t", TaskConfig(name=name), base_dir=tmp_path)
    with pytest.raises(DataError):
        load_task("t", TaskConfig(name="gsm8k", data="my/gsm8k"), base_dir=tmp_path)
    assert asked[:2] == [("openai/gsm8k", "main", "train"), ("openai/gsm8k", "main", "test")]
    assert asked[-1] == ("my/gsm8k", None, "train"), "the subset belongs to the task's own data"
    assert {name for name, *_ in asked[2:-1]} == {READY[n].data for n in READY} - {"", "openai/gsm8k"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "gsm9k"}, "did you mean 'gsm8k'"),
        ({"name": "reasoning_gym"}, "did you mean 'reasoning_gym:NAME'"),
        ({"name": "gsm8k", "chat": False, "system": "S"}, "needs task.chat"),
        ({"name": "gsm8k", "columns": {"gold": "anser"}}, "did you mean 'answer'"),
        ({"name": "olympiadbench"}, "no column 'final_answer' for field 'gold'"),
        ({"name": "gsm8k", "verifier_args": {"mode": "bird"}}, "'math' has no argument 'mode'"),
    ],
)
def test_errors_name_what_is_wrong(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    (tmp_path / "rows.jsonl").write_text('{"question": "Q?", "answer": "1"}\n')
    with pytest.raises(DphrlError, match=message):
        load_task("t", TaskConfig(**{"data": "rows.jsonl", **settings}), base_dir=tmp_path)


def test_a_bound_on_tokens_counts_prompts_that_have_nothing_to_lose(tmp_path: Path) -> None:
    rows = [{"question": "x" * length, "answer": "1", "id": f"q{length}"} for length in (1, 10, 30, 90)]
    estimated = load(tmp_path, "jsonl", rows, columns={"gold": "answer"}, prompt_tokens=10)
    assert estimated.notes == (
        "1 of 4 prompts do not fit 10 tokens, however short: q90 (estimated: 3 characters a token)",
    )
    cfg = TaskConfig(data="rows.jsonl", columns={"gold": "answer"}, prompt_tokens=10, chat=True, system="S")

    def count(prompt: Prompt) -> int:
        """The messages of a chat all count, the system message too."""
        return sum(len(message["content"]) for message in prompt.prompt)  # type: ignore[index]

    task = load_task("t", cfg, base_dir=tmp_path, count_tokens=count)
    assert task.notes == ("3 of 4 prompts do not fit 10 tokens, however short: q10, q30, q90",)
    fits = dataclasses.replace(cfg, prompt_tokens=91)
    assert load_task("t", fits, base_dir=tmp_path, count_tokens=count).notes == ()


def test_a_long_list_of_ids_is_cut(tmp_path: Path) -> None:
    rows = [{"question": "long " * 9, "answer": "1", "id": i} for i in range(30)]
    (note,) = load(tmp_path, "gsm8k", rows, prompt_tokens=1).notes
    assert "30 of 30 prompts" in note and ", 19 and 10 more" in note and ", 20" not in note


SIZES = {
    "aime24": ("math/aime24.jsonl", 30),
    "amc23": ("math/amc23.jsonl", 40),
    "math500": ("math/math500.jsonl", 500),
    "olympiadbench": ("math/olympiadbench.jsonl", 675),
    "minerva_math": ("math/minerva_math.jsonl", 272),
    "college_math": ("math/college_math.jsonl", 2818),
    "gsm8k": ("gsm8k/test.jsonl", 1319),
    "gsm8k-train": ("gsm8k/train.jsonl", 7473),
}


@pytest.mark.parametrize("name", list(SIZES))
def test_the_benchmarks_load(shared_data: Path, name: str) -> None:
    path, size = SIZES[name]
    task = load_task("t", TaskConfig(name=name.removesuffix("-train"), data=path), base_dir=shared_data)
    assert (len(task.prompts), task.notes) == (size, ())
    texts = [user_text(task, number) for number in range(size)]
    assert all(text.endswith(INSTRUCTION) and len(text) > len(INSTRUCTION) + 10 for text in texts)
    assert all(prompt.columns["gold"] not in ("", None, []) for prompt in task.prompts)
    first = dataclasses.replace(task, prompts=task.prompts[:20])
    assert gold_statuses(first, "math") == ["correct"] * 20


@pytest.mark.parametrize(("split", "size"), [("dev", 972), ("train", 6901)])
def test_spider_loads(shared_data: Path, split: str, size: int) -> None:
    task = load_task("t", TaskConfig(name="spider", data="spider", split=split), base_dir=shared_data)
    assert len(task.prompts) == size and task.solution is sql_style
    texts = [user_text(task, number) for number in range(size)]
    assert all(text.count("CREATE TABLE") >= 1 and text.endswith("```sql\n-- your query\n```") for text in texts)
    assert all(f"Question:\n{p.columns['question']}\n\n" in text for p, text in zip(task.prompts, texts, strict=True))
    first = dataclasses.replace(task, prompts=task.prompts[:20])
    assert gold_statuses(first, "sql") == ["correct"] * 20


def test_a_bound_shortens_the_prompts_of_spider(shared_data: Path) -> None:
    cfg = TaskConfig(name="spider", data="spider", split="dev")
    whole = load_task("t", cfg, base_dir=shared_data)
    bound = load_task("t", dataclasses.replace(cfg, prompt_tokens=1024), base_dir=shared_data)
    lengths = [-(-len(user_text(bound, number)) // 3) for number in range(972)]
    too_long = sum(length > 1024 for length in lengths)
    changed = sum(a != b for a, b in zip(whole.prompts, bound.prompts, strict=True))
    assert 0 < too_long < changed
    assert sum(int(note.split()[0]) for note in bound.notes if "dropped" in note or "instead" in note) == changed
    assert any(note.startswith(f"{too_long} of 972 prompts do not fit 1,024 tokens") for note in bound.notes)
    with pytest.raises(ConfigError, match="is not one of train, dev"):
        load_task("t", dataclasses.replace(cfg, split="test"), base_dir=shared_data)
