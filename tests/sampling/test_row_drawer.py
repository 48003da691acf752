"""Rows drawn side by side are those drawn alone: models of many families against a plain loop without a cache."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from dphrl.sampling.rows.grouped_rows import can_group, has_keys_and_values_alone
from dphrl.sampling.rows.inverse_cdf import inverse_cdf
from dphrl.sampling.rows.row_drawer import Decoding, RowDrawer, sharing_obstacle
from dphrl.sampling.uniform import row_key, uniforms

STOP, VOCABULARY, MOST = 1, 50, 12
DECODING = Decoding(MOST, 0.9, 0.95, (STOP, 7), 0, 2)
SIZE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "eos_token_id": STOP,
    "bos_token_id": 2,
}
WINDOW = {"sliding_window": 4, "num_hidden_layers": 4}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LINEAR = {
    "linear_num_value_heads": 2,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "shared_expert_intermediate_size": 16,
    "num_hidden_layers": 4,
    "head_dim": 8,
}
GROUPED: dict[str, dict[str, Any]] = {
    "llama": {},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "mistral": WINDOW,
    "gemma2": {**WINDOW, "head_dim": 8, "query_pre_attn_scalar": 8},
    "gemma3_text": {
        **WINDOW,
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
    "qwen3_moe": {**EXPERTS, "head_dim": 8},
    "gpt_oss": {**WINDOW, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2},
}
"""Rotary and learned positions, windows alone and beside full attention, soft caps, sinks, experts."""
COPIED: dict[str, dict[str, Any]] = {
    "bloom": {"n_layer": 2, "n_head": 4},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 4},
}
"""Attention that no mask of ours describes, but keys and values are all that is kept."""
READ_EACH: dict[str, dict[str, Any]] = {
    "mamba": {"state_size": 4, "time_step_rank": 4},
    "qwen3_next": {**EXPERTS, **LINEAR},
}
"""A state that runs over all tokens, alone and beside attention."""
SOFT_CAP_OR_SINKS = ("gemma2", "gpt_oss")
"""Models that torch's own attention does not know."""


def model_of(family: str, **changes: Any) -> Any:
    """A random model whose every weight matters."""
    sizes = {**SIZE, **(GROUPED | COPIED | READ_EACH)[family], **changes}
    attention = "eager" if family in SOFT_CAP_OR_SINKS else None
    config = AutoConfig.for_model(family, **sizes)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(0, 0.3)
    return model


def prompt(length: int) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(length)
    return tuple(torch.randint(8, VOCABULARY, (length,), generator=generator).tolist())


PROMPTS = [prompt(n) for n in (1, 9, 5) for _ in range(4)] + [prompt(3), prompt(9)]
"""One token alone, one prompt for a single row, one in two places."""
KEYS = [row_key(0, "rows", n) for n in range(len(PROMPTS))]


def drawn_alone(model: Any, row: int, decoding: Decoding = DECODING) -> tuple[int, ...]:
    """Without padding, cache or neighbours."""
    ids = list(PROMPTS[row])
    for position in range(decoding.max_new_tokens):
        inputs = torch.tensor([ids])
        logits = model(input_ids=inputs, attention_mask=torch.ones_like(inputs), use_cache=False).logits[:, -1]
        uniform = torch.from_numpy(uniforms(np.array([KEYS[row]], dtype=np.uint64), position))
        ids.append(int(inverse_cdf(logits, uniform, decoding.temperature, decoding.top_p)))
        if ids[-1] in decoding.stop_ids:
            break
    return tuple(ids[len(PROMPTS[row]) :])


@pytest.mark.parametrize("family", [*GROUPED, *COPIED, *READ_EACH])
@torch.no_grad()
def test_rows_are_those_drawn_alone(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In groups of all rows of a prompt, and of two."""
    model = model_of(family)
    assert can_group(model) == (family in GROUPED)
    assert has_keys_and_values_alone(model) == (family not in READ_EACH)
    expected = [drawn_alone(model, row) for row in range(len(PROMPTS))]
    assert len(set(expected)) > 8
    assert RowDrawer(DECODING).draw(model, PROMPTS, KEYS) == expected
    monkeypatch.setattr("dphrl.sampling.rows.grouped_rows.SPARE_KEYS", 2 * MOST)
    assert RowDrawer(DECODING).draw(model, PROMPTS, KEYS) == expected


@torch.no_grad()
def test_greedy_rows_stand_beside_others() -> None:
    model = model_of("llama")
    greedy = [n % 2 == 0 for n in range(len(PROMPTS))]
    found = RowDrawer(DECODING).draw(model, PROMPTS, KEYS, greedy)
    drawn = RowDrawer(DECODING).draw(model, PROMPTS, KEYS)
    assert found[1::2] == drawn[1::2] and found[0] == found[2] and found[4] == found[6]
    ids = torch.tensor([PROMPTS[4]])
    expected = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=MOST, eos_token_id=[STOP, 7]
    )
    assert list(found[4]) == expected[0, ids.shape[1] :].tolist()


@torch.no_grad()
def test_a_process_that_is_done_goes_on_with_the_others() -> None:
    """Forwards of sharded weights are made by all or none: as many as the slowest needs, whatever one draws."""
    model = model_of("llama")
    asked: list[bool] = []

    def slowest(mine: bool) -> bool:
        asked.append(mine)
        return len(asked) < MOST - 1

    at_once = replace(DECODING, stop_ids=tuple(range(VOCABULARY)))
    forwards: list[int] = []
    model.register_forward_hook(lambda *_: forwards.append(1))
    found = RowDrawer(at_once, slowest).draw(model, PROMPTS, KEYS)
    assert [len(ids) for ids in found] == [1] * len(PROMPTS) and not any(asked)
    assert len(forwards) == len(asked) == MOST - 1


@torch.no_grad()
def test_groups_that_have_ended_leave() -> None:
    """Seen in the rows of the forwards; what is drawn is what is drawn alone."""
    model, decoding = model_of("llama"), replace(DECODING, max_new_tokens=40, stop_ids=tuple(range(1, 12)))
    rows: list[int] = []
    model.register_forward_pre_hook(lambda m, a, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True)
    found = RowDrawer(decoding).draw(model, PROMPTS, KEYS)
    steps = list(rows)
    assert found == [drawn_alone(model, row, decoding) for row in range(len(PROMPTS))]
    ended = sorted(max(len(f) for f, p in zip(found, PROMPTS, strict=True) if p == q) for q in dict.fromkeys(PROMPTS))
    assert len(steps) == ended[-1] and ended[1] < ended[2]
    assert steps[ended[1] - 1 : ended[1] + 1] == [4, 2]


def test_why_a_prompt_is_read_for_each_completion() -> None:
    assert sharing_obstacle(model_of("gpt2")) is None and sharing_obstacle(model_of("bloom")) is None
    assert "several processes" in str(sharing_obstacle(model_of("bloom"), sharded=True))
    assert "a state" in str(sharing_obstacle(model_of("mamba")))
