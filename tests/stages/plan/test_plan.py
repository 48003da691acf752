"""`dphrl run --dry-run`: what stops a plan, plans by hand, weight files, and the cost model worked by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file
from transformers import GPT2Config, MambaConfig

from dphrl.cli.main import main
from dphrl.config.load import build_config
from dphrl.config.root import Config
from dphrl.errors import DphrlError, ModelError
from dphrl.models.policy import load_policy
from dphrl.stages.plan import cost
from dphrl.stages.plan.cost import Shape, Tokens
from dphrl.stages.plan.plan import Plan, plan
from dphrl.stages.plan.preflight import shape_of, weight_problems


def planned(values: dict[str, Any], gpus: int = 8) -> Plan:
    return plan(build_config(values), base_dir=Path(), gpus=gpus)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"out": ""}, "out is empty"),
        ({"eval_tasks": {}}, "eval_tasks is empty"),
        ({"train": {"prompts_per_step": 64}}, "48 prompts are fewer than train.prompts_per_step=64"),
        ({"train": {"exploration_filter": [0.1, 0.9]}}, "needs anchor.full_counts"),
        ({"train": {"trl": {"use_vlm": True}}}, "did you mean 'use_vllm'"),
        ({"base_run": "nowhere"}, "nowhere is no run directory"),
        ({"model": {"path": "./nowhere"}}, "./nowhere does not exist"),
        ({"sampling": {"max_new_tokens": 95}}, "none of its 48 prompts is left"),
    ],
)
def test_what_would_stop_a_run_stops_its_plan(
    demo_values: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    for key, value in changes.items():
        merge = isinstance(value, dict) and value
        demo_values[key] = {**demo_values.get(key, {}), **value} if merge else value
    with pytest.raises(DphrlError, match=re.escape(message)):
        planned(demo_values)


def test_another_runs_folder_is_refused_and_other_settings_are_shown(demo_values: dict[str, Any]) -> None:
    folder = Path(demo_values["out"])
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(DphrlError, match=r"holds no config\.yaml"):
        planned(demo_values)
    (folder / "config.yaml").write_text(yaml.safe_dump({**demo_values, "seed": 3}))
    assert any("seed: there 3, now 0" in line for line in planned(demo_values).unknown)


@pytest.mark.parametrize(("options", "part"), [(["--gpus", "8"], "add --dry-run"), (["--dry-run", "--gpus", "0"], "1")])
def test_gpus_are_of_the_plan(
    options: list[str], part: str, demo_values: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(demo_values))
    assert main(["run", "--config", str(tmp_path / "c.yaml"), *options]) == 2
    assert part in capsys.readouterr().err and not Path(demo_values["out"]).exists()


def test_a_plan_by_hand(demo_values: dict[str, Any]) -> None:
    """48 prompts, 3 of 4: first wave min(3, 2) = 2 draws, at most 4 and the debiasing one. 2 generations of 4 x 4 in 2
    updates: 4 steps of 8 completions with 8 anchors. 6 prompts x (4 + greedy) x 2 models; 40 tokens, 10 typical."""
    found = planned(demo_values)
    assert found.presample is not None and found.memory is None and found.gpus == 1
    assert (found.presample.draws, found.presample.most_draws) == (96, 240)
    assert (found.presample.typical.drawn, found.presample.most.drawn) == (48 * 3.5 * 10, 240 * 40)
    training = found.training
    assert (training.optimiser_steps, training.completions_per_step, training.anchors_per_step) == (4, 8, 8)
    assert (training.stage.draws, training.stage.typical.drawn) == (32, 320)
    mean = found.found.task.mean if found.found.task else None
    assert mean is not None and training.stage.typical.trained == pytest.approx((32 + 4 * 8) * (mean + 10))
    assert training.stage.typical.scored == pytest.approx(32 * (mean + 10)), "the policy has moved at the second update"
    assert (found.evaluation.draws, found.evaluation.gpus, found.evaluation.hours) == (60, 1, None)
    demo_values["train"]["updates"] = 1
    assert planned(demo_values).training.stage.typical.scored == 0


def test_what_loads_a_reference_model_is_what_the_objective_reads_it_for() -> None:
    from dphrl.method.definition import DEFINITIONS

    for name, parts in DEFINITIONS.items():
        objective = {"divergence": name, "form": "definition"}
        config = build_config({"method": "dph", "objective": objective})
        assert config.loads_reference == (parts.fresh is not None)
    assert build_config({"method": "rkl"}).loads_reference and not build_config({"method": "dph"}).loads_reference


def test_resampling_and_several_anchors_raise_the_bounds(demo_values: dict[str, Any]) -> None:
    demo_values["method"] = "dapo"
    dapo = planned(demo_values).training.stage
    assert (dapo.draws, dapo.most_draws, dapo.most.drawn) == (32, 32 * 4, 32 * 4 * 40)
    demo_values |= {"method": "dph", "anchor": {"presamples": 4, "threshold": 3, "per_prompt": 3}}
    demo_values["anchor"]["also"] = [{"task": "demo:arithmetic", "prompts": 5}]
    several = planned(demo_values)
    assert several.presample is not None and several.presample.most_draws == (48 + 5) * (4 + 3)
    assert [facts.prompts for facts in several.found.keep] == [5]


def test_a_named_data_set_is_not_looked_for(demo_values: dict[str, Any]) -> None:
    demo_values["eval_tasks"] = {"gsm8k": {"name": "gsm8k", "split": "test", "limit": 20}}
    found = planned(demo_values)
    assert [(f.prompts, f.mean) for f in found.found.eval] == [(20, None)]
    assert any("openai/gsm8k is a `datasets` name" in line for line in found.unknown)


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(64)}, tmp_path / "a.safetensors")
    index = {"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (lacking,) = weight_problems(tmp_path)
    assert "b.safetensors is missing" in lacking
    save_file({"b": torch.zeros(64)}, tmp_path / "b.safetensors")
    assert weight_problems(tmp_path) == []
    whole = (tmp_path / "b.safetensors").read_bytes()
    (tmp_path / "b.safetensors").write_bytes(whole[:-8])
    (damaged,) = weight_problems(tmp_path)
    assert "b.safetensors is damaged or cut short" in damaged


# The cost model

EIGHT_B = Shape(parameters=8 * 10**9, layers=32, hidden=4096, kv_heads=8, head_dim=128)


def config_of(**values: Any) -> Config:
    train = {"prompts_per_step": 128, "group_size": 16, "micro_batch": 2, **values.pop("train", {})}
    return build_config({"model": {"dtype": "bfloat16"}, "train": train, **values})


def test_the_shape_is_that_of_the_loaded_model(tmp_path: Path) -> None:
    policy = load_policy(build_config({"model": {"path": "demo", "device": "cpu"}}))
    shape = shape_of(policy.source)
    assert shape.parameters == sum(p.numel() for p in policy.model.parameters()), "tied weights once"
    assert (shape.layers, shape.hidden, shape.kv_heads, shape.head_dim) == (2, 96, 4, 24)


def test_other_models_have_a_shape_or_say_why_not(tmp_path: Path) -> None:
    """GPT-2 has other names for these numbers, Mamba has no heads."""
    GPT2Config(n_embd=64, n_layer=3, n_head=4, vocab_size=50).save_pretrained(tmp_path / "gpt2")
    shape = shape_of(str(tmp_path / "gpt2"))
    assert (shape.layers, shape.hidden, shape.kv_heads, shape.head_dim) == (3, 64, 4, 16)
    MambaConfig(hidden_size=32, num_hidden_layers=1, vocab_size=50).save_pretrained(tmp_path / "mamba")
    with pytest.raises(ModelError, match="num_attention_heads"):
        shape_of(str(tmp_path / "mamba"))


@pytest.mark.parametrize(
    ("layout", "dtype", "bytes_a_parameter"),
    [
        ("ddp", "bfloat16", 2 + 2 + 4),
        ("ddp", "float32", 4 + 4 + 8),
        ("fsdp2", "bfloat16", 16 / 8),
        ("deepspeed-zero2", "bfloat16", 2 + (2 + 4 + 8) / 8),
        ("deepspeed-zero2", "float32", 4 + (4 + 8) / 8),
        ("deepspeed-zero3", "bfloat16", (2 + 2 + 4 + 8) / 8),
        ("deepspeed-zero3", "float32", (4 + 4 + 8) / 8),
    ],
)
def test_bytes_of_weights_gradients_and_adamw(layout: str, dtype: str, bytes_a_parameter: float) -> None:
    config = config_of(model={"dtype": dtype})
    used = cost.memory(EIGHT_B, config, layout, gpus=8, sequence=1, micro=1)
    assert used.states == pytest.approx(8e9 * bytes_a_parameter)
    assert used.reference == 0


def test_activations_and_cache() -> None:
    """2 sequences of 1,000 tokens: 34 bytes x 4,096 a token and layer; with checkpointing 2 x 4,096 and one layer more.
    Cache: 2 x 32 x 8 x 128 x 2 bytes = 131,072 a token, 2,048 / 8 = 256 sequences."""
    plain = cost.memory(EIGHT_B, config_of(), "fsdp2", gpus=8, sequence=1000, micro=2)
    assert plain.activations == 34 * 4096 * 2000 * 32
    again = config_of(train={"gradient_checkpointing": True}, method="rkl")
    less = cost.memory(EIGHT_B, again, "fsdp2", gpus=8, sequence=1000, micro=2)
    assert less.activations == 2 * 4096 * 2000 * 32 + 34 * 4096 * 2000
    assert less.cache == 131_072 * 256 * 1000
    assert less.reference == 8e9 * 2 / 8
    assert less.training == less.states + less.reference + less.activations


def test_hours() -> None:
    """989e12 x 0.35 x 3,600 operations an hour in training, 989e12 x 0.05 x 3,600 in vLLM."""
    trained = Tokens(scored=1e9, trained=1e9)
    an_hour = 989e12 * 0.35 * 3600
    hours = cost.training_hours(EIGHT_B, trained, checkpointing=False, gpus=8)
    assert hours == pytest.approx(8e9 * (2e9 + 6e9) / an_hour / 8)
    again = cost.training_hours(EIGHT_B, trained, checkpointing=True, gpus=8)
    assert again == pytest.approx(hours * 10 / 8)
    drawn = cost.drawing_hours(EIGHT_B, Tokens(read=1e8, drawn=1e9), "vllm", 4)
    assert drawn == pytest.approx(2 * 8e9 * 1.1e9 / (989e12 * 0.05 * 3600) / 4)
    assert cost.checkpoint_bytes(EIGHT_B, config_of()) == 8e9 * (24 + 2)
