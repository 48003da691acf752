"""`dphrl export verl`: which prompts, what verl reads of them, what is refused, and that nothing is half-written."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from byte_models import CHAT, byte_tokenizer, model_without_weights
from presample_runs import config_of, made

from dphrl.cli.main import main
from dphrl.config.load import build_config
from dphrl.config.root import Config
from dphrl.config.sources import TaskConfig
from dphrl.engines.verl.prompt_ids import text_template, verl_prompt_ids
from dphrl.engines.verl.reward import compute_score
from dphrl.errors import ConfigError, DataError, RunDirError, VerifierError
from dphrl.models.policy import load_policy
from dphrl.progress import silent
from dphrl.runs.run_dir import RunDir, open_run
from dphrl.sampling.encoded_prompts import encode_prompts
from dphrl.stages.export_verl.checks import check_importable
from dphrl.stages.export_verl.export_verl import Export, export_text, export_verl, source_name
from dphrl.stages.presample.draw_origin import claim_draws, task_origin
from dphrl.stages.presample.partition_file import read_partition
from dphrl.tasks import load_task
from dphrl.tasks.verl_rows import row_verifier
from dphrl.types import Prompt
from dphrl.verifiers.registry import verifier_of

QUESTIONS = [{"question": f"{i} + {i}?", "gold": str(2 * i), "id": f"q{i}"} for i in range(4)]


def rows_at(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


@pytest.fixture
def text_run(tmp_path: Path) -> Any:
    """A run of a method that trains on all prompts, so that it needs no partition; settings as keyword arguments."""

    def text_run(tokenizer: Any = None, questions: Any = QUESTIONS, context: int = 512, **sections: Any) -> Config:
        model = model_without_weights(tmp_path / "model", tokenizer or byte_tokenizer(), context)
        (tmp_path / "sums.json").write_text(json.dumps(questions))
        values: dict[str, Any] = {
            "out": str(tmp_path / "run"),
            "method": "grpo",
            "model": {"path": str(model)},
            "task": {"data": str(tmp_path / "sums.json"), "verifier": "exact"},
            "sampling": {"max_new_tokens": 16},
        }
        config = build_config({**values, **{k: {**values.get(k, {}), **v} for k, v in sections.items()}})
        open_run(config)
        return config

    return text_run


def exported(tmp_path: Path) -> Export:
    return export_verl(tmp_path / "run", tmp_path / "data")


def verdicts_of_verls_reward(row: dict[str, Any]) -> tuple[float, float]:
    """`acc` of the gold and of a wrong completion, from what verl hands to a reward function."""
    who, gold = row_verifier(row["extra_info"]), row["reward_model"]["ground_truth"]
    assert who is not None
    texts = (verifier_of(who.spec).gold_completion(gold), "no")
    right, wrong = (asyncio.run(compute_score(row["data_source"], text, gold, row["extra_info"])) for text in texts)
    return right["acc"], wrong["acc"]


@pytest.mark.slow
def test_a_pre_sampled_run_gives_its_exploration_prompts_and_its_eval_tasks(tmp_path: Path) -> None:
    eval_tasks = {name: {"data": f"demo:{name}", "split": "eval", "limit": 3} for name in ("arithmetic", "in_domain")}
    config = config_of(tmp_path / "run", eval_tasks=eval_tasks)
    run = made(config)
    written = exported(tmp_path)
    partition = read_partition(run)
    train = rows_at(tmp_path / "data" / "train.parquet")
    ids = [row["extra_info"]["id"] for row in train]
    assert set(ids) == set(partition.exploration) and partition.near_perfect
    order = [p.id for p in load_task("task", config.task, base_dir=Path()).prompts]
    assert ids == [i for i in order if i in ids], "in the order of the task"
    assert [row["extra_info"]["index"] for row in train] == list(range(len(train)))
    assert {(row["data_source"], row["extra_info"]["split"]) for row in train} == {("demo:arithmetic", "train")}
    assert written.train.rows == len(train)
    assert [file.path.name for file in written.validation] == ["arithmetic.parquet", "in_domain.parquet"]
    schemas = [pq.read_schema(file.path) for file in (written.train, *written.validation)]
    assert schemas[0] == schemas[1] == schemas[2], "verl joins the files"
    for file in (written.train, *written.validation):
        assert all(verdicts_of_verls_reward(row) == (1.0, 0.0) for row in rows_at(file.path))
    back = load_task("t", TaskConfig(data=str(written.train.path)), base_dir=Path())
    by_id = {p.id: p for p in load_task("task", config.task, base_dir=Path()).prompts}
    assert [(p.id, p.prompt, p.columns["gold"]) for p in back.prompts] == [
        (i, by_id[i].prompt, by_id[i].columns["gold"]) for i in ids
    ]


def test_a_method_without_anchors_gives_all_prompts(tmp_path: Path, text_run: Any) -> None:
    text_run()
    written = exported(tmp_path)
    assert [row["extra_info"]["id"] for row in rows_at(written.train.path)] == ["q0", "q1", "q2", "q3"]
    assert written.train.task == "sums" and written.train.longest == len("0 + 0?")
    assert [path.name for path in sorted((tmp_path / "data").iterdir())] == ["export.json", "train.parquet"]


def test_settings(tmp_path: Path, text_run: Any) -> None:
    text_run(sampling={"temperature": 0.7})
    written = exported(tmp_path)
    data = tmp_path / "data"
    assert written.settings == (
        f"data.train_files={data}/train.parquet",
        f"data.val_files={data}/train.parquet",
        "trainer.val_before_train=False",
        "trainer.test_freq=-1",
        "data.max_prompt_length=6",
        "data.max_response_length=16",
        'actor_rollout_ref.model.custom_chat_template="{{ messages[0].content }}"',
        "actor_rollout_ref.rollout.temperature=0.7",
        "actor_rollout_ref.rollout.top_p=1.0",
        "reward.custom_reward_function.path=pkg://dphrl.engines.verl.reward",
    )
    assert f"{data}/train.parquet: 4 prompts of sums, the longest 6 tokens\n" in export_text(written)


def test_chat_prompts_go_through_the_models_own_template(tmp_path: Path, text_run: Any) -> None:
    text_run(
        byte_tokenizer(around="<s> $A", chat_template=CHAT),
        model={"chat_template_args": {"enable_thinking": True}},
        task={"chat": True, "system": "Add."},
        eval_tasks={
            "sums": {"data": str(tmp_path / "sums.json"), "chat": True, "verifier": "exact"},
            "texts": {"data": str(tmp_path / "sums.json"), "verifier": "exact"},
        },
    )
    written = exported(tmp_path)
    row = rows_at(written.train.path)[1]
    assert row["prompt"] == [{"role": "system", "content": "Add."}, {"role": "user", "content": "1 + 1?"}]
    assert row["extra_info"]["chat"] is True
    assert "+data.apply_chat_template_kwargs.enable_thinking=True" in written.settings
    assert not any("custom_chat_template" in word for word in written.settings)
    assert [file.task for file in written.validation] == ["sums"]
    assert written.notes[0].startswith(
        "not written: texts; their prompts are texts, those that are trained on are chat"
    )


@pytest.mark.parametrize(
    ("around", "template"),
    [
        ("$A", "{{ messages[0].content }}"),
        ("<s> $A", "{{ bos_token }}{{ messages[0].content }}"),
        ("</s> $A", "{{ eos_token }}{{ messages[0].content }}"),  # as OPT begins
        ("<pad> $A", '{{ "<pad>" }}{{ messages[0].content }}'),
    ],
)
def test_the_template_of_texts_keeps_the_tokens_around_them(
    tmp_path: Path, text_run: Any, around: str, template: str
) -> None:
    tokenizer = byte_tokenizer(around=around)
    assert text_template(tokenizer) == template
    config = text_run(tokenizer)
    policy = load_policy(config)
    for text in (" two\n\nlines {{ braces }} \n", "ä <i>&amp;</i> 字", "'\"\\"):
        messages = ({"role": "user", "content": text},)
        assert verl_prompt_ids(tokenizer, messages, template, {}) == policy.encode(Prompt("p", text))
    exported(tmp_path)


def test_a_prompt_that_verl_would_read_by_other_tokens_is_refused(tmp_path: Path, text_run: Any) -> None:
    text_run(byte_tokenizer(around="<s> $A"), task={"template": "<s>{question}"})
    with pytest.raises(
        DataError, match=r"prompt 'q0': verl would read 8 tokens, .* with 7; they differ from token 1 on"
    ):
        exported(tmp_path)
    assert not (tmp_path / "data").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "run", "sums.json"], "nothing is half-written"


def test_prompts_that_the_context_cannot_hold_are_left_out(tmp_path: Path, text_run: Any) -> None:
    long = {"question": "1 + " * 20, "gold": "20", "id": "long"}
    text_run(questions=[*QUESTIONS, long], context=64)
    written = exported(tmp_path)
    assert (written.train.rows, written.train.left_out) == (4, 1)
    assert "1 too long for the model's context, left out" in export_text(written)


def test_prompts_that_changed_since_they_were_pre_sampled_are_refused(tmp_path: Path, text_run: Any) -> None:
    config = text_run()
    policy = load_policy(config)
    task = load_task("task", config.task, base_dir=Path())
    origin = task_origin({"weights": "x"}, encode_prompts(task, policy, config, silent))
    claim_draws(RunDir(tmp_path / "run").draws("task"), origin, "")
    exported(tmp_path)
    (tmp_path / "sums.json").write_text(json.dumps([*QUESTIONS[:3], {**QUESTIONS[3], "question": "6?"}]))
    with pytest.raises(RunDirError, match=r"the prompts are no longer those that .*run was pre-sampled with"):
        exported(tmp_path)


def test_an_older_export_is_replaced_and_anything_else_kept(tmp_path: Path, text_run: Any) -> None:
    text_run(eval_tasks={"sums": {"data": str(tmp_path / "sums.json")}})
    exported(tmp_path)
    exported(tmp_path)
    (tmp_path / "data" / "notes.txt").write_text("mine")
    with pytest.raises(RunDirError, match=r"data holds notes\.txt, which no export wrote there"):
        exported(tmp_path)
    assert len(list((tmp_path / "data").iterdir())) == 4
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirError, match="file is a file"):
        export_verl(tmp_path / "run", tmp_path / "file")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "train.parquet").write_text("")
    for manifest in (None, "{}", "[]", "no", '{"format": "another", "rows": {"train.parquet": 1}}'):
        if manifest is not None:
            (tmp_path / "other" / "export.json").write_text(manifest)
        with pytest.raises(RunDirError, match=r"other holds .*train\.parquet"):
            export_verl(tmp_path / "run", tmp_path / "other")


def test_the_name_of_the_training_file_is_taken(tmp_path: Path, text_run: Any) -> None:
    text_run(eval_tasks={"train": {"data": str(tmp_path / "sums.json")}})
    with pytest.raises(ConfigError, match="its file would be"):
        exported(tmp_path)


def test_what_is_refused_on_the_command_line(tmp_path: Path, text_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["export", "verl", "--run", str(tmp_path / "run"), "--out", str(tmp_path / "data")]
    assert main(command) == 2
    assert "is no run directory" in capsys.readouterr().err
    config = text_run()
    open_run(dataclasses.replace(build_config({"method": "dph"}), out=config.out, model=config.model, task=config.task))
    assert main(command) == 2
    assert "holds no partition; run `dphrl presample`" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()
    open_run(config)
    assert main(command) == 0
    assert "settings for verl:\n  data.train_files=" in capsys.readouterr().out


def test_a_function_that_only_the_current_directory_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "")
    (tmp_path / "reward_of_export.py").write_text("def f(completions, **columns): return [1.0] * len(completions)\n")
    with pytest.raises(VerifierError, match=f"current directory alone.*export PYTHONPATH={tmp_path}"):
        check_importable("reward_of_export:f")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    check_importable("reward_of_export:f")
    check_importable("json:dumps")
    check_importable("math")


def test_relative_paths_begin_where_the_config_lies(
    tmp_path: Path, text_run: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text_run(task={"data": "sums.json"})
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    command = ["export", "verl", "--run", "../run", "--out", "data"]
    assert main(command) == 2
    assert "'sums.json' does not exist" in capsys.readouterr().err
    assert main([*command, "--config", str(tmp_path / "c.yaml")]) == 0
    assert (tmp_path / "elsewhere" / "data" / "train.parquet").is_file()


def test_what_the_training_task_is_called() -> None:
    assert source_name(TaskConfig(data="a/sums.jsonl")) == "sums"
    assert source_name(TaskConfig(data="demo:reversal")) == "demo:reversal"
    assert source_name(TaskConfig(name="gsm8k", data="x.json")) == "gsm8k"
