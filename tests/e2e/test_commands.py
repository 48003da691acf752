"""The real commands on the shipped model, in processes of their own: end to end, resumed after a kill, and refused."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from made_once import made_once

from dphrl.anchors import open_store
from dphrl.cli.main import main

pytestmark = pytest.mark.slow

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "100"}


def dphrl(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, as a user runs it."""
    command = [sys.executable, "-m", "dphrl", *map(str, arguments)]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)


def called(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The command's function in this process, which has paid for its imports."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([str(a) for a in arguments])
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), err.getvalue())


def written(tmp_path: Path, values: dict[str, Any]) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def assert_done(result: subprocess.CompletedProcess[str]) -> None:
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr and "Warning" not in result.stderr, result.stderr


def files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_run_makes_every_file_of_the_contract_and_does_nothing_twice(tmp_path: Path, demo_values: Any) -> None:
    config = written(tmp_path, demo_values)
    assert_done(dphrl("run", "--config", config))
    run = Path(demo_values["out"])
    made = files(run)
    assert {
        "config.yaml",
        "versions.json",
        "presample/completions-00000.parquet",
        "presample/partition.json",
        "anchors/manifest.json",
        "anchors/index.arrow",
        "anchors/part-00000.arrow",
        "train/metrics.jsonl",
        "train/final/model.safetensors",
        "train/final/tokenizer.json",
        "eval/base/in_domain.parquet",
        "eval/base/summary.json",
        "eval/final/in_domain.parquet",
        "eval/final/summary.json",
        "report/index.html",
        "report/summary.json",
    } <= made
    assert not [name for name in made if name.endswith(".tmp")]
    partition = json.loads((run / "presample/partition.json").read_text())
    assert len(partition["near_perfect"]) + len(partition["exploration"]) + len(partition["dropped"]) == 48
    assert len(open_store(run / "anchors", None)) == len(partition["near_perfect"])
    row = json.loads((run / "eval/final/summary.json").read_text())["rows"][0]
    assert (row["dataset"], row["model"], row["n"], row["prompts"]) == ("in_domain", "final", 4, 6)
    assert set(row["pass_at_k"]) == {"1", "2", "4"} and row["keep"] is not None
    metrics = [json.loads(line) for line in (run / "train/metrics.jsonl").read_text().splitlines()]
    assert [m["step"] for m in metrics] == [2, 4] and all("anchor/forward_kl" in m for m in metrics)
    assert "verifier/status/correct" in metrics[0]
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.suffix in (".parquet", ".arrow", ".safetensors")}
    again = called("run", "--config", config, "--json")
    assert_done(again)
    assert {row["method"] for row in json.loads(again.stdout)["rows"]} == {"base", "dph_f"}
    assert before == {p: p.stat().st_mtime_ns for p in before}
    assert called("report", "--config", config).stdout.splitlines()[-1] == f"Page: {run / 'report' / 'index.html'}"
    refused(
        called("eval", "--config", config, "--model", "base", "--eval.base", "false", "--out", tmp_path / "n"), "base"
    )


def wait_for(condition: Any, process: subprocess.Popen[str], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def started(*arguments: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "dphrl", *map(str, arguments)]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def samples(path: Path) -> list[dict[str, Any]]:
    rows = pq.read_table(path).to_pylist()
    return [{k: r[k] for k in ("prompt_id", "draw", "token_ids", "reward", "status")} for r in rows]


def presamples(run: Path) -> list[dict[str, Any]]:
    rows = [row for path in (run / "presample").glob("completions-*.parquet") for row in samples(path)]
    return sorted(rows, key=lambda row: (row["prompt_id"], row["draw"]))


def interrupt_after(batches: int, patch: pytest.MonkeyPatch) -> None:
    """Ctrl-C arrives when this many batches are drawn."""
    from dphrl.sampling.transformers_sampler import TransformersSampler

    whole = TransformersSampler.draw

    def draw(self: Any, requests: Any) -> Any:
        for number, batch in enumerate(whole(self, requests)):
            if number == batches:
                raise KeyboardInterrupt
            yield batch

    patch.setattr(TransformersSampler, "draw", draw)


def test_presample_interrupted_in_mid_draw_goes_on_with_the_same_draws(tmp_path: Path, demo_values: Any) -> None:
    """Batches of 4 completions; the result equals one that ran through in large batches."""
    slow = {**demo_values, "sampling": {"max_new_tokens": 40, "batch_size": 4}}
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(7, patch)
        result = called("presample", "--config", written(tmp_path, slow))
    assert result.returncode == 130 and "goes on" in result.stderr
    run = Path(demo_values["out"])
    drawn = sum(pq.read_metadata(p).num_rows for p in (run / "presample").glob("completions-*.parquet"))
    assert drawn == 7 * 4
    assert_done(called("presample", "--config", written(tmp_path, slow)))
    whole = {**demo_values, "out": str(tmp_path / "whole")}
    assert_done(called("presample", "--config", written(tmp_path, whole)))
    other = tmp_path / "whole"
    assert (
        json.loads((run / "presample/partition.json").read_text())["near_perfect"]
        == (json.loads((other / "presample/partition.json").read_text())["near_perfect"])
    )
    assert presamples(run) == presamples(other)


@pytest.fixture
def undisturbed(tmp_path_factory: pytest.TempPathFactory, demo_values: Any) -> Path:
    """A folder with `config.yaml`, `presampled`, a run before its training, and `whole`, trained without a stop."""
    train = {**demo_values["train"], "steps": 30, "save_every": 2}

    def make(folder: Path) -> None:
        values = {**demo_values, "out": str(folder / "presampled"), "method": "dph", "train": train}
        config = written(folder, values)
        assert_done(called("presample", "--config", config))
        shutil.copytree(folder / "presampled", folder / "whole")
        assert_done(called("train", "--config", config, "--out", folder / "whole"))

    return made_once(tmp_path_factory, "undisturbed", make)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_training_goes_on_from_its_checkpoint_to_the_same_weights(
    how: signal.Signals, tmp_path: Path, undisturbed: Path
) -> None:
    config, whole, run = undisturbed / "config.yaml", undisturbed / "whole", tmp_path / "run"
    shutil.copytree(undisturbed / "presampled", run)
    process = started("train", "--config", config, "--out", run)
    wait_for(lambda: (run / "train/checkpoint-4/dphrl-complete").exists(), process)
    process.send_signal(how)
    process.communicate(timeout=60)
    assert process.returncode == (130 if how == signal.SIGINT else -9)
    assert not (run / "train/final").exists()
    torn = run / "train/checkpoint-58"
    torn.mkdir()  # as a kill in the middle of saving leaves it
    (torn / "trainer_state.json").write_text("{}")
    assert_done(called("train", "--config", config, "--out", run))
    assert (run / "train/final/model.safetensors").read_bytes() == (
        whole / "train/final/model.safetensors"
    ).read_bytes()
    steps = [json.loads(line)["step"] for line in (run / "train/metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(2, 61, 2))


def test_evaluation_interrupted_in_mid_draw_goes_on(tmp_path: Path, demo_values: Any) -> None:
    values = {**demo_values, "sampling": {"max_new_tokens": 40, "batch_size": 8}}
    values["eval_tasks"]["in_domain"]["limit"] = 20
    config = written(tmp_path, values)
    run = Path(values["out"])
    with pytest.MonkeyPatch.context() as patch:
        interrupt_after(3, patch)
        assert called("eval", "--config", config, "--model", "base").returncode == 130
    assert not (run / "eval/base/summary.json").exists()
    assert list((run / "eval/base").rglob("part-*.parquet"))
    assert_done(called("eval", "--config", config, "--model", "base"))
    assert pq.read_metadata(run / "eval/base/in_domain.parquet").num_rows == 20 * 5
    assert not list((run / "eval/base").rglob("part-*.parquet"))


def refused(result: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert result.returncode == 2, (result.returncode, result.stderr)
    assert "Traceback" not in result.stderr
    for part in parts:
        assert part in result.stderr, result.stderr


def changed(values: dict[str, Any], **sections: Any) -> dict[str, Any]:
    if sections.get("method", "dph") not in ("dph", "replay"):
        values = {**values, "objective": {}}  # what it holds is of the methods with anchors
    return values | {k: {**values.get(k, {}), **v} if isinstance(v, dict) else v for k, v in sections.items()}


def rows(tmp_path: Path, *lines: dict[str, Any]) -> dict[str, Any]:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {"data": str(path), "verifier": "exact"}


def test_bad_input_ends_with_status_2_and_one_message(tmp_path: Path, demo_values: Any) -> None:
    def presample(**sections: Any) -> subprocess.CompletedProcess[str]:
        return called("presample", "--config", written(tmp_path, changed(demo_values, **sections)))

    refused(called("train"), "no settings file is named")
    refused(called("train", "--config", tmp_path / "none.yaml"), "does not exist", "recipes")
    refused(presample(anchor={"treshold": 3}), "anchor.treshold", "did you mean 'threshold'")
    refused(presample(anchor={"threshold": 5}), "anchor.threshold=5", "1..presamples=4")
    refused(presample(model={"path": str(tmp_path / "nowhere")}), "does not exist")
    task = rows(tmp_path, {"question": "a", "answer": "b"})
    refused(presample(task={**task, "limit": None}), "gold", "answer")
    doubled = rows(tmp_path, {"id": "x", "question": "a", "gold": "b"}, {"id": "x", "question": "c", "gold": "d"})
    refused(presample(task={**doubled, "limit": None}), "x")
    refused(presample(task={**rows(tmp_path), "limit": None}), "rows.jsonl")
    refused(presample(task={"data": str(tmp_path / "none.jsonl"), "verifier": "exact"}), "none.jsonl")
    assert not Path(demo_values["out"], "presample").exists()


def test_no_near_perfect_prompt_is_an_error_with_the_remedy(tmp_path: Path, demo_values: Any) -> None:
    never = rows(tmp_path, *({"question": f"how many {i}", "gold": "never"} for i in range(4)))
    values = changed(demo_values, task={**never, "limit": None})
    refused(called("presample", "--config", written(tmp_path, values)), "no near-perfect prompt", "anchor.threshold")


def test_a_model_without_end_or_padding_token_is_refused(tmp_path: Path, demo_values: Any) -> None:
    from dphrl.demo.task import model_folder

    for token, part in (("eos_token", "end token"), ("pad_token", "--model.pad_token")):
        folder = tmp_path / token
        shutil.copytree(model_folder(), folder)
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        settings.pop(token)
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        for extra in ("special_tokens_map.json",):
            (folder / extra).unlink(missing_ok=True)
        values = changed(demo_values, model={"path": str(folder)})
        refused(called("presample", "--config", written(tmp_path, values)), part)


def test_anchors_of_another_model_and_a_directory_of_another_config_are_refused(
    tmp_path: Path, demo_values: Any
) -> None:
    from safetensors.torch import load_file, save_file

    from dphrl.demo.task import model_folder

    folder = tmp_path / "model"
    shutil.copytree(model_folder(), folder)
    values = changed(demo_values, model={"path": str(folder)})
    config = written(tmp_path, values)
    assert_done(called("presample", "--config", config))
    refused(called("presample", "--config", config, "--seed", "1"), "another config", "seed", "--out")
    tensors = load_file(folder / "model.safetensors")
    save_file({k: v + 0.01 for k, v in tensors.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    refused(called("train", "--config", config), "another weights", "anchors '", "this run '")
    assert not (Path(values["out"]) / "train").exists()
    refused(called("eval", "--config", config), "no trained model", "dphrl train")
    refused(called("report", tmp_path / "none"), "none")


def test_demo_quick_compares_and_writes_the_page(tmp_path: Path) -> None:
    out = tmp_path / "quick"
    result = dphrl("demo", "--quick", "--methods", "base,grpo,dph_f", "--out", out)
    assert_done(result)
    assert "DPH-F" in result.stdout and "GRPO" in result.stdout
    summary = json.loads((out / "compare/summary.json").read_text())
    assert {r["method"] for r in summary["rows"]} == {"base", "grpo", "dph_f"}
    assert {r["dataset"] for r in summary["rows"]} == {"in_domain", "cross_domain", "arithmetic", "reversal"}
    assert {"method", "dataset", "metric", "mean", "sd", "difference"} <= set(summary["aggregate"][0])
    assert {r["dataset"] for r in summary["rows"] if "frontier_limit" in r} == {"in_domain", "cross_domain"}
    assert (out / "report/index.html").stat().st_size > 10_000
    refused(called("demo", "--methods", "base,grop"), "did you mean 'grpo'")


@pytest.mark.parametrize("method", ["dapo", "rkl", "replay"])
def test_every_other_method_runs_too(method: str, tmp_path: Path, demo_values: Any) -> None:
    objective = {"kl_estimator": "k1_reward"} if method == "rkl" else {}
    values = changed(demo_values, method=method, objective=objective)
    config = written(tmp_path, values)
    assert_done(called("presample", "--config", config))
    assert_done(called("train", "--config", config))
    assert (Path(values["out"]) / "train/final/model.safetensors").exists()
