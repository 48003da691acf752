"""Dropout that families keep as modules, as numbers of modules or in attention, and jitter: off in training, too."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BioGptConfig,
    GPT2Config,
    GPTBigCodeConfig,
    MixtralConfig,
    OPTConfig,
    Qwen2Config,
    XGLMConfig,
)

from dphrl.models.dropout import turn_off_dropout

GPT: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
BART: dict[str, Any] = {"num_layers": 2, "attention_heads": 4, "ffn_dim": 48, "max_position_embeddings": 64}
LLAMA: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
COMMON: dict[str, Any] = {"vocab_size": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
CONFIGS = {
    "gpt2": GPT2Config(**COMMON, **GPT),
    "gpt-bigcode": GPTBigCodeConfig(**COMMON, **GPT),
    "opt": OPTConfig(
        **COMMON,
        hidden_size=32,
        word_embed_proj_dim=32,
        ffn_dim=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        attention_dropout=0.1,
        layerdrop=0.5,
    ),
    "xglm": XGLMConfig(**COMMON, **BART, d_model=32, layerdrop=0.5, activation_dropout=0.1),
    "biogpt": BioGptConfig(
        **COMMON, **{k: v for k, v in LLAMA.items() if "key" not in k}, max_position_embeddings=64, layerdrop=0.5
    ),
    "qwen2": Qwen2Config(**COMMON, **LLAMA, attention_dropout=0.2),
    "mixtral": MixtralConfig(**COMMON, **LLAMA, num_local_experts=2, router_jitter_noise=0.2),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # GPT-BigCode of older transformers
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_training_reads_as_evaluation_does(name: str, attention: str) -> None:
    torch.manual_seed(0)
    try:
        model = AutoModelForCausalLM.from_config(copy.deepcopy(CONFIGS[name]), attn_implementation=attention)
    except ValueError as error:
        pytest.skip(f"{name} has no {attention}: {error}")
    saved = model.config.to_dict()
    ids = torch.arange(3, 23)[None]
    with torch.no_grad():
        evaluated = model.eval()(ids).logits
        assert not torch.equal(model.train()(ids).logits, evaluated)
        turn_off_dropout(model)
        assert all(torch.equal(model.train()(ids).logits, evaluated) for _ in range(3))
    assert model.config.to_dict() == saved
