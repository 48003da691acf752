"""`dphrl plan`: what stops a plan, plans by hand, weight files, and room worked by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file
from transformers import ViTConfig

from dphrl.cli.main import main
from dphrl.config.load import build_config
from dphrl.errors import DphrlError, ModelError
from dphrl.models.policy import load_policy
from dphrl.stages.plan.checks import TaskSize, parameters_of, weight_problems
from dphrl.stages.plan.plan import Plan, plan_run
from dphrl.stages.plan.plan_text import plan_text


def planned(values: dict[str, Any], gpus: int = 8) -> Plan:
    return plan_run(build_config(values), base_dir=Path(), gpus=gpus)


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


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["run", "--gpus", "8"], "--gpus is an option of `dphrl plan`"),
        (["run", "--dry-run"], "`dphrl plan FILE` checks"),
        (["plan", "--gpus", "0"], "1"),
        (["plan", "--allow-change"], "No such option"),
    ],
)
def test_gpus_are_of_the_plan(
    words: list[str], part: str, demo_values: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(demo_values))
    assert main([*words, "--config", str(tmp_path / "c.yaml")]) == 2
    assert part in capsys.readouterr().err and not Path(demo_values["out"]).exists()


def test_a_file_is_no_run_directory(demo_values: dict[str, Any]) -> None:
    Path(demo_values["out"]).write_text("mine")
    with pytest.raises(DphrlError, match="is a file; give another --out"):
        planned(demo_values)


def test_a_plan_by_hand(demo_values: dict[str, Any]) -> None:
    """48 prompts, 3 of 4: first wave min(3, 2) = 2 draws, at most 4 and the debiasing one. 2 generations of 4 x 4 in 2
    updates: 4 steps of 8 completions with 8 anchors. 6 prompts x (4 + greedy) x 2 models; 40 tokens at most."""
    plan = planned(demo_values)
    assert (plan.presample_draws, plan.gpus, plan.training_bytes) == ((96, 240), 1, None)
    assert (plan.completions, plan.anchors_per_step, plan.micro_batch) == ((32, 32), 8, 8)
    assert plan.evaluation_draws == 60
    text = plan_text(plan)
    for part in (
        "96 draws in the first wave, 240 at most (4 a prompt, and the debiasing draw); near-perfect from 3; at most "
        "9,600 tokens",
        "2 generations of 4 prompts x 4 completions; 4 optimiser steps of 8 completions in micro-batches of 8 a "
        "process; at most 1,280 tokens",
        "0.2 passes over 48 prompts",
        "60 draws: 4 a prompt and the greedy one, base and trained model; at most 2,400 tokens",
        "on disk for checkpoints",
    ):
        assert part in text, part


def test_what_loads_a_reference_model_is_what_the_objective_reads_it_for() -> None:
    from dphrl.method.definition_form import DEFINITIONS

    for name, parts in DEFINITIONS.items():
        objective = {"divergence": name, "form": "definition"}
        config = build_config({"method": "dph", "objective": objective})
        assert config.objective.loads_reference == (parts.fresh is not None)
    rkl, dph = (build_config({"method": method}).objective for method in ("rkl", "dph"))
    assert rkl.loads_reference and not dph.loads_reference


def test_resampling_and_several_anchors_raise_the_bounds(demo_values: dict[str, Any]) -> None:
    demo_values |= {"method": "dapo", "objective": {}}
    dapo = planned(demo_values)
    assert dapo.completions == (32, 32 * 4) and "32 completions, 128 with every round" in plan_text(dapo)
    demo_values |= {"method": "dph", "anchor": {"presamples": 4, "threshold": 3, "per_prompt": 3}}
    demo_values["anchor"]["also"] = [{"task": "demo:arithmetic", "prompts": 5}]
    several = planned(demo_values)
    assert several.presample_draws is not None and several.presample_draws[1] == (48 + 5) * (4 + 3)
    assert [size.prompts for size in several.keep_sets] == [5]


def test_a_named_data_set_is_not_looked_for(demo_values: dict[str, Any]) -> None:
    demo_values["eval_tasks"] = {"gsm8k": {"name": "gsm8k", "split": "test", "limit": 20}}
    plan = planned(demo_values)
    assert [(size.prompts, size.mean) for size in plan.measured] == [(20, None)]
    assert any("openai/gsm8k is a `datasets` name" in line for line in plan.unknown)


def test_a_file_of_another_kind_is_no_data_set(demo_values: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("question,answer\n")
    demo_values["task"] = {"data": str(tmp_path / "rows.csv"), "template": "{question}"}
    with pytest.raises(DphrlError, match=r"rows\.csv' must be a \.jsonl, \.json, \.parquet file"):
        planned(demo_values)


def test_without_trl_the_rest_is_checked(demo_values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dphrl.stages.plan.plan.missing_packages", lambda: ("trl",))
    plan = planned(demo_values)
    assert plan.micro_batch is None and any("pip install 'dphrl[trl]'" in line for line in plan.unknown)
    assert "4 optimiser steps of 8 completions; at most" in plan_text(plan)


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


# Room


def test_parameters_are_those_of_the_loaded_model() -> None:
    policy = load_policy(build_config({"model": {"path": "demo", "device": "cpu"}}))
    assert parameters_of(policy.source) == sum(p.numel() for p in policy.model.parameters()), "tied weights once"


def test_what_is_no_language_model_says_so(tmp_path: Path) -> None:
    ViTConfig().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="is not of a causal language model"):
        parameters_of(str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "memory", "disk"),
    [
        ({}, 16, 24 + 2),
        ({"model": {"dtype": "float32"}}, 16, 24 + 4),
        ({"model": {"dtype": "pure_bfloat16"}}, 8, 12 + 2),
        ({"method": "rkl", "objective": {}}, 16 + 4, 24 + 2),
        ({"lora": {"r": 8}}, 2, 2),
        ({"lora": {"r": 8}, "method": "rkl", "objective": {}}, 2, 2),
    ],
)
def test_bytes_of_a_parameter(demo_values: dict[str, Any], changes: dict[str, Any], memory: int, disk: int) -> None:
    """bfloat16: trained in float32 with AdamW, the reference too; two checkpoints, and the final model in 16 bits."""
    values = {**demo_values, "model": {"dtype": "bfloat16"}, **changes}
    size = TaskSize("task", 1)
    plan = Plan(
        config=build_config(values),
        gpus=8,
        task=size,
        keep_sets=(),
        measured=(size,),
        parameters=8 * 10**9,
        micro_batch=1,
        unknown=(),
    )
    assert plan.training_bytes == 8 * 10**9 * memory and plan.disk_bytes == 8 * 10**9 * disk
    text = plan_text(plan)
    assert f"{8e9 * memory / 2**30:.1f} GiB of GPU memory for weights" in text
    copied = "and without FSDP2 14.9 GiB on each for the weights in bfloat16" in text
    assert copied == (plan.config.model.dtype == "bfloat16" and plan.config.lora.r is None)
