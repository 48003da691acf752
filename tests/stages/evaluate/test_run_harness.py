"""lm-evaluation-harness beside our own numbers: arguments, files, tables, and one real run on the shipped model."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from compare_runs import compared
from rich.console import Console

from dphrl.cli.main import main
from dphrl.config.load import build_config
from dphrl.config.root import Config
from dphrl.demo.task import load_demo_task
from dphrl.errors import ConfigError, DataError, RunDirError
from dphrl.files import write_json
from dphrl.report.comparison import HarnessNumber
from dphrl.report.lm_eval_table import harness_table, print_harness
from dphrl.runs.eval_dir import Model, add_samples, write_evaldir
from dphrl.runs.harness_results import HarnessRow, read_harness_results
from dphrl.stages.evaluate.evaluate import harness_targets
from dphrl.stages.evaluate.run_harness import (
    HarnessRequest,
    HarnessTarget,
    harness_request,
    parse_arguments,
    run_harness,
)
from dphrl.stages.report.write_report import write_report
from dphrl.types import Completion, Verdict

RESULTS = {
    "results": {
        "sums": {
            "alias": "sums",
            "sample_len": 8,
            "exact_match,strict": 0.25,
            "exact_match_stderr,strict": 0.125,
            "perplexity,none": 3.5,
            "perplexity_stderr,none": "N/A",
            "note,none": "text",
            "lost,none": float("nan"),
        }
    },
    "higher_is_better": {"sums": {"exact_match": True, "perplexity": False}},
    "n-shot": {"sums": 5},
    "versions": {"sums": 2.0},
}
"""What `simple_evaluate` of lm_eval 0.4.13 returns, as far as it is read."""


def row(task: str, value: float, **more: Any) -> dict[str, Any]:
    """A row of lm-eval.json."""
    known = {"metric": "acc", "filter": "none", "stderr": 0.01, "n": 100, "shots": 0, "higher_is_better": True}
    return {"asked": task, "task": task, **known, "value": value, "version": 1.0, **more}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A stand-in for lm_eval that keeps what it was asked."""
    asked: list[dict[str, Any]] = []

    def simple_evaluate(**given: Any) -> dict[str, Any]:
        asked.append(given)
        if given["tasks"] == ["broken"]:
            raise ValueError("no such data set")
        return RESULTS

    tasks = types.ModuleType("lm_eval.tasks")
    tasks.TaskManager = lambda **given: types.SimpleNamespace(all_tasks=["sums", "broken"], given=given)  # type: ignore[attr-defined]
    package = types.ModuleType("lm_eval")
    package.simple_evaluate, package.__version__ = simple_evaluate, "0.4.13"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lm_eval", package)
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", tasks)
    monkeypatch.setattr("dphrl.stages.evaluate.run_harness._task_manager", lambda **given: tasks.TaskManager(**given))
    return asked


def config(**sections: Any) -> Config:
    return build_config({"model": {"path": "demo", "device": "cpu"}, **sections})


def test_arguments_are_yaml() -> None:
    """Numbers, truth values and texts; what is none of NAME=VALUE is refused."""
    assert parse_arguments(["limit=100", "apply_chat_template=true", "gen_kwargs=temperature=0"]) == {
        "limit": 100,
        "apply_chat_template": True,
        "gen_kwargs": "temperature=0",
    }
    for words in (["limit"], ["=3"], ["a=1", "a=2"], ["a=["]):
        with pytest.raises(ConfigError, match="--lm-eval-arg"):
            parse_arguments(words)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is drawn."""
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "lm_eval" else found(name))
    with pytest.raises(ConfigError, match=r"dphrl\[lm-eval\]"):
        harness_request("gsm8k")


def test_a_task_is_run_once_and_its_numbers_are_kept(calls: list[dict[str, Any]], tmp_path: Path) -> None:
    """Numbers alone, with their standard error where there is one; a second call runs nothing; other settings are
    refused; a further task is added."""
    target = HarnessTarget(tmp_path / "final", "demo")
    run_harness(HarnessRequest(("sums",), {"limit": 8}), config(sampling={"batch_size": 3}), [target])
    (call,) = calls
    assert (call["tasks"], call["batch_size"], call["limit"], call["device"]) == (["sums"], 3, 8, "cpu")
    assert call["model_args"]["pretrained"].endswith("assets/model")
    assert call["model_args"]["dtype"] == "float32"
    rows = read_harness_results(target.folder).rows
    kept = [(r.metric, r.filter, r.value, r.stderr, r.n, r.shots, r.higher_is_better) for r in rows]
    assert kept == [
        ("exact_match", "strict", 0.25, 0.125, 8, 5, True),
        ("perplexity", "none", 3.5, None, 8, 5, False),
    ]
    run_harness(HarnessRequest(("sums",), {"limit": 8}), config(), [target])
    assert len(calls) == 1
    with pytest.raises(RunDirError, match="limit: there 8, now None"):
        run_harness(HarnessRequest(("sums",), {}), config(), [target])
    with pytest.raises(RunDirError, match="dtype: there 'float32', now 'bfloat16'"):
        run_harness(
            HarnessRequest(("sums",), {"limit": 8}), config(model={"path": "demo", "dtype": "bfloat16"}), [target]
        )
    with pytest.raises(DataError, match=r"cannot measure 'broken' on demo: no such data set"):
        run_harness(HarnessRequest(("sums", "broken"), {"limit": 8}), config(), [target])
    assert read_harness_results(target.folder).rows == rows


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    """And nothing is guessed of it."""
    cases = {
        "{": "damaged",
        '{"schema": 1, "settings": {}, "rows": [{}]}': "damaged",
        '{"schema": 9, "settings": {}, "rows": []}': "schema 9",
    }
    for text, why in cases.items():
        (tmp_path / "lm-eval.json").write_text(text)
        with pytest.raises(RunDirError, match=why):
            read_harness_results(tmp_path)


def test_the_table_has_a_row_a_metric_and_a_column_a_model() -> None:
    """Seeds apart where a method has several; what was not measured is a dash; a terminal without signs gets words."""
    rows = [
        HarnessNumber("base", "", 0, HarnessRow(**row("sums", 0.5))),
        HarnessNumber("grpo", "", 1, HarnessRow(**row("sums", 0.25, stderr=None))),
        HarnessNumber("grpo", "", 2, HarnessRow(**row("sums", 0.75, filter="strict", higher_is_better=False))),
    ]
    table = harness_table(rows)
    assert table is not None
    assert table.headings == ("task", "metric", "n", "Base", "GRPO, seed 1", "GRPO, seed 2")
    assert table.rows == (
        ("sums", "acc ↑", "100", "0.5000 ± 0.0100", "0.2500", "–"),
        ("sums", "acc, strict ↓", "100", "–", "–", "0.7500 ± 0.0100"),
    )
    assert harness_table([]) is None
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding="ascii") as out:
        print_harness(rows, Console(file=out, width=120))
        out.flush()
        assert "0.5000 +- 0.0100" in raw.getvalue().decode("ascii")


def test_a_run_has_two_targets() -> None:
    """Its base, where that is measured at all, and the model it trained."""
    base, final = HarnessTarget(Path("r/eval/base"), "demo"), HarnessTarget(Path("r/eval/final"), "r/train/final")
    assert harness_targets(config(out="r"), ("base", "final")) == [base, final]
    assert harness_targets(config(out="r"), ("base",)) == [base]
    assert harness_targets(config(out="r", eval={"base": False}), ("base", "final")) == [final]


@pytest.mark.slow
def test_a_comparison_holds_them_beside_ours(tmp_path: Path) -> None:
    """Of every model of an evaluation directory, with method and seed; the base is called so. The page shows them."""
    root = tmp_path / "evals"
    where = write_evaldir(root, [Model("q", base=True), Model("g-s2", method="g", seed=2)], ["t"])
    for name, right in (("q", True), ("g-s2", False)):
        verdict = Verdict(right, float(right), "correct" if right else "wrong")
        add_samples(root, name, "t", [Completion("p", 0, (), "x", "stop", verdict)], resamples=100)
    assert compared([root], tmp_path / "none", resamples=100)["harness"] == []
    for name, value in (("q", 0.5), ("g-s2", 0.25)):
        content = {"schema": 1, "settings": {}, "rows": [row("sums", value)]}
        write_json(where.folder(name) / "lm-eval.json", content)
    found = compared([root], tmp_path / "both", resamples=100)["harness"]
    page = write_report([root], tmp_path / "page", resamples=100).read_text(encoding="utf-8")
    assert 'id="harness"' in page
    assert "0.2500 ± 0.0100" in page
    kept = [(r["method"], r["seed"], r["task"], r["value"]) for r in found]
    assert kept == [("base", 0, "sums", 0.5), ("g", 2, "sums", 0.25)]


TASK = """
task: small_sums
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
output_type: generate_until
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["\\n"], do_sample: false, max_gen_toks: 16}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # lm_eval's and its packages' own
@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="lm_eval is not installed (dphrl[lm-eval])")
def test_the_command_on_the_shipped_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A YAML task of our own over six of the demo's prompts: lm_eval gives the share that our greedy draws give, in
    lm-eval.json and in the printed summary; the second call runs nothing again."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    prompts = load_demo_task("arithmetic", "eval").prompts[:6]
    lines = (json.dumps({"question": p.prompt, "answer": p.columns["gold"]}) for p in prompts)
    (tmp_path / "data.jsonl").write_text("".join(f"{line}\n" for line in lines))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "own.yaml").write_text(TASK.format(data=tmp_path / "data.jsonl"))
    out = tmp_path / "evals"
    command = ["eval", "--model", "base=demo", "--tasks", "demo:arithmetic", "--n", "2", "--out", str(out), "--json"]
    command += ["--eval_tasks.arithmetic.limit", "6", "--sampling.max_new_tokens", "16", "--model.device", "cpu"]
    own = ["--lm-eval-arg", f"include_path={tmp_path / 'tasks'}", "--lm-eval-arg", "include_defaults=false"]
    assert main([*command, *own]) == 2
    assert "--lm-eval-arg is of lm-evaluation-harness" in capsys.readouterr().err
    assert main([*command, "--lm-eval", "small_sum", *own]) == 2
    assert "did you mean 'small_sums'" in capsys.readouterr().err
    assert main([*command, "--lm-eval", "small_sums", *own, "--lm-eval-arg", "mode=1"]) == 2
    assert "--lm-eval-arg mode is none of lm_eval" in capsys.readouterr().err
    assert main([*command, "--lm-eval", "small_sums", *own]) == 0
    summary = json.loads(capsys.readouterr().out)
    (found,) = summary["harness"]
    (ours,) = summary["rows"]
    assert (found["method"], found["task"], found["metric"], found["n"]) == ("base", "small_sums", "exact_match", 6)
    assert found["value"] == pytest.approx(ours["greedy"])
    before = (out / "eval" / "base" / "lm-eval.json").stat().st_mtime_ns
    assert main([*command, "--lm-eval", "small_sums", *own]) == 0
    assert (out / "eval" / "base" / "lm-eval.json").stat().st_mtime_ns == before
