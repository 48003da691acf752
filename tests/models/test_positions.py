"""Padding to the left of a row does not move it, whatever the model makes of positions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import GPT2Config, LlamaConfig, Phi3Config
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.auto import AutoModelForCausalLM

from dphrl.models.positions import needs_positions, with_positions

ROW = 12
"""Tokens; as many as the rotary models were made for."""
SIZES = {
    "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
FACTORS = {"factor": 4.0, "rope_theta": 1e4}
LONG = {"short_factor": [1.0] * 4, "long_factor": [3.0] * 4, "original_max_position_embeddings": ROW}
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": ROW}
ROTARY: dict[str, dict[str, Any]] = {
    "default": {},
    "linear": {},
    "dynamic": {},
    "yarn": {"original_max_position_embeddings": ROW},
    "longrope": LONG,
    "llama3": LLAMA3,
    "proportional": {"partial_rotary_factor": 0.5},
}
"""Kinds of rotary frequencies of transformers -> what each needs."""


def rotary(kind: str) -> Any:
    parameters = {"rope_type": kind, **FACTORS, **ROTARY[kind]}
    if kind == "longrope":
        return Phi3Config(
            **SIZES,
            max_position_embeddings=8 * ROW,
            original_max_position_embeddings=ROW,
            rope_parameters=parameters,
        )
    return LlamaConfig(
        **SIZES, max_position_embeddings=ROW if kind == "dynamic" else 4 * ROW, rope_parameters=parameters
    )


def apart(config: Any) -> tuple[Any, float, float]:
    """A model, and how far a padded row is from the row alone with the positions it is given, and with its own."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(8)  # as initialised all its log-probabilities are about the same
    ids = torch.randint(3, 40, (1, ROW))
    padded = {
        "input_ids": torch.cat([torch.zeros(1, 8, dtype=torch.long), ids], 1),
        "attention_mask": torch.cat([torch.zeros(1, 8, dtype=torch.long), torch.ones_like(ids)], 1),
    }
    with torch.no_grad():
        alone = model(input_ids=ids).logits.log_softmax(-1)
        both = [call(**padded).logits[:, 8:].log_softmax(-1) for call in (with_positions(model), model)]
    given, left_to_it = (float((x - alone).abs().max()) for x in both)
    return model, given, left_to_it


@pytest.mark.parametrize("kind", ROTARY)
def test_padding_moves_no_row_of_any_rotary_kind(kind: str) -> None:
    """Two kinds have frequencies that follow the longest row; the others, yarn too, see distances alone."""
    model, given, left_to_it = apart(rotary(kind))
    assert given < 1e-3
    assert needs_positions(model) == (left_to_it > 1e-2) == (kind in ("dynamic", "longrope"))
    assert needs_positions(model) or left_to_it < 1e-3


def test_no_rotary_kind_is_left_out() -> None:
    assert set(ROPE_INIT_FUNCTIONS) | {"default"} <= set(ROTARY)


def test_padding_moves_no_row_with_learned_positions() -> None:
    model, given, left_to_it = apart(GPT2Config(vocab_size=40, n_embd=32, n_layer=2, n_head=2, n_positions=64))
    assert needs_positions(model)
    assert given < 1e-3 < 1e-2 < left_to_it
