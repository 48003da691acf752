"""`dphrl eval` on the shipped model: an evaluation directory, drift, what is resumed and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from compare_runs import compared

from dphrl.cli.main import main
from dphrl.config.load import build_config
from dphrl.config.root import Config
from dphrl.errors import ConfigError, ModelError, RunDirError
from dphrl.files import read_json, write_json
from dphrl.models.policy import load_policy, save_policy
from dphrl.runs.checkpoints import Seal, checksums
from dphrl.runs.eval_dir import Model, read_evaldir
from dphrl.runs.samples import read_samples
from dphrl.sampling.base import Request
from dphrl.stages.evaluate import measure_checkpoints
from dphrl.stages.evaluate import measure_model as stage
from dphrl.stages.evaluate.evaluate import evaluate
from dphrl.stages.evaluate.evaluate_models import evaluate_models
from dphrl.stages.evaluate.policy_drift import check_vocabulary
from dphrl.types import Completion

BASE = Model("base", "demo", base=True)


def config_of(out: Path, **sections: Any) -> Config:
    """Arithmetic, judged by comparing texts: no other process is needed."""
    values: dict[str, Any] = {
        "out": str(out),
        "threads": 1,
        "model": {"device": "cpu"},
        "eval_tasks": {"sums": {"data": "demo:arithmetic", "split": "eval", "limit": 6}},
        "sampling": {"max_new_tokens": 12, "batch_size": 16},
        "eval": {"n": 4, "resamples": 200},
    }
    return build_config({**values, **{k: {**values.get(k, {}), **v} for k, v in sections.items()}})


def evaluated(out: Path, *models: Model, **sections: Any) -> dict[str, dict[str, Any]]:
    """Model -> its row of `sums`."""
    where = evaluate_models(config_of(out, **sections), models, base_dir=Path())
    rows = {m.name: json.loads(where.summary(m.name).read_text())["rows"] for m in where.models}
    return {name: {row["dataset"]: row for row in mine}["sums"] for name, mine in rows.items()}


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The shipped model after a push in a random direction."""
    policy = load_policy(config_of(Path("unused"), model={"path": "demo"}))
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in policy.model.parameters():
            weight.add_(0.03 * weight.std() * torch.randn_like(weight))
    folder = tmp_path_factory.mktemp("moved") / "model"
    save_policy(policy, policy.model, folder)
    return Model("moved", str(folder))


class Counting:
    """The real sampler; notes what was asked for, and may be killed after some batches."""

    asked: list[int]
    batches: int | None

    def __init__(self, inner: Any, asked: list[int], batches: int | None) -> None:
        self.inner, self.asked, self.batches = inner, asked, batches

    def draw(self, requests: Sequence[Request]) -> Iterator[list[Completion]]:
        self.asked.append(len(requests))
        for number, batch in enumerate(self.inner.draw(requests)):
            if number == self.batches:
                raise KeyboardInterrupt
            yield batch

    def close(self) -> None:
        self.inner.close()


def counting(monkeypatch: pytest.MonkeyPatch, batches: int | None = None) -> list[int]:
    """Requests of each draw from now on."""
    asked: list[int] = []
    make = stage.make_sampler
    monkeypatch.setattr(stage, "make_sampler", lambda config, policy: Counting(make(config, policy), asked, batches))
    return asked


@pytest.mark.slow
def test_a_model_is_measured_against_the_base(tmp_path: Path, moved: Model) -> None:
    rows = evaluated(tmp_path / "e", moved, BASE, eval={"drift": 2})
    base, after = rows["base"], rows["moved"]
    assert base["keep"] is None and after["retention"]["base_solved"] > 0 and after["bands"]
    assert after["maj_at_k"]["1"]["value"] == pytest.approx(after["mean_at_n"])
    assert after["length"]["p90"] <= 12 and after["tokens_per_second"] > 0 and after["prompts"] == 6
    table = pq.read_table(tmp_path / "e/eval/moved/sums.parquet")
    assert table.num_rows == 6 * 5 and {"solution", "answer"} <= set(table.column_names)
    summary = compared([tmp_path / "e"], tmp_path / "out", resamples=100)
    assert [row["method"] for row in summary["rows"]] == ["base", "moved"] and summary["baseline"] == "base"
    found = read_evaldir(tmp_path / "e")
    assert found.made["by"] == "dphrl eval" and "torch" in found.made["versions"]


@pytest.mark.slow
def test_drift_is_what_a_plain_forward_says(tmp_path: Path, moved: Model) -> None:
    """The entropy against the model's own logits, token by token; a model that did not move has not drifted."""
    rows = evaluated(tmp_path / "e", BASE, moved, Model("same", "demo"), eval={"drift": 2})
    assert rows["base"]["drift"]["reverse_kl"] is None and rows["base"]["drift"]["entropy"] is not None
    same, drift = rows["same"]["drift"], rows["moved"]["drift"]
    assert same["reverse_kl"]["value"] == pytest.approx(0.0, abs=1e-6) and same["draws"] == 2
    assert drift["reverse_kl"]["value"] > 1e-4 and drift["forward_kl"]["value"] > 1e-4
    config = config_of(tmp_path / "e", model={"path": moved.path})
    policy = load_policy(config)
    prompts = {p.id: policy.encode(p) for p in stage.load_eval_tasks(config, policy, Path())["sums"].prompts}
    logps = []
    for c in read_samples(tmp_path / "e/eval/moved/sums.parquet"):
        if 0 <= c.draw < 2:
            ids = torch.tensor([[*prompts[c.prompt_id], *c.token_ids]])
            with torch.no_grad():
                said = policy.model(ids).logits[0, len(prompts[c.prompt_id]) - 1 : -1].log_softmax(-1)
            logps += said.gather(1, torch.tensor(c.token_ids)[:, None])[:, 0].tolist()
    assert drift["entropy"]["value"] == pytest.approx(-sum(logps) / len(logps), abs=1e-4)


def untimed(row: dict[str, Any]) -> dict[str, Any]:
    """But for what differs from call to call."""
    return {key: value for key, value in row.items() if key not in ("seconds", "tokens_per_second")}


@pytest.mark.slow
def test_what_was_drawn_is_not_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: Model) -> None:
    """Killed after one batch of 16: the rest is drawn, and the result is that of one go; drift draws nothing."""
    whole = evaluated(tmp_path / "whole", BASE)["base"]
    with monkeypatch.context() as patch:
        counting(patch, batches=1)
        with pytest.raises(KeyboardInterrupt):
            evaluated(tmp_path / "e", BASE)
    asked = counting(monkeypatch)
    again = evaluated(tmp_path / "e", BASE)["base"]
    assert asked == [30 - 16]
    assert untimed(again) == untimed(whole)
    assert not list((tmp_path / "e/eval/base").rglob("part-*"))
    scored = evaluated(tmp_path / "e", BASE, eval={"drift": 1})["base"]
    assert asked == [14] and scored["drift"]["draws"] == 1 and scored["mean_at_n"] == whole["mean_at_n"]
    (tmp_path / "e/eval/base/summary.json").unlink()
    measured = evaluated(tmp_path / "e", BASE, eval={"drift": 1})["base"]
    assert asked == [14, 0] and untimed(measured) == untimed(scored), "measured again from what was drawn"
    asked.clear()
    more = evaluated(tmp_path / "e", Model("moved", moved.path))
    assert asked == [30] and more["moved"]["keep"] is not None and more["base"] == measured


@pytest.mark.slow
def test_what_changed_is_refused_by_name(tmp_path: Path, moved: Model) -> None:
    evaluated(tmp_path / "e", BASE)
    before = (tmp_path / "e/evaluation.json").read_text()
    with pytest.raises(RunDirError, match=r"eval.n: there 4, now 8"):
        evaluated(tmp_path / "e", BASE, eval={"n": 8})
    older = read_json(tmp_path / "e/evaluation.json")
    del older["made"]["settings"]["eval"]["drift"]
    write_json(tmp_path / "e/evaluation.json", older)
    evaluated(tmp_path / "e", BASE)
    assert (tmp_path / "e/evaluation.json").read_text() == before, "a setting that is newer has its default"
    with pytest.raises(RunDirError, match=r"eval_tasks.sums.limit: there 6, now 3"):
        tasks = {"sums": {"data": "demo:arithmetic", "split": "eval", "limit": 3}}
        evaluated(tmp_path / "e", BASE, eval_tasks=tasks)
    with pytest.raises(RunDirError, match=r"model base: there demo, now "):
        evaluated(tmp_path / "e", Model("base", moved.path))
    with pytest.raises(RunDirError, match=r"--base: there base, now moved"):
        evaluated(tmp_path / "e", Model("moved", moved.path, base=True))
    with pytest.raises(ModelError, match=r"model.path=./gone does not exist"):
        evaluated(tmp_path / "e", Model("gone", "./gone"))
    assert (tmp_path / "e/evaluation.json").read_text() == before, "what is refused leaves no trace"


def test_one_server_serves_one_model_a_call(tmp_path: Path, moved: Model) -> None:
    server = {"backend": "openai", "base_url": "http://127.0.0.1:9/v1"}
    with pytest.raises(ConfigError, match=r"2 models are to be drawn from \(base, moved\); give one --model a call"):
        evaluated(tmp_path / "e", BASE, moved, sampling=server)
    assert not (tmp_path / "e").exists()


@pytest.mark.slow
def test_the_command_ends_with_its_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", "--model", "before=demo", "--model", "after=demo", "--base", "after", "--tasks", "demo:arithmetic"]
    words += ["--n", "2", "--out", str(tmp_path / "e"), "--eval_tasks.arithmetic.limit", "4"]
    words += ["--model.device", "cpu", "--threads", "1", "--sampling.max_new_tokens", "12", "--eval.resamples", "100"]
    assert main([*words, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [(row["method"], row["model"]) for row in said["rows"]] == [("base", "after"), ("before", "before")]
    assert {row["n"] for row in said["rows"]} == {2}
    assert main(words) == 0
    assert "before" in (shown := capsys.readouterr().out) and f"eval: done, see {tmp_path / 'e'}" in shown
    assert main([*words[:-2], "--eval.resamples", "200"]) == 2
    assert "eval.resamples: there 100, now 200" in capsys.readouterr().err


def test_no_more_draws_are_scored_than_made() -> None:
    with pytest.raises(ConfigError, match=r"eval.drift=5 draws cannot be scored of eval.n=4"):
        config_of(Path("unused"), eval={"drift": 5})


def test_another_vocabulary_has_no_drift() -> None:
    one = load_policy(config_of(Path("unused"), model={"path": "demo"}))
    other = load_policy(config_of(Path("unused"), model={"path": "demo"}))
    check_vocabulary(one, other)
    other.tokenizer.add_tokens(["<new>"])
    with pytest.raises(ModelError, match="different vocabularies; leave out --drift"):
        check_vocabulary(one, other)


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunDirError, match=r"is not empty and holds no evaluation\.json"):
        evaluated(tmp_path, BASE)
    (tmp_path / "notes.txt").unlink()
    with pytest.raises(ConfigError, match="no task is named"):
        evaluate_models(build_config({"out": str(tmp_path)}), [BASE], base_dir=Path())


def test_a_base_judged_by_other_rules_is_no_base(tmp_path: Path, moved: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    first = evaluated(tmp_path / "e", BASE, eval={"n": 1})["base"]
    assert "verifier_rules" not in first
    monkeypatch.setattr(stage, "rules_of", lambda spec: f"{spec} 2")
    with pytest.raises(RunDirError, match=r"other rules of the verifier: there earlier ones, now \S+ 2"):
        evaluated(tmp_path / "e", moved, eval={"n": 1})


@pytest.mark.slow
def test_checkpoints_are_measured_on_the_same_few_prompts(
    tmp_path: Path, moved: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 6 prompts 3 are taken; a torn checkpoint does not count, an adapter alone is refused."""
    monkeypatch.setattr(measure_checkpoints, "PROMPTS", 3)
    config = config_of(tmp_path / "run", model={"path": "demo"})
    with pytest.raises(RunDirError, match=r"train holds no whole checkpoint; train\.save_every says how often"):
        evaluate(config, models=("checkpoints",))
    for step, whole in ((2, True), (4, False), (10, True)):
        folder = tmp_path / "run" / "train" / f"checkpoint-{step}"
        shutil.copytree(moved.path, folder)
        if whole:
            Seal(checksums(folder), []).write(folder)
    run = evaluate(config, models=("checkpoints",))
    samples = {path.parent.name: read_samples(path) for path in (run.root / "eval").glob("*/sums.parquet")}
    assert samples.keys() == {"checkpoint-2", "checkpoint-10"}
    ids = [{c.prompt_id for c in drawn} for drawn in samples.values()]
    assert ids[0] == ids[1] and len(ids[0]) == 3 and len(samples["checkpoint-2"]) == 3 * 5
    (tmp_path / "run" / "train" / "checkpoint-10" / "config.json").unlink()
    with pytest.raises(RunDirError, match=r"checkpoint-10 holds no whole model .* checkpoints are adapters"):
        evaluate(config, models=("checkpoints",))
