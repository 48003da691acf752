"""recipes/spider-smollm2 from the questions to the report, on a small Spider and a random model in SmolLM2's place."""

from __future__ import annotations

import json
import runpy
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from byte_models import byte_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from dphrl.config.load import load_config, to_dict
from dphrl.config.overrides import parse_overrides

RECIPE = Path(__file__).parents[2] / "recipes" / "spider-smollm2"
JUDGE = """
def reward(completions, gold, **others):
    # Even numbers are always right: near-perfect prompts; the others now and then.
    return [float(int(right.split()[-1]) % 2 == 0 or len(text) % 2) for text, right in zip(completions, gold)]
"""
"""A random model writes no query, so another judge pays it."""
FEW = (
    "--task.verifier judge:reward --task.verifier_args {} --task.limit 12 --eval_tasks.in_domain.limit 2"
    " --eval_tasks.cross_domain.limit 2 --eval.n 2 --train.steps 1"
)


def small_spider(folder: Path) -> Path:
    """Spider's layout: two databases, 490 queries of training in two wordings, some of dev."""
    rows: dict[str, list[dict[str, str]]] = {"train_spider": [], "dev": []}
    for split, db, queries in (("train_spider", "shop", 490), ("dev", "zoo", 4)):
        (folder / "database" / db).mkdir(parents=True)
        with closing(sqlite3.connect(folder / "database" / db / f"{db}.sqlite")) as connection:
            connection.executescript("CREATE TABLE t(a INTEGER, b INTEGER); INSERT INTO t VALUES (1, 2), (3, 4);")
        for i in range(queries):
            gold = {"db_id": db, "query": f"SELECT  a FROM t WHERE b = {i}"}
            rows[split] += [{**gold, "question": text} for text in (f"Which a has b {i}?", f"Give a where b is {i}.")]
    for split, lines in rows.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    return folder


def lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def questions(spider_folder: Path, out: Path) -> dict[str, list[dict[str, str]]]:
    command = [sys.executable, RECIPE / "questions.py", "--spider", spider_folder, "--out", out]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    return {path.stem: lines(path) for path in out.glob("*.jsonl")}


def sizes(parts: dict[str, list[dict[str, str]]]) -> dict[str, int]:
    return {name: len(rows) for name, rows in parts.items()}


def test_every_method_is_one_of_the_config(tmp_path: Path) -> None:
    shutil.copy(RECIPE / "spider.yaml", tmp_path)
    methods = runpy.run_path(str(RECIPE / "run.py"))["METHODS"]
    configs = {
        name: load_config(tmp_path / "spider.yaml", parse_overrides(words.split())) for name, words in methods.items()
    }
    assert len({json.dumps(to_dict(config), default=str) for config in configs.values()}) == len(methods)
    assert configs["dph_correct"].anchor.source == "correct" and configs["dph_f"].anchor.source == "near_perfect"
    assert configs["rkl_k2"].objective.kl_estimator == "k2" and configs["dph_js"].objective.eta == 0.5


def test_a_run_starts_from_presamples_of_its_seed_and_anchors() -> None:
    run = runpy.run_path(str(RECIPE / "run.py"))["Run"]
    assert run("dph_f", "0").base == ("base-s0", "--seed 0 ")
    assert run("grpo", "1").base == run("dph_js", "1").base == ("base-s1", "--seed 1 ")
    assert run("dph_correct", "1").base == ("base-correct-s1", "--seed 1 --anchor.source correct")


def test_other_anchors_are_made_from_the_draws_that_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline_of = runpy.run_path(str(RECIPE / "run.py"))["Pipeline"]
    for name in ("presample/drawn.json", "eval/base/summary.json", "anchors/manifest.json"):
        (tmp_path / "base-s1" / name).parent.mkdir(parents=True)
        (tmp_path / "base-s1" / name).write_text("{}")
    called: list[tuple[object, ...]] = []
    monkeypatch.setattr(pipeline_of, "dphrl", lambda self, *words: called.append(words))
    other = tmp_path / "base-correct-s1"
    pipeline_of(tmp_path, 2, []).presample("base-correct-s1", "--seed 1 --anchor.source correct")
    options = ("--seed", "1", "--anchor.source", "correct")
    assert called == [("base-correct-s1-presample", "presample", "--out", other, *options)]
    assert (other / "presample" / "drawn.json").exists() and (other / "eval" / "base" / "summary.json").exists()
    assert not (other / "anchors").exists()  # the other run's would pass for its own


def test_a_folder_that_is_not_spider_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, str(RECIPE / "run.py"), "--spider", str(tmp_path), "--out", str(tmp_path / "out")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2 and "holds no train_spider.jsonl" in ended.stderr
    assert not (tmp_path / "out").exists()


def no_query_twice(parts: dict[str, list[dict[str, str]]]) -> bool:
    golds = [{(row["db_id"], row["gold"]) for row in part} for part in parts.values()]
    return sum(map(len, golds)) == len(set.union(*golds))


def test_questions(tmp_path: Path) -> None:
    parts = questions(small_spider(tmp_path / "spider"), tmp_path / "questions")
    assert sizes(parts) == {"in_domain": 80, "train": 400, "tune": 20, "cross_domain": 8}
    assert no_query_twice(parts)
    row = parts["cross_domain"][0]
    assert row["prompt"].startswith("t(a, b)\nQuestion: ") and row["prompt"].endswith("\nSQL:")
    assert row["gold"].startswith("SELECT a FROM t")


def test_questions_of_spider(tmp_path: Path, shared_data: Path) -> None:
    parts = questions(shared_data / "spider", tmp_path)
    assert sizes(parts) == {"in_domain": 80, "train": 400, "tune": 1684, "cross_domain": 60}
    assert no_query_twice(parts)
    unseen = {row["db_id"] for row in parts["cross_domain"]}
    assert not unseen & {row["db_id"] for name in ("train", "tune", "in_domain") for row in parts[name]}


@pytest.mark.slow
def test_from_the_base_to_the_report(tmp_path: Path) -> None:
    out = tmp_path / "out"
    tokenizer = byte_tokenizer()
    tokenizer.save_pretrained(out / "smollm2")
    shape = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    shape.eos_token_id = tokenizer.eos_token_id
    LlamaForCausalLM(shape).save_pretrained(out / "smollm2")
    where = ["--spider", str(small_spider(tmp_path / "spider")), "--out", str(out)]
    command = [sys.executable, str(RECIPE / "run.py"), *where, "--methods", "dph_f", "--seeds", "1", *FEW.split()]
    (tmp_path / "judge.py").write_text(JUDGE)
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr + "".join(path.read_text() for path in out.glob("logs/*"))
    assert (out / "report" / "index.html").exists()
    final = out / "dph_f-s1" / "train" / "final" / "model.safetensors"
    of_text = ["--text", str(tmp_path / "spider" / "dev.jsonl"), "--model", str(out / "model"), str(final.parent)]
    command = [sys.executable, str(RECIPE / "text_loss.py"), *of_text]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    losses = [json.loads(line) for line in said.splitlines()]
    assert losses[0]["over_first"] == [0.0, 0.0, 0.0] and losses[1]["nats"] > 0
