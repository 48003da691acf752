"""The paper's recipes with every method, their plans on small data in the official layouts, and accelerate's files."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from safetensors.torch import save_file
from transformers import LlamaConfig

from dphrl.cli.main import main
from dphrl.config.load import load_config
from dphrl.config.overrides import parse_overrides
from dphrl.engines.trl.config_to_trl import trainer_settings
from dphrl.stages.plan.checks import needs_datasets
from dphrl.stages.plan.plan import plan_run
from dphrl.stages.plan.plan_text import plan_text

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
PAPER = ("llama31-8b-bird", "omnisql-32b-bird", "llama31-8b-math", "qwen25-math-7b-math")
LAUNCH = sorted((ROOT / "recipes" / "accelerate").glob("*.yaml"))
VARIANTS = dict(re.findall(r"^\| ([\w. -]+) \| `(--[^`]+)` \|$", (ROOT / "docs" / "recipes.md").read_text(), re.M))
GPUS = (8, 16)
ROWS = 130
LLAMA_8B: dict[str, Any] = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
}


def recipe(name: str) -> Path:
    return ROOT / "recipes" / f"{name}.yaml"


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(rows) if path.suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")


def database(folder: Path, name: str) -> None:
    (folder / name).mkdir(parents=True)
    with closing(sqlite3.connect(folder / name / f"{name}.sqlite")) as connection:
        connection.executescript("CREATE TABLE t(a INTEGER); INSERT INTO t VALUES (1), (2);")


def build_world(folder: Path) -> None:
    """The recipes with BIRD, Spider and mathematics beside them, and a folder that has Llama-3.1-8B's config."""
    for path in RECIPES:
        shutil.copy(path, folder)
    data = folder / "data"
    bird = [{"question_id": i, "db_id": f"db{i % 2}", "question": f"Q{i}?", "SQL": "SELECT 1"} for i in range(ROWS)]
    spider = [{"db_id": f"db{i % 2}", "question": f"Q{i}?", "query": "SELECT 1"} for i in range(ROWS)]
    write(data / "bird" / "train" / "train.json", bird)
    write(data / "bird" / "dev_20240627" / "dev.json", bird[:10])
    write(data / "spider" / "train_spider.json", spider)
    write(data / "spider" / "dev.json", spider[:10])
    for name in ("train_spider.jsonl", "dev.jsonl"):  # of the recipes that name Spider's files themselves
        write(data / "spider" / name, spider)
    for place in ("bird/train/train_databases", "bird/dev_20240627/dev_databases", "spider/database"):
        for name in ("db0", "db1"):
            database(data / place, name)
    for name in ("train", "aime24", "amc23", "math500", "college_math"):
        write(data / "math" / f"{name}.jsonl", [{"problem": f"{i} + 1?", "answer": str(i + 1)} for i in range(ROWS)])
    write(data / "math" / "olympiadbench.jsonl", [{"question": "1 + 1?", "final_answer": ["2"]}])
    write(data / "gsm8k" / "train.jsonl", [{"question": "1 + 1?", "answer": "#### 2"}] * ROWS)
    write(data / "gsm8k" / "test.jsonl", [{"question": "1 + 1?", "answer": "#### 2"}] * ROWS)
    llama(folder / "llama")
    shutil.copytree(folder / "llama", folder / "models" / "smollm2-135m")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One world for the tests that change nothing in it."""
    folder = tmp_path_factory.mktemp("world")
    build_world(folder)
    return folder


@pytest.fixture
def world(built: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The command runs in that world, where no weights can be loaded."""
    monkeypatch.chdir(built)
    monkeypatch.setattr("transformers.PreTrainedModel.from_pretrained", None)
    return built


def llama(folder: Path) -> None:
    """The config of Llama-3.1-8B, a tokenizer with a chat template, and one weight."""
    LlamaConfig(**LLAMA_8B).save_pretrained(folder)
    shipped = ROOT / "src" / "dphrl" / "demo" / "assets" / "model"
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(shipped / name, folder)
    (folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    save_file({"one": torch.zeros(1)}, folder / "model.safetensors")


def files(folder: Path) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in folder.rglob("*")}


# The recipes


def test_the_page_lists_the_methods_of_the_paper() -> None:
    assert list(VARIANTS) == ["GRPO", "DAPO", "RKL", "alpha 0.2", "alpha 0.5", "alpha 0.8", "DPH-F", "DPH-JS"]


@pytest.mark.parametrize("name", PAPER)
@pytest.mark.parametrize("method", VARIANTS)
def test_every_method_of_every_recipe_makes_a_trainer_on_one_node_and_two(name: str, method: str) -> None:
    config = load_config(recipe(name), parse_overrides(shlex.split(VARIANTS[method])))
    settings = [trainer_settings(config, Path("x"), processes=gpus) for gpus in GPUS]
    steps = [s["per_device_train_batch_size"] * s["gradient_accumulation_steps"] for s in settings]
    assert [step * gpus for step, gpus in zip(steps, GPUS, strict=True)] == [1024, 1024]
    assert settings[0]["epsilon_high"] == (0.2 if method == "GRPO" else 0.28)
    assert (getattr(config.objective, "divergence", None) == "alpha") == method.startswith("alpha")
    assert (settings[0]["beta"] > 0) == (method == "RKL")


@pytest.mark.parametrize(("name", "threshold"), list(zip(PAPER, (6, 7, 6, 7), strict=True)))
def test_published_numbers(name: str, threshold: int) -> None:
    """8 presamples, lr 1e-6, 128 prompts x 16, mini-batches of 64 prompts, 256 anchors beside 2,048 completions."""
    config = load_config(recipe(name))
    train, anchor = config.train, config.anchor
    assert (anchor.presamples, anchor.threshold, anchor.debias) == (8, threshold, True)
    assert (train.learning_rate, train.prompts_per_step, train.group_size, train.updates) == (1e-6, 128, 16, 2)
    assert config.objective.anchors_per_step is not None
    assert config.objective.anchors_per_step * train.updates == 256
    assert not train.trl["vllm_importance_sampling_correction"], "an explicit choice, TRL's default is true"
    assert all(not needs_datasets(task) for task in (config.task, *config.eval_tasks.values()))


def test_every_number_of_a_recipe_names_its_source() -> None:
    for name in PAPER:
        lines = recipe(name).read_text().split("\nanchor:")[1].splitlines()
        numbers = [line for line in lines if re.search(r": [\d.]+", line.split("#")[0])]
        free = [line for line in numbers if not re.search(r"# .*(\[(paper|script|default|ours)\]|context)", line)]
        assert len(numbers) > 12 and not free, free


# The plan


@pytest.mark.parametrize("name", PAPER)
@pytest.mark.parametrize("method", VARIANTS)
def test_every_method_of_every_recipe_can_be_planned(
    world: Path, name: str, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for gpus in GPUS:
        command = ["plan", f"{name}.yaml", "--gpus", str(gpus), *shlex.split(VARIANTS[method])]
        assert main(command) == 0
        out = capsys.readouterr().out
        with_anchors = method not in ("GRPO", "DAPO", "RKL")
        assert ("128 anchors beside each optimiser step" in out) == with_anchors
        assert ("390 draws in the first wave, 1,170 at most" in out) == (with_anchors and "llama" in name), (
            "130 x 3 of 9"
        )
        assert ("260 draws in the first wave, 1,170 at most" in out) == (with_anchors and "llama" not in name)
        assert f"on {gpus} GPUs" in out and "parameters of model.path=" in out


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.name)
def test_a_plan_writes_nothing(world: Path, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(world)
    one_line = ["--sampling.stop_tokens", "[]"] if path.stem == "gsm8k-smollm2" else []  # no token of the stand-in
    gpus = "8" if path.stem in PAPER else "1"
    assert main(["plan", path.name, "--gpus", gpus, *one_line]) == 0
    assert f"on {gpus} GPU" in capsys.readouterr().out
    assert files(world) == before


@pytest.mark.parametrize("method", VARIANTS)
def test_every_method_can_be_planned_on_a_model_whose_config_is_there(world: Path, method: str) -> None:
    overrides = {"model.path": "llama", "model.pad_token": "null"} | parse_overrides(shlex.split(VARIANTS[method]))
    plan = plan_run(load_config(world / "llama31-8b-math.yaml", overrides, world), base_dir=world, gpus=8)
    assert plan.parameters == 8_030_261_248
    assert (plan.presample_draws is None) == (method in ("GRPO", "DAPO", "RKL"))
    assert plan.anchors_per_step == (0 if plan.presample_draws is None else 128)
    assert plan.training_bytes == 8_030_261_248 * (20 if method == "RKL" else 16)
    assert "8.0 G parameters in bfloat16" in plan_text(plan)


def test_what_is_not_there_is_listed_all_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world = tmp_path
    build_world(world)
    monkeypatch.chdir(world)
    (world / "data" / "bird" / "train" / "train_databases" / "db0" / "db0.sqlite").unlink()
    (world / "data" / "bird" / "train" / "train_databases" / "db1" / "db1.sqlite").write_bytes(b"")
    (world / "data" / "math" / "aime24.jsonl").unlink()
    (world / "llama" / "model.safetensors").unlink()
    arguments = ["plan", "--config", "llama31-8b-bird.yaml", "--model.path", "llama", "--gpus", "7"]
    before = files(world)
    assert (
        main([*arguments, "--model.pad_token", "null", "--anchor.also", "[{task: gsm8k}, {task: {data: x.jsonl}}]"])
        == 2
    )
    captured = capsys.readouterr()
    assert not captured.out and files(world) == before
    for part in (
        "5 to mend",
        "task: 2 databases are missing or empty: ",
        "db0.sqlite, ",
        "db1.sqlite\n",
        "eval_tasks.aime24: task.data='data/math/aime24.jsonl' does not exist",
        "anchor.also x: task.data='x.jsonl' does not exist",
        "llama holds no weights",
        "7 processes (--gpus N for another number): 1024 completions",
    ):
        assert part in captured.err, part


# accelerate's files


@pytest.mark.parametrize("path", LAUNCH, ids=lambda p: p.name)
def test_accelerate_reads_its_files(path: Path) -> None:
    """Its own loader refuses unknown keys at the top; those of the parts must be options of `accelerate launch`."""
    config = load_config_from_file(str(path))
    assert (config.num_processes, config.num_machines, config.mixed_precision) == (8, 1, "bf16")
    known = set(vars(launch_command_parser().parse_args(["x.py"])))
    parts = {**config.fsdp_config, **config.deepspeed_config}
    assert set(parts) <= known
    kinds = {"ddp": "MULTI_GPU", "fsdp2": "FSDP"}
    assert config.distributed_type.value == kinds.get(path.stem, "DEEPSPEED")
    assert parts.get("fsdp_version", 2) == 2
    assert str(parts.get("zero_stage", "")) == path.stem.partition("zero")[2]
