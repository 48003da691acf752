"""`train.share_prompts: on` from the command line, with a model that cannot: exit status 2, nothing begun."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from transformers import GPT2Config, GPT2LMHeadModel, MambaConfig, MambaForCausalLM, PreTrainedModel

from dphrl.cli.main import main
from dphrl.config.load import build_config
from dphrl.models.policy import load_policy


def saved(model: type[PreTrainedModel], config: type, folder: Path, **sizes: int) -> Path:
    """A tiny model with the tokenizer of the demo."""
    policy = load_policy(build_config({"model": {"path": "demo", "device": "cpu"}}))
    torch.manual_seed(0)
    tokens = {"vocab_size": policy.model.config.vocab_size, "eos_token_id": policy.stop_ids[0], "bos_token_id": 1}
    model(config(**tokens, pad_token_id=0, **sizes)).save_pretrained(folder)
    policy.tokenizer.save_pretrained(folder)
    return folder


MODELS = {
    "mamba": (
        lambda folder: saved(MambaForCausalLM, MambaConfig, folder, hidden_size=16, num_hidden_layers=1, state_size=4),
        "MambaForCausalLM cannot be given positions",
    ),
    "dropout": (
        lambda folder: saved(GPT2LMHeadModel, GPT2Config, folder, n_embd=16, n_layer=1, n_head=2, n_positions=128),
        "its forward draws random numbers",
    ),
}
"""The first is known by its kind, the second by looking at it once the weights lie as they will train."""


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_cannot_share_ends_before_the_first_draw(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, why = MODELS[name]
    values = {
        "out": str(tmp_path / "run"),
        "threads": 1,
        "method": "grpo",
        "model": {"path": str(make(tmp_path / name)), "device": "cpu"},
        "task": {"data": "demo:arithmetic", "limit": 8},
        "sampling": {"max_new_tokens": 8},
        "train": {"steps": 1, "prompts_per_step": 2, "group_size": 4},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    arguments = ["train", "--config", str(tmp_path / "run.yaml"), "--train.share_prompts"]
    assert main([*arguments, "on"]) == 2
    told = capsys.readouterr().err
    assert "share_prompts='on' (train.share_prompts) cannot be: " in told and why in told
    assert "use auto or off" in told and "Traceback" not in told
    metrics = tmp_path / "run" / "train" / "metrics.jsonl"
    assert not metrics.exists() or not metrics.read_text(encoding="utf-8")
    assert not list((tmp_path / "run").glob("train/checkpoint-*"))
    assert main([*arguments, "auto"]) == 0
    assert capsys.readouterr().err.count("each completion reads its own prompt (train.share_prompts): ") == 1
    assert (tmp_path / "run" / "train" / "final" / "config.json").exists()
