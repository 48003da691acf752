"""Which models read a prompt once: none whose tokens would see other rows, or that draws, however little it shows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import transformers
from tiny_models import FAMILIES, MLA, SMALL, VOCABULARY, plain, rows, tiny
from transformers import (
    Lfm2Config,
    LlamaConfig,
    MambaConfig,
    Phi3Config,
    PhimoeConfig,
    Qwen3NextConfig,
    RecurrentGemmaConfig,
)
from transformers.models.auto import AutoModelForCausalLM

from dphrl.engines.common.forward.prompt_sharing import PromptSharing
from dphrl.errors import ConfigError
from dphrl.models.logit_rule import LogitRule
from dphrl.models.sharing_check import can_share, prepare_sharing, why_unshared
from dphrl.models.token_head import add_token_head, read_states

MADE: dict[str, Callable[[], Any]] = {
    "mamba": lambda: MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=1, state_size=4),
    "lfm2": lambda: Lfm2Config(**SMALL, layer_types=["conv", "full_attention"]),
    "qwen3-next": lambda: Qwen3NextConfig(
        **SMALL, head_dim=8, layer_types=["linear_attention", "full_attention"], linear_num_key_heads=2,
        linear_num_value_heads=4, linear_key_head_dim=8, linear_value_head_dim=8, num_experts=2, num_experts_per_tok=1,
        moe_intermediate_size=8, shared_expert_intermediate_size=8,
    ),
    "recurrent-gemma": lambda: RecurrentGemmaConfig(
        **{**SMALL, "num_key_value_heads": 4, "num_hidden_layers": 3}, lru_width=32, attention_window_size=6,
    ),
    "deepseek-v32": lambda: transformers.DeepseekV32Config(
        **{**SMALL, "num_key_value_heads": 4}, **MLA, n_routed_experts=4, num_experts_per_tok=2, n_group=1,
        topk_group=1, moe_intermediate_size=24, n_shared_experts=1, first_k_dense_replace=1, index_topk=2048,
        index_n_heads=2, index_head_dim=8,
    ),
    "dynamic": lambda: LlamaConfig(**SMALL, rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}),
    "longrope": lambda: Phi3Config(
        **SMALL, rope_parameters={
            "rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [3.0] * 4, "rope_theta": 1e4,
            "original_max_position_embeddings": 4096,
        },
    ),
}  # fmt: skip
NOT_ALONG_PATHS = {
    "mamba": "MambaForCausalLM cannot be given positions",
    "lfm2": r"layers \(conv\) that look at all tokens before them",
    "qwen3-next": r"layers \(linear_attention\)",
    "recurrent-gemma": "state|layers|cannot be exchanged",  # the last before transformers 5.11
    "deepseek-v32": r"layers \(indexed_attention\)",
    "dynamic": "rotary frequencies follow the longest row",
    "longrope": "rotary frequencies follow the longest row",
    "falcon-alibi": "its attention cannot be exchanged",
    "llama": "its attention is flex_attention, not sdpa or eager",
}


def untrained(name: str) -> Any:
    """As initialised: what the convolutions of LFM2 remember changes a log-probability by less than rounding does, and
    the choice of DeepSeek's indexer changes nothing in short rows."""
    if name not in MADE:
        return tiny(name)
    if name == "deepseek-v32" and "DeepseekV32Config" not in dir(transformers):
        pytest.skip(f"transformers {transformers.__version__} has no {name} yet")
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(MADE[name](), dtype=torch.float32).eval()


@pytest.mark.parametrize("name", NOT_ALONG_PATHS)
def test_a_model_whose_tokens_see_other_rows_stays_as_it_was(name: str) -> None:
    model = untrained(name)
    if name == "llama":
        model.config._attn_implementation = "flex_attention"
    own = str(model.config._attn_implementation)
    why = prepare_sharing(model)
    assert why is not None
    with pytest.raises(ConfigError, match=NOT_ALONG_PATHS[name]):
        PromptSharing("on", print).prepare(model)
    assert not can_share(model, LogitRule(), torch.float32)
    assert model.config._attn_implementation == own


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_that_shares_stays_as_it_was_for_plain_rows(name: str) -> None:
    model = tiny(name)
    prompts, completions = rows(sizes=((9, 7),))
    before = plain(model, prompts[0], completions[0], 1.0)
    assert can_share(model, LogitRule.of(model.config, 1.0), torch.float32)
    assert torch.equal(plain(model, prompts[0], completions[0], 1.0), before)


def leaking(size: float) -> Any:
    """A Llama whose first layer adds to each token a part of all tokens before it, in whatever row they stand."""
    model = tiny("llama")

    def leak(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        return output + size * output.cumsum(1)

    model.model.layers[0].register_forward_hook(leak)
    return model


@pytest.mark.parametrize("size", [1.0, 1e-3])
def test_a_leak_that_no_config_tells_of_is_seen_and_attention_given_back(size: float) -> None:
    model = leaking(size)
    told: list[str] = []
    sharing = PromptSharing("auto", told.append)
    sharing.prepare(model)
    add_token_head(model, 1.0)
    assert sharing.active and model.config._attn_implementation == "dphrl_sdpa"
    sharing.compare(model, VOCABULARY, 1.0, torch.float32)
    assert not sharing.active and model.config._attn_implementation == "sdpa"
    assert "tokens see others than those of their own row" in told[0]
    sharing.leave("again")
    assert len(told) == 1


def test_attention_that_asks_for_its_name_is_compared_under_its_own() -> None:
    """Under another name it would be the same for both, and for training another than for sampling."""
    model = tiny("llama")

    def by_name(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        return output if module.config._attn_implementation == "sdpa" else 1.5 * output

    model.model.register_forward_hook(by_name)
    assert not can_share(model, LogitRule(), torch.float32)


# -- random numbers ---------------------------------------------------------------------------------------------------


def why(model: Any) -> str | None:
    assert prepare_sharing(model) is None
    read = partial(read_states, model, LogitRule())
    return why_unshared(read, model, VOCABULARY, 1.0, torch.float32)


def test_noise_that_seldom_acts_is_seen() -> None:
    """PhiMoE's router draws in training, and a token goes to another expert only now and then."""
    torch.manual_seed(0)
    config = PhimoeConfig(**SMALL, num_local_experts=2, num_experts_per_tok=2)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    assert why(model.eval()) is None
    assert "draws random numbers" in (why(model.train()) or "")


def test_dropout_before_an_adapter_that_is_zero_is_seen() -> None:
    """It changes nothing before the first step."""
    peft = pytest.importorskip("peft")
    lora = peft.LoraConfig(r=2, target_modules=["q_proj"], lora_dropout=0.1, task_type="CAUSAL_LM")
    model = peft.get_peft_model(tiny("llama"), lora).get_base_model()
    assert why(model.eval()) is None
    assert "draws random numbers" in (why(model.train()) or "")


def test_a_random_number_that_decides_nothing_is_no_noise() -> None:
    """OPT draws one for each layer in training, whether or not layers are left out."""
    assert why(tiny("opt-learned-positions").train()) is None


def test_the_random_state_is_left_alone_and_each_mode_looked_at() -> None:
    model = AutoModelForCausalLM.from_config(LlamaConfig(**SMALL, attention_dropout=0.3), dtype=torch.float32).eval()
    told: list[str] = []
    sharing = PromptSharing("auto", told.append)
    sharing.prepare(model)
    add_token_head(model, 1.0)
    state = torch.get_rng_state()
    sharing.compare(model, VOCABULARY, 1.0, torch.float32)
    assert sharing.active
    sharing.compare(model.train(), VOCABULARY, 1.0, torch.float32)
    assert not sharing.active and "dropout acts" in told[0]
    assert torch.equal(torch.get_rng_state(), state)
