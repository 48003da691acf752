"""Padding to the left of a row does not move it, whatever the model makes of positions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import GPT2Config, LlamaConfig, Phi3Config
from transformers.models.auto import AutoModelForCausalLM

from dphrl.models.positions import needs_positions, with_positions

ROW = 12
"""Tokens; as many as the rotary models were made for."""
SIZES = {
    "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
LONG = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [3.0] * 4, "rope_theta": 1e4}
CONFIGS: dict[str, Any] = {
    "dynamic": lambda: LlamaConfig(
        **SIZES,
        max_position_embeddings=ROW,
        rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4},
    ),
    "longrope": lambda: Phi3Config(
        **SIZES,
        max_position_embeddings=8 * ROW,
        original_max_position_embeddings=ROW,
        rope_parameters={**LONG, "original_max_position_embeddings": ROW},
    ),
    "learned": lambda: GPT2Config(vocab_size=40, n_embd=32, n_layer=2, n_head=2, n_positions=64),
}


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_padding_moves_no_row_that_is_given_positions(kind: str) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[kind]()).eval()
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
        given, left_to_it = (call(**padded).logits[:, 8:].log_softmax(-1) for call in (with_positions(model), model))
    assert needs_positions(model)
    assert float((given - alone).abs().max()) < 1e-3
    assert float((left_to_it - alone).abs().max()) > 1e-2


def test_plain_rotary_positions_see_distances_alone() -> None:
    assert not needs_positions(AutoModelForCausalLM.from_config(LlamaConfig(**SIZES)))
