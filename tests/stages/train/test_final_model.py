"""The trained model as it is kept: an adapter merged into it, its card, where it goes, and what is refused before."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from made_once import made_once
from safetensors.torch import load_file

from dphrl.cli.main import main
from dphrl.config.load import build_config
from dphrl.engines.trl.config_to_trl import trainer_settings
from dphrl.engines.trl.vllm_options import engine_settings
from dphrl.errors import ConfigError
from dphrl.files import without_checksum
from dphrl.models.policy import load_policy
from dphrl.report.model_card import BEGIN, END, _precision, write_model_card
from dphrl.runs.run_dir import RunDir
from dphrl.sampling.encoded_prompts import task_for_policy
from dphrl.stages.compare.compare import compare_runs
from dphrl.stages.train import final_model as final
from dphrl.stages.train.make_trainer import _refused_by_libraries, adapter, make_trainer
from dphrl.stages.train.train import train

DEMO = Path(__file__).parents[3] / "src" / "dphrl" / "demo" / "assets" / "model" / "model.safetensors"
CORRECTION = "vllm_importance_sampling_correction"


def config(**sections: Any) -> Any:
    return build_config({"out": "runs/mine", "model": {"path": "demo", "device": "cpu"}, **sections})


def settings(trl: Mapping[str, Any], **sections: Any) -> dict[str, Any]:
    return trainer_settings(config(train={"trl": dict(trl)}, **sections), Path("x"))


# Precision


def test_float16_is_drawn_from_and_measured_but_not_trained() -> None:
    with pytest.raises(ConfigError, match=r"model.dtype=float16 can be drawn from.*use bfloat16"):
        settings({}, model={"path": "demo", "dtype": "float16"})


def test_an_adapter_needs_no_pure_16_bit_weights() -> None:
    with pytest.raises(ConfigError, match=r"pure_bfloat16 and lora.r=4: the adapter is float32"):
        settings({}, model={"path": "demo", "dtype": "pure_bfloat16"}, lora={"r": 4})


@pytest.mark.parametrize(
    ("dtype", "lora", "autocast"),
    [("float32", None, False), ("bfloat16", None, True), ("bfloat16", 4, True), ("pure_bfloat16", None, False)],
)
def test_the_trainer_computes_as_anchors_are_scored(dtype: str, lora: int | None, autocast: bool) -> None:
    made = settings({}, model={"path": "demo", "dtype": dtype}, lora={"r": lora})
    assert (made["bf16"], made["fp16"]) == (autocast, False)


@pytest.mark.parametrize(
    ("dtype", "text"),
    [
        ("float32", "float32"),
        ("bfloat16", "bfloat16; trained in float32 computed in bfloat16"),
        ("pure_bfloat16", "bfloat16; trained in bfloat16 without autocast"),
    ],
)
def test_the_card_says_what_was_trained_and_what_is_stored(dtype: str, text: str) -> None:
    assert _precision(config(model={"path": "demo", "dtype": dtype})) == text


@pytest.mark.slow
def test_pure_16_bit_weights_are_told_of_once(tmp_path: Path) -> None:
    """In words, with their share, before the first step."""
    told: list[tuple[str, str]] = []
    values = {
        "out": str(tmp_path / "run"),
        "method": "grpo",
        "threads": 1,
        "model": {"path": "demo", "device": "cpu", "dtype": "pure_bfloat16"},
        "task": {"data": "demo:in_domain", "limit": 8},
        "sampling": {"max_new_tokens": 8},
        "train": {"steps": 2, "prompts_per_step": 2, "group_size": 4, "updates": 1, "learning_rate": 1e-6},
    }
    run = train(build_config(values), progress=lambda label, done, total, note="": told.append((label, note)))
    (text,) = [note for label, note in told if label == "warning"]
    assert re.match(r"99\.\d% of the trained weights cannot move by the learning rate 1e-06", text)
    assert {x.dtype for x in load_file(run.final / "model.safetensors").values()} == {torch.bfloat16}


# LoRA


@pytest.mark.parametrize(
    ("lora", "part"),
    [
        ({"alpha": 8}, "lora.alpha is of an adapter, and lora.r is null"),
        ({"dropout": 0.1}, "lora.dropout is of an adapter"),
        ({"r": 4, "dropout": 0.1}, "anchors were scored without dropout"),
        ({"r": 0}, "lora.r=0"),
    ],
)
def test_an_adapter_that_could_not_be_honoured(lora: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        config(lora=lora)


def test_an_adapter_of_a_method_without_anchors_may_drop() -> None:
    made = adapter(config(method="grpo", lora={"r": 4, "dropout": 0.1}))
    assert (made.r, made.lora_alpha, made.lora_dropout, made.target_modules) == (4, 8, 0.1, "all-linear")
    assert adapter(config()) is None


def test_a_layer_that_is_not_there_is_the_users_mistake() -> None:
    wrong = config(lora={"r": 4, "target_modules": ["q_prog"]})
    with pytest.raises(ConfigError, match=r"lora.target_modules=\['q_prog'\]"), _refused_by_libraries(wrong):
        raise ValueError("Target modules {'q_prog'} not found in the base model")
    with pytest.raises(ValueError, match="a bug"), _refused_by_libraries(config()):
        raise ValueError("a bug")


@pytest.fixture(scope="module")
def lora_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`dphrl run` of an adapter on the shipped model, logged to tensorboard where that is installed."""
    return made_once(tmp_path_factory, "lora", run_lora) / "run"


def run_lora(folder: Path) -> None:
    values: dict[str, Any] = {
        "out": str(folder / "run"),
        "threads": 1,
        "model": {"path": "demo", "device": "cpu"},
        "lora": {"r": 4, "target_modules": ["q_proj", "down_proj"]},
        "task": {"data": "demo:in_domain", "limit": 32},
        "eval_tasks": {"in_domain": {"data": "demo:in_domain", "split": "eval", "limit": 3}},
        "sampling": {"max_new_tokens": 40, "batch_size": 512},
        "anchor": {"presamples": 4, "threshold": 3},
        "objective": {"eta": 0.2, "anchors_per_step": 8},
        "train": {"steps": 2, "prompts_per_step": 4, "group_size": 4, "learning_rate": 1e-2, "save_every": 1},
        "eval": {"n": 2, "resamples": 100},
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    for stage in ("presample", "train", "eval"):
        assert main([stage, "--config", str(path)]) == 0


@pytest.mark.slow
def test_the_merged_model_is_the_initial_one_and_the_adapters_product(lora_run: Path) -> None:
    found, start = load_file(lora_run / "train/final/model.safetensors"), load_file(DEMO)
    tensors = load_file(lora_run / "train/adapter/adapter_model.safetensors")
    assert found.keys() == start.keys()
    moved = {name for name in start if not torch.equal(found[name], start[name])}
    assert moved and all(name.endswith(("q_proj.weight", "down_proj.weight")) for name in moved)
    for name in moved:
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        product = tensors[f"{stem}.lora_B.weight"] @ tensors[f"{stem}.lora_A.weight"] * (8 / 4)
        assert torch.allclose(found[name], start[name] + product, atol=1e-6)


@pytest.mark.slow
def test_checkpoints_hold_the_adapter_and_anchors_are_those_of_the_base(lora_run: Path) -> None:
    checkpoint = lora_run / "train/checkpoint-4"
    assert (checkpoint / "adapter_model.safetensors").exists() and not (checkpoint / "model.safetensors").exists()
    rows = [json.loads(line) for line in (lora_run / "train/metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["anchor/log_u_abs_mean"] > 1e-4, "the adapter counts in the anchors' log-probabilities"
    assert rows[0]["anchor/log_u_abs_mean"] < 0.5


@pytest.mark.slow
def test_the_card_says_what_was_trained_and_measured(lora_run: Path) -> None:
    path = lora_run / "train/final/README.md"
    text = path.read_text()
    for part in (
        "LoRA, r 4, alpha 8, merged",
        "| eta | 0.2 |",
        "| in_domain | base | 3 |",
        "| in_domain | final | 3 |",
    ):
        assert part in text, part
    weights = json.loads((lora_run / "anchors/manifest.json").read_text())["fingerprint"]["weights"]
    assert f"`{weights}`" in text and "trl 1." in text
    card = ModelCard.load(path)
    assert card.data.tags == ["dphrl", "trl", "grpo", "method:dph"] and card.data.license is None


@pytest.mark.slow
def test_an_edited_card_keeps_its_edits(lora_run: Path) -> None:
    path = lora_run / "train/final/README.md"
    before = path.read_text()
    head, _, tail = before.partition(BEGIN)
    edited = head.replace("---\n", "---\nlicense: mit\n", 1) + BEGIN + "\nold\n" + END + tail.partition(END)[2]
    path.write_text(edited)
    config = build_config(yaml.safe_load((lora_run / "config.yaml").read_text()))
    compared = compare_runs([lora_run], lora_run / "report", baseline="base", resamples=config.eval.resamples)
    write_model_card(RunDir(lora_run), config, compared)
    assert "| in-domain | DPH-F | kept | " in before, "the verdict stands above the levels"
    assert path.read_text() == before.replace("---\n", "---\nlicense: mit\n", 1)


# Pushing, without a network


def test_the_final_model_is_pushed_as_it_lies_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pushed: dict[str, Any] = {}

    class Hub:
        def __init__(self, token: str) -> None:
            pushed["token"] = token

        def upload_folder(self, **arguments: Any) -> None:
            pushed.update(arguments)

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    args = SimpleNamespace(hub_token="t", hub_revision=None)
    final._push(RunDir(tmp_path), SimpleNamespace(args=args, hub_model_id="me/mine"))
    assert pushed["folder_path"] == tmp_path / "train" / "final"
    assert (pushed["repo_id"], pushed["token"], pushed["revision"]) == ("me/mine", "t", None)


def test_adapters_are_never_pushed_beside_the_merged_model() -> None:
    trl = {"push_to_hub": True, "hub_model_id": "me/mine"}
    assert "hub_strategy" not in settings(trl)
    assert settings(trl, lora={"r": 4})["hub_strategy"] == "end"
    with pytest.raises(ConfigError, match=r"hub_strategy='every_save'.*use end"):
        settings({**trl, "hub_strategy": "every_save"}, lora={"r": 4})


# Trackers


def test_a_tracker_that_is_unknown_or_not_installed() -> None:
    with pytest.raises(ConfigError, match=r"'tensorbord'.*did you mean 'tensorboard'"):
        settings({"report_to": "tensorbord"})
    with pytest.raises(ConfigError, match="pip install clearml; or leave it out"):
        settings({"report_to": ["clearml"]})
    assert settings({"report_to": "none"})["report_to"] == "none"


@pytest.mark.slow
def test_a_tracker_gets_the_names_of_metrics_jsonl(
    demo_values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dphrl.stages.presample.presample import presample
    from dphrl.stages.train.train import train

    pytest.importorskip("tensorboardX", reason="needs tensorboardX")
    monkeypatch.chdir(tmp_path)  # whatever a tracker writes by itself
    demo_values["train"] |= {"steps": 1, "trl": {"report_to": ["tensorboard"]}}
    config = build_config(demo_values)
    presample(config, base_dir=Path())
    run = train(config, base_dir=Path())
    (events,) = run.train.rglob("events.out.tfevents.*")
    logged = without_checksum(json.loads(run.metrics.read_text().splitlines()[0]))
    sent = events.read_bytes()
    assert not [name for name in logged if name != "step" and f"train/{name}".encode() not in sent]
    assert {"reward", "anchor/forward_kl", "throughput/generation_share"} <= set(logged)


# vLLM


@pytest.mark.parametrize(
    ("trl", "sections", "part"),
    [
        ({"use_vllm": True}, {}, f"{CORRECTION}: true or false"),
        ({"use_vllm": True, CORRECTION: True, "vllm_mode": "colocated"}, {}, "did you mean 'colocate'"),
        (
            {"use_vllm": True, CORRECTION: True, "vllm_importance_sampling_mode": "token"},
            {},
            "is not one of token_truncate",
        ),
        (
            {"use_vllm": True, CORRECTION: False, "generation_kwargs": {"stop_token_ids": [1]}},
            {},
            "use sampling.stop_tokens",
        ),
        (
            {"use_vllm": True, CORRECTION: False},
            {"model": {"path": "demo", "revision": "main"}},
            "download yours and give its folder",
        ),
    ],
)
def test_settings_of_vllm_that_are_unsaid_or_lost(trl: dict[str, Any], sections: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        settings(trl, **sections)


def test_vllm_ends_a_completion_where_the_policy_does(monkeypatch: pytest.MonkeyPatch) -> None:
    stop_ids = load_policy(config(sampling={"stop_tokens": [";"]})).stop_ids
    assert len(stop_ids) == 2
    chosen = settings({"use_vllm": True, CORRECTION: False, "generation_kwargs": {"seed": 3}})
    with pytest.raises(ConfigError, match=r"pip install 'dphrl\[vllm\]'"):
        engine_settings(chosen, stop_ids)
    plain = settings({})
    assert engine_settings(plain, stop_ids) == plain
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    made = engine_settings(chosen, stop_ids)
    assert made["generation_kwargs"] == {"seed": 3, "stop_token_ids": list(stop_ids)}


@pytest.mark.slow
def test_the_reference_of_rkl_is_the_model_without_its_adapter(tmp_path: Path) -> None:
    """No second model is loaded, and before the first step the two agree to the bit."""
    chosen = build_config(
        {
            "out": str(tmp_path),
            "method": "rkl",
            "model": {"path": "demo", "device": "cpu"},
            "lora": {"r": 4},
            "task": {"data": "demo:in_domain", "limit": 8},
            "sampling": {"max_new_tokens": 20},
            "train": {"steps": 1, "updates": 1, "log_every": 1, "prompts_per_step": 4, "group_size": 4},
        }
    )
    policy = load_policy(chosen)
    task = task_for_policy("task", chosen.task, policy, base_dir=tmp_path)
    trainer = make_trainer(chosen, RunDir(tmp_path), task, policy, {p.id for p in task.prompts}, None)
    assert trainer.ref_model is None
    trainer.train()
    assert trainer.state.log_history[0]["kl"] == 0.0
    assert all("lora_" in name for name, p in trainer.model.named_parameters() if p.requires_grad)
