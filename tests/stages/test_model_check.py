"""Models that cannot be trained are refused before anything is drawn, by the stages and by doctor, with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import SMALL, tiny
from transformers import AutoConfig, PhimoeConfig, Qwen2_5_VLConfig, SmolVLMConfig
from transformers.models.auto import AutoModelForCausalLM

from dphrl.cli.main import main
from dphrl.config.load import build_config
from dphrl.engines.trl.balancing_loss import balancing_weight, check_balancing_loss
from dphrl.errors import ConfigError, ModelError
from dphrl.models.dropout import other_in_training
from dphrl.models.policy import load_policy, load_tokenizer
from dphrl.stages.model_check import check_before_drawing

TOKENIZER = load_tokenizer(build_config({"model": {"path": "demo"}}).model)
PHIMOE = PhimoeConfig(**SMALL, num_local_experts=4)


@pytest.mark.parametrize("stage", ["doctor", "presample", "train"])
def test_a_model_that_is_no_one_policy_is_refused(
    stage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """RWKV reads the padding; `train` has no anchors, so that nothing else refuses it."""
    model, out = tmp_path / "model", tmp_path / "run"
    tiny("rwkv", vocabulary=len(TOKENIZER)).save_pretrained(model)
    TOKENIZER.save_pretrained(model)
    config = tmp_path / "run.yaml"
    config.write_text(
        f"out: {out}\nmethod: grpo\nmodel: {{path: {model}, device: cpu}}\ntask: {{name: 'demo:in_domain'}}\n"
        "train: {prompts: all}\nsampling: {max_new_tokens: 8}\n"
    )
    assert main([stage, "--model", str(model)] if stage == "doctor" else [stage, str(config)]) == 2
    said = capsys.readouterr().err
    assert "RwkvForCausalLM scores rows with log-probabilities that are" in said and "Traceback" not in said
    assert not [*out.glob("presample/*.parquet"), *out.glob("train/checkpoint-*")]


@pytest.mark.parametrize("config", [Qwen2_5_VLConfig(), SmolVLMConfig()], ids=lambda c: c.model_type)
def test_a_model_of_images_without_a_causal_lm_is_refused(config: Any, tmp_path: Path) -> None:
    config.save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=f"it is a {config.model_type}, a model of images and text"):
        load_policy(build_config({"model": {"path": str(tmp_path)}}))


def test_a_balancing_loss_that_trl_cannot_compute_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"reads num_experts .* PhimoeConfig .*router_aux_loss_coef to 0"):
        check_balancing_loss(PHIMOE, None)
    check_balancing_loss(PHIMOE, 0.0)
    check_balancing_loss(tiny("mixtral-router").config, None)
    assert balancing_weight(PHIMOE, None) == PHIMOE.router_aux_loss_coef > 0
    assert balancing_weight(AutoConfig.for_model("llama"), None) == 0


def test_noise_that_cannot_be_turned_off_is_refused_for_anchors() -> None:
    """PhiMoE draws its experts in training."""
    model = AutoModelForCausalLM.from_config(PHIMOE)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(4)
    assert other_in_training(model) and not model.eval().training
    values = {"model": {"path": "demo", "device": "cpu"}, "train": {"trl": {"router_aux_loss_coef": 0.0}}}
    policy = load_policy(build_config(values))
    policy.__dict__["model"] = model.eval()
    with pytest.raises(ModelError, match="PhimoeForCausalLM reads a text otherwise in training"):
        check_before_drawing(build_config(values), policy)
    check_before_drawing(build_config({**values, "method": "grpo"}), policy)


def test_doctor_says_what_train_does_about_a_mixture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny("mixtral-router", vocabulary=len(TOKENIZER))
    model.config.router_jitter_noise = 0.1
    model.save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    assert main(["doctor", "--model", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert (
        "TRL adds 0.001 times its balancing loss (train.trl.router_aux_loss_coef), and prompts are not shared" in said
    )
    assert "noise of the router: router_jitter_noise; off beside anchors" in said
    assert "with padded rows because the mixture's balancing loss" in said
