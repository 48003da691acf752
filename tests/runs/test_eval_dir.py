"""The evaluation directory: written by hand, read by compare and report; and the words of `dphrl eval --model`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from compare_runs import compared

from dphrl.cli.main import main
from dphrl.errors import ConfigError, RunDirError
from dphrl.runs.eval_dir import EvalDir, Model, add_samples, is_evaldir, read_evaldir, write_evaldir
from dphrl.stages.evaluate.eval_request import eval_request, parse_model
from dphrl.stages.report.write_report import write_report
from dphrl.types import Completion, Verdict

RIGHT, WRONG = Verdict(True, 1.0, "correct"), Verdict(False, 0.0, "wrong")


def completions(right: Mapping[str, int], n: int = 4) -> list[Completion]:
    """`right` of n draws, a greedy one that is wrong, no token ids: as another tool may give them."""
    rows = [(i, d, d < c and d >= 0) for i, c in right.items() for d in (-1, *range(n))]
    return [
        Completion(i, d, (), f"{'yes' if ok else 'no'} {d % 2}", "stop", RIGHT if ok else WRONG) for i, d, ok in rows
    ]


def made(root: Path, **counts: Mapping[str, int]) -> EvalDir:
    """A base, and two seeds of one method."""
    models = [Model("qwen", "Qwen/Qwen3-0.6B", base=True), *(Model(f"dph-s{s}", "", "dph", s) for s in (0, 1))]
    write_evaldir(root, models, ["math"], {"by": "hand"})
    for name, right in counts.items():
        add_samples(
            root, name.replace("_", "-"), "math", completions(right), resamples=200, answer=lambda text: text[:2]
        )
    return read_evaldir(root)


@pytest.fixture
def evaldir(tmp_path: Path) -> EvalDir:
    return made(
        tmp_path / "e", qwen={"a": 4, "b": 1, "c": 0}, dph_s0={"a": 4, "b": 0, "c": 1}, dph_s1={"a": 4, "b": 2, "c": 0}
    )


def test_what_is_written_is_read(evaldir: EvalDir) -> None:
    assert is_evaldir(evaldir.root) and evaldir.base == Model("qwen", "Qwen/Qwen3-0.6B", "qwen", 0, True)
    assert [model.label for model in evaldir.models] == ["base", "dph", "dph"] and evaldir.tasks == ("math",)
    values = json.loads((evaldir.root / "evaluation.json").read_text())
    assert values["schema"] == 1 and values["made"] == {"by": "hand"}
    assert values["models"][1] == {"name": "dph-s0", "path": "", "method": "dph", "seed": 0, "base": False}
    (row,) = json.loads(evaldir.summary("dph-s0").read_text())["rows"]
    assert (row["dataset"], row["model"], row["keep"], row["explore"]) == ("math", "dph-s0", 0.5, 1.0)
    assert row["seconds"] is row["length"] is row["drift"] is None and row["too_long"] == []
    assert row["maj_at_k"]["4"]["value"] == pytest.approx(1 / 3) and [b["band"] for b in row["bands"]]
    (base,) = json.loads(evaldir.summary("qwen").read_text())["rows"]
    assert base["keep"] is base["bands"] is None and base["pass_at_k"]["4"]["value"] == pytest.approx(2 / 3)


def test_compare_reads_it_as_runs(evaldir: EvalDir, tmp_path: Path) -> None:
    """Two seeds are joined; the base is `base`; differences refer to it, those of distinct solutions are paired too."""
    summary = compared([evaldir.root], tmp_path / "out", resamples=200)
    assert summary["baseline"] == "base" and summary["notes"] == []
    assert [(r["method"], r["seed"], r["model"]) for r in summary["rows"]] == [
        ("base", 0, "qwen"),
        ("dph", 0, "dph-s0"),
        ("dph", 1, "dph-s1"),
    ]
    found = {a["metric"]: a for a in summary["aggregate"] if a["method"] == "dph"}
    assert found["keep"]["mean"] == 0.75 and found["mean_at_n"]["seeds"] == 2
    assert found["distinct_correct"]["difference"]["low"] is not None
    assert found["keep@4"]["mean"] == found["keep"]["mean"] and found["keep@1"]["mean"] != found["keep"]["mean"]
    assert found["maj@4"]["low"] is not None and found["truncated"]["mean"] == 0.0 and "tokens" not in found
    assert {c["metric"] for c in summary["forgetting"]} == {
        *("greedy", "mean_at_n", "pass@1", "pass@2", "pass@4", "pass@n", "distinct_correct")
    }
    assert compared([evaldir.root], tmp_path / "out", resamples=200, baseline="dph")["baseline"] == "dph"
    json.dumps(summary, allow_nan=False)


def test_directories_are_joined_and_a_model_comes_once(evaldir: EvalDir, tmp_path: Path) -> None:
    other = made(tmp_path / "f", qwen={"a": 0, "b": 1, "c": 0})
    with pytest.raises(RunDirError, match=r"no evaluation yet .*run the `dphrl eval --model"):
        compared([other.root], tmp_path / "out")
    write_evaldir(other.root, [Model("qwen", base=True), Model("grpo")], ["math"])
    add_samples(other.root, "grpo", "math", completions({"a": 1, "b": 1, "c": 1}), resamples=100)
    summary = compared([evaldir.root, other.root], tmp_path / "out", resamples=100)
    assert summary["baseline"] == "grpo"
    assert any(note.startswith("math: the bases of") for note in summary["notes"])
    with pytest.raises(RunDirError, match="both dph with seed 0; name each run once"):
        compared([evaldir.root, evaldir.root], tmp_path / "out")


@pytest.mark.slow
def test_the_report_reads_it(evaldir: EvalDir) -> None:
    page = write_report([evaldir.root], resamples=100)
    assert page == evaldir.root / "report" / "index.html" and "dph" in page.read_text()


def test_tasks_are_added_and_samples_replaced(evaldir: EvalDir) -> None:
    with pytest.raises(RunDirError, match=r"code.parquet is missing.*measure the base on code first"):
        add_samples(evaldir.root, "dph-s0", "code", completions({"x": 1}))
    add_samples(evaldir.root, "qwen", "code", completions({"x": 1}), resamples=100)
    row = add_samples(evaldir.root, "dph-s0", "code", completions({"x": 2}), resamples=100, facts={"seconds": 2.0})
    assert row.seconds == 2.0 and row.keep == 1.0
    assert read_evaldir(evaldir.root).tasks == ("math", "code")
    add_samples(evaldir.root, "dph-s0", "math", completions({"a": 0, "b": 0, "c": 0}), resamples=100)
    rows = json.loads(evaldir.summary("dph-s0").read_text())["rows"]
    assert [(r["dataset"], r["mean_at_n"]) for r in rows] == [("math", 0.0), ("code", 0.5)]


@pytest.mark.parametrize(
    ("models", "tasks", "message"),
    [
        ([Model("a"), Model("a")], [], "two models are called 'a'"),
        ([Model("a", base=True), Model("b", base=True)], [], "two models are the base: a, b"),
        ([Model("../a")], [], r"'\.\./a' is no name"),
        ([Model("a")], ["x/y"], "'x/y' is no name"),
        ([Model("a")], ["summary"], "'summary' is no name"),
        ([Model("base")], [], "is not the base but would be called 'base'"),
    ],
)
def test_bad_names_are_refused(tmp_path: Path, models: list[Model], tasks: list[str], message: str) -> None:
    with pytest.raises(RunDirError, match=message):
        write_evaldir(tmp_path / "e", models, tasks)
    assert not (tmp_path / "e").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is damaged"),
        ('{"schema": 1, "models": [{"nam": 1}], "tasks": [], "made": {}}', "is damaged"),
        ('{"schema": 2, "models": [], "tasks": [], "made": {}}', "has schema 2, and this version of dphrl reads 1"),
        ('{"schema": 1, "models": [{"name": "../x"}], "tasks": [], "made": {}}', "is no name"),
    ],
)
def test_damaged_or_later_directories_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "evaluation.json").write_text(text)
    with pytest.raises(RunDirError, match=message):
        read_evaldir(tmp_path)
    with pytest.raises(RunDirError, match="is no evaluation directory"):
        read_evaldir(tmp_path / "nothing")


def test_a_run_directory_and_an_unknown_model_are_refused(evaldir: EvalDir, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("out: x\n")
    with pytest.raises(RunDirError, match="is a run directory"):
        write_evaldir(tmp_path, [Model("a")])
    with pytest.raises(RunDirError, match=r"no model 'dph-s2'; did you mean 'dph-s[01]'"):
        add_samples(evaldir.root, "dph-s2", "math", completions({"a": 1}))


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("Qwen/Qwen3-0.6B", Model("Qwen3-0.6B", "Qwen/Qwen3-0.6B", "Qwen3-0.6B")),
        ("runs/dph/train/final", Model("dph", "runs/dph/train/final", "dph")),
        ("mine=a/b=c", Model("mine", "a/b=c", "mine")),
        ("grpo@2=runs/x", Model("grpo-s2", "runs/x", "grpo", 2)),
    ],
)
def test_models_have_names(text: str, model: Model) -> None:
    assert parse_model(text) == model


def test_the_first_model_is_the_base_unless_another_is_named_or_there_is_one(evaldir: EvalDir) -> None:
    bases = lambda found: [model.name for model in found.models if model.base]  # noqa: E731
    assert bases(eval_request(["a", "b"], tasks="gsm8k")) == ["a"]
    assert bases(eval_request(["a", "b"], tasks="gsm8k", base="b")) == ["b"]
    there = {"out": str(evaldir.root)}
    assert bases(eval_request(["a", "b"], tasks="gsm8k", overrides=there)) == []
    assert bases(eval_request(["b", "qwen"], tasks="gsm8k", overrides=there)) == ["qwen"]


def test_tasks_and_settings_are_those_of_a_config(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("out: runs/x\nsampling: {temperature: 0.5}\neval_tasks: {mine: {data: x.jsonl}}\n")
    found = eval_request(["a"], config=config, overrides={"eval.n": "4"})
    assert list(found.config.eval_tasks) == ["mine"] and found.base_dir == tmp_path
    assert (found.config.out, found.config.sampling.temperature, found.config.eval.n) == ("", 0.5, 4)
    limited = eval_request(["a"], tasks="demo:arithmetic, math500", overrides={"eval_tasks.math500.limit": "3"})
    tasks = limited.config.eval_tasks
    assert list(tasks) == ["arithmetic", "math500"] and tasks["math500"].limit == 3
    assert (tasks["arithmetic"].name, tasks["arithmetic"].split) == ("demo:arithmetic", "eval")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": ["a", "x/a"], "tasks": "gsm8k"}, "two models are called 'a'"),
        ({"models": ["a"], "tasks": "gsm8", "base": None}, "task.name='gsm8' is not one of .*did you mean 'gsm8k'"),
        ({"models": ["a"], "tasks": "gsm8k,gsm8k"}, "'gsm8k' comes twice"),
        ({"models": ["a"], "tasks": ","}, "--tasks is empty"),
        ({"models": ["a"], "tasks": "gsm8k", "base": "c"}, "--base 'c' is none of the models"),
        ({"models": ["../"], "tasks": "gsm8k"}, r"'\.\./' gives no name; write NAME="),
    ],
)
def test_wrong_words_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        eval_request(**options)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--model", "final", "--model", "x"], "--model final names a model of a run"),
        (["--tasks", "gsm8k"], "--tasks needs models"),
        (["--model", "base", "--base", "x"], "--base needs models"),
        (["--model", "x", "--tasks", "gsm8k"], "out is empty"),
        (["--model", "x", "--out", "/tmp/never"], "no task is named"),
        (["--model", "x", "--n", "3", "--eval.n", "4"], "--n and --eval.n say the same thing"),
    ],
)
def test_the_two_forms_of_eval_are_told_apart(words: list[str], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", *words]) == 2
    assert part in capsys.readouterr().err
