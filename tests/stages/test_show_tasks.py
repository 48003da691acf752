"""`dphrl tasks` and `dphrl tasks show`."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from byte_models import byte_tokenizer

from dphrl.cli.main import main
from dphrl.tasks import READY
from dphrl.verifiers.registry import verifier_of


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command that succeeds prints."""
    assert main(["tasks", *arguments]) == 0
    captured = capsys.readouterr()
    assert not captured.err and "\x1b" not in captured.out, "plain where it is no terminal"
    return captured.out


@pytest.fixture
def gsm8k(tmp_path: Path) -> str:
    """Five rows; the third has no answer that can be read."""
    answers = ["#### 1", "#### 2", "#### ", "#### 4", "#### 5"]
    rows = [{"id": f"q{i}", "question": f"How many {i}?", "answer": text} for i, text in enumerate(answers)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_the_list_names_every_task(capsys: pytest.CaptureFixture[str]) -> None:
    printed = run(capsys)
    for name, ready in READY.items():
        assert f"{name} " in printed and ready.what in printed and ready.origin in printed
    assert "needs: pip install 'dphrl[gym]'" in printed and "demo:in_domain" in printed


def test_three_prompts_with_the_verdicts_on_their_golds(capsys: pytest.CaptureFixture[str], gsm8k: str) -> None:
    printed = run(capsys, "show", "gsm8k", "--data", gsm8k)
    assert printed.startswith(
        "gsm8k: 5 prompts\n\n--- prompt q0, about 28 tokens\n[user]\nHow many 0?\n\nPlease reason step by step"
    )
    assert "--- gold: 1\n--- as a completion: correct\n" in printed
    assert "--- as a completion: gold_error (" in printed
    assert "q2" in printed and "q3" not in printed


def test_one_prompt_and_other_settings(capsys: pytest.CaptureFixture[str], gsm8k: str) -> None:
    arguments = ["--data", gsm8k, "--prompt", "q3", "--task.chat", "false", "--task.prompt_tokens=2"]
    printed = run(capsys, "show", "gsm8k", *arguments)
    assert printed.splitlines()[:2] == [
        "gsm8k: 5 prompts",
        "note: 5 of 5 prompts do not fit 2 tokens, however short: q0, q1, q2, q3, q4 (estimated: 3 characters a token)",
    ]
    assert (
        "--- prompt q3, about 28 tokens\nHow many 3?" in printed and "q0\n" not in printed and "[user]" not in printed
    )


def test_with_a_model_a_prompt_is_what_it_sees(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rendered chat, and its tokens counted."""
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    monkeypatch.setattr("dphrl.models.policy.load_tokenizer", lambda config: byte_tokenizer(chat_template=template))
    path = tmp_path / "chat.json"
    path.write_text(json.dumps([{"prompt": [{"role": "user", "content": "1+1?"}], "gold": "2"}]))
    printed = run(capsys, "show", "jsonl", "--data", str(path), "--model", "m")
    assert "--- prompt row-0000000, 21 tokens\n<user>1+1?<assistant>\n" in printed


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (["--task.template", "Q {responses}"], "field 'responses' of the template holds a list"),
        (["--task.template", "Q {reward_model}"], "e.g. reward_model.ground_truth"),
        (["--task.template", "Q", "--task.columns", "{gold: reward_model}"], "gold=reward_model.ground_truth"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    settings: list[str], why: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A list or an object that would become its Python text; the members are named."""
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"q": "1+1?", "gold": "2", "responses": ["2"], "reward_model": {"ground_truth": "2"}}]))
    assert main(["tasks", "show", "jsonl", "--data", str(path), *settings]) == 2
    assert why in capsys.readouterr().err


def test_a_demo_task_and_its_split(capsys: pytest.CaptureFixture[str]) -> None:
    printed = run(capsys, "show", "demo:in_domain", "--split", "eval")
    assert "in_domain-eval-00000" in printed and printed.count("as a completion: correct") == 3


def test_a_query_is_asked_for_in_its_block(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "database" / "d").mkdir(parents=True)
    with closing(sqlite3.connect(tmp_path / "database" / "d" / "d.sqlite")) as connection:
        connection.executescript("CREATE TABLE t(a); INSERT INTO t VALUES (1);")
    rows = [{"db_id": "d", "question": "Which?", "query": query} for query in ("SELECT a FROM t", "SELECT b FROM t")]
    (tmp_path / "dev.json").write_text(json.dumps(rows))
    printed = run(capsys, "show", "spider", "--data", str(tmp_path), "--split", "dev")
    assert "CREATE TABLE t" in printed and "--- gold: SELECT a FROM t\n--- as a completion: correct" in printed
    assert "as a completion: gold_error" in printed


@pytest.mark.parametrize(
    ("verifier", "gold", "completion"),
    [
        ("math", "1 + 1 = 2\n#### 2", "\\boxed{2}"),
        ("math", ["$x$"], "\\boxed{x}"),
        ("sql", "SELECT 1", "```sql\nSELECT 1\n```"),
        ("gym", "7", "<answer>7</answer>"),
        ("exact", 7, "7"),
        ("json:loads", "x", "x"),
    ],
)
def test_golds_as_completions(verifier: str, gold: object, completion: str) -> None:
    assert verifier_of(verifier).gold_completion(gold) == completion


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["gsm9k"], "did you mean 'gsm8k'"),
        (["demo:in_doman"], "did you mean 'in_domain'"),
        (["spider"], "needs task.data"),
        (["gsm8k", "--data", "/none.jsonl"], "does not exist"),
        (["demo:in_domain", "--prompt", "in_domain-train-0000"], "did you mean 'in_domain-train-0"),
        (["gsm8k", "--train.steps", "3"], "--train.steps is no setting of a task"),
        (["gsm8k", "--task.limt", "3"], "did you mean 'limit'"),
        (["gsm8k", "surplus"], "unexpected extra argument (surplus)"),
    ],
)
def test_wrong_use_ends_with_status_2_and_one_message(
    arguments: list[str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tasks", "show", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("dphrl: ") and part in captured.err and not captured.out


@pytest.mark.parametrize("arguments", [["shwo"], ["--foo"], ["show"]])
def test_unknown_words_end_with_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks", *arguments]) == 2
    assert capsys.readouterr().err.startswith("dphrl: ")
