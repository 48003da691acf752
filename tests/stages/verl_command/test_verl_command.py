"""`dphrl verl-command`: the script that is printed, as bash and as people read it."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from dphrl.cli.main import main
from dphrl.config.load import load_config
from dphrl.demo.task import model_folder
from dphrl.engines.verl.hydra_words import command_lines, override

ROOT = Path(__file__).parents[3]
RECORDED = Path(__file__).with_name("llama31-8b-bird.sh")
"""Recorded, from the project's folder, by
dphrl verl-command --config recipes/llama31-8b-bird.yaml --out /runs/bird --nodes 2 \
  > tests/stages/verl_command/llama31-8b-bird.sh
"""
COMMAND = ["verl-command", "--config", "recipes/llama31-8b-bird.yaml", "--out", "/runs/bird", "--nodes", "2"]


def printed(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(words) == 0
    return capsys.readouterr().out


def as_bash_reads(script: str) -> list[str]:
    """The words that the script would start python with."""
    shown = 'mkdir() { :; }\npython() { printf "%s\\0" "$@"; }\n' + script
    return subprocess.run(["bash", "-c", shown], capture_output=True, text=True, check=True).stdout.split("\0")[:-1]


def value_of(words: list[str], key: str) -> str:
    (value,) = [word.partition("=")[2] for word in words if word.partition("=")[0] == key]
    return value


def test_the_recorded_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert printed(COMMAND, capsys) == RECORDED.read_text()


def test_bash_reads_what_was_meant(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    words = as_bash_reads(printed(COMMAND, capsys))
    assert words[:2] == ["-m", "verl.trainer.main_ppo"]
    assert value_of(words, "trainer.logger") == "[console,file]"
    assert value_of(words, "data.val_files").startswith("[/runs/bird/verl/bird-dev.parquet,/runs/bird/verl/spider-dev")
    assert len({word.partition("=")[0] for word in words[2:]}) == len(words) - 2


def test_words_in_quotes_reach_hydra() -> None:
    given = ["it's", "a b", '"', "\\", "null", "7", "$x", "`id`", "{a}", "x,y", ""]
    script = command_lines(["python"], [override("+k", [word]) for word in given])
    assert as_bash_reads(script) == [override("+k", [word]) for word in given]
    assert override("k", "null") == 'k="null"' and override("k", "7") == 'k="7"'
    assert override("k", 'a"b') == r'k="a\"b"' and override("k", "a\\") == r'k="a\\"'
    assert override("k", {"a": [1, True, None]}) == "k={a:[1,True,null]}"


def write_config(folder: Path, **sections: Any) -> Path:
    values = {
        "out": str(folder / "run"),
        "model": {"path": "demo"},
        "task": {"data": "x.jsonl"},
        "train": {"prompts_per_step": 8, "group_size": 8},
        **sections,
    }
    path = folder / "my config.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_what_to_run_before_names_the_same_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_config(tmp_path)
    lines = printed(["verl-command", str(path), "--objective.eta", "0.1", "--data", str(tmp_path / "data")], capsys)
    run = f"--config '{path}' --objective.eta 0.1 {{}} {tmp_path}/run"
    assert f"#   dphrl presample {run.format('--out')}\n" in lines
    assert f"#   dphrl export verl {run.format('--run')} --out {tmp_path}/data\n" in lines
    assert "ray start" not in lines
    shared = write_config(tmp_path, base_run=str(tmp_path / "base"))
    words = printed(["verl-command", str(shared)], capsys)
    assert "dphrl presample" not in words and f"+dph.anchors={tmp_path}/base/anchors" in words
    assert "dphrl presample" not in printed(["verl-command", str(path), "--method", "grpo"], capsys)


def test_the_export_that_is_named_can_be_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For a method without anchors it begins the run; a second time it finds it."""
    task = {"data": "demo:in_domain", "limit": 4}
    evals = {"in_domain": {**task, "split": "eval"}}
    path = write_config(tmp_path, task=task, eval_tasks=evals, sampling={"max_new_tokens": 40})
    script = printed(["verl-command", str(path), "--method", "grpo", "--out", str(tmp_path / "other")], capsys)
    (line,) = [line for line in script.splitlines() if "dphrl export verl" in line]
    words = shlex.split(line.removeprefix("#"))[1:]
    for _ in range(2):
        assert main(words) == 0
    assert load_config(tmp_path / "other" / "config.yaml").method == "grpo"
    files = sorted(path.name for path in (tmp_path / "other" / "verl").glob("*.parquet"))
    assert files == ["in_domain.parquet", "train.parquet"]
    assert main([*words, "--seed", "1"]) == 0 and main([*words, "--run", str(tmp_path / "none" / "x")]) == 0
    assert value_of(as_bash_reads(script), "data.train_files") == str(tmp_path / "other" / "verl" / "train.parquet")


def test_other_nodes_are_started_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_config(tmp_path)
    two = ["--gpus", "4", "--nodes", "2"]
    assert "On the other one:\n#   ray start --address=FIRST_NODE:6379 --num-gpus=4" in printed(
        ["verl-command", str(path), *two], capsys
    )
    apart = printed(["verl-command", str(path), *two, "--mode", "separate_async", "--rollout-nodes", "1"], capsys)
    assert "On the first of 3 nodes (2 that train and 1 that draw)" in apart and "each of the 2 others" in apart


@pytest.mark.parametrize("adds", [True, False])
def test_texts_begin_as_the_tokenizer_has_it(adds: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "model"
    shutil.copytree(model_folder(), model)
    tokenizer = AutoTokenizer.from_pretrained(model, bos_token="<unk>")
    if adds:
        special = [("<unk>", tokenizer.bos_token_id)]
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<unk> $A", special_tokens=special)
    tokenizer.save_pretrained(model)
    words = as_bash_reads(printed(["verl-command", str(write_config(tmp_path)), "--model.path", str(model)], capsys))
    template = value_of(words, "actor_rollout_ref.model.custom_chat_template")
    assert template == ('"{{ bos_token }}{{ messages[0].content }}"' if adds else '"{{ messages[0].content }}"')
    assert value_of(words, "actor_rollout_ref.model.path") == str(model)


def test_a_tokenizer_that_is_not_here_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = printed(["verl-command", str(write_config(tmp_path)), "--model.path", "org/none"], capsys)
    assert "# Not known here: whether the tokenizer of org/none puts a begin token" in said


def test_files_that_hold_chat_messages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Then verl has the model's own template: the one for texts would read the first message alone."""
    row = {"prompt": [{"role": "user", "content": "3 * 3?"}], "reward_model": {"ground_truth": "9"}}
    (tmp_path / "for-verl.json").write_text(json.dumps([row]))
    path = tmp_path / "chat.yaml"
    values = {"out": str(tmp_path / "run"), "method": "grpo", "model": {"path": "demo"}}
    for data, chat in (("for-verl.json", True), ("not-there.json", False)):
        path.write_text(yaml.safe_dump({**values, "task": {"data": data}}))
        script = printed(["verl-command", str(path)], capsys)
        assert ("custom_chat_template" in script) != chat
        assert ("# Not known here: whether the prompts of task are chat messages" in script) != chat


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--gpus", "24"], "do not divide over 24 GPUs"),
        (["--mode", "asynch"], "--mode asynch is not one of"),
        (["--train.advantage", "maxrl"], "train.advantage='maxrl'"),
        (["--out", ""], "out is empty"),
    ],
)
def test_refusals(words: list[str], part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verl-command", str(write_config(tmp_path)), *words]) == 2
    captured = capsys.readouterr()
    assert part in captured.err and captured.out == ""
