"""Tiny random causal LMs of many families, and rows for them, shared by the tests of scoring and of packed rows."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    Cohere2Config,
    CohereConfig,
    DeepseekV3Config,
    FalconConfig,
    FalconH1Config,
    FalconMambaConfig,
    Gemma2Config,
    Gemma3Config,
    Gemma3nTextConfig,
    Gemma3TextConfig,
    Gemma4TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    GptOssConfig,
    GraniteConfig,
    LlamaConfig,
    MambaConfig,
    MiniMaxConfig,
    MistralConfig,
    MixtralConfig,
    Olmo2Config,
    Olmo3Config,
    OPTConfig,
    Phi3Config,
    PhiConfig,
    Qwen2Config,
    Qwen3Config,
    RecurrentGemmaConfig,
    RwkvConfig,
    StableLmConfig,
)
from transformers.models.auto import AutoModelForCausalLM

VOCABULARY = 83
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
WINDOW_AND_ALL = ["sliding_attention", "full_attention"]
CONFIGS: dict[str, Any] = {
    "llama": LlamaConfig(**SMALL, tie_word_embeddings=True),
    "qwen2": Qwen2Config(**SMALL),
    "qwen3": Qwen3Config(**SMALL, head_dim=8),
    "gemma2-softcap": Gemma2Config(**SMALL, head_dim=8, final_logit_softcapping=1.5, sliding_window=6),
    "cohere-scale": CohereConfig(**SMALL, logit_scale=0.25),
    "granite-scale": GraniteConfig(**SMALL, logits_scaling=3.0),
    "gemma3-softcap": Gemma3TextConfig(**SMALL, head_dim=8, final_logit_softcapping=2.0, sliding_window=6),
    "gpt2-learned-positions": GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=2
    ),
    "phi-bias": PhiConfig(**{**SMALL, "num_key_value_heads": 4}),
    "neox": GPTNeoXConfig(**{k: v for k, v in SMALL.items() if k != "num_key_value_heads"}),
    "falcon-alibi": FalconConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, alibi=True, bos_token_id=1,
        eos_token_id=2,
    ),
    "mixtral-router": MixtralConfig(**SMALL, num_local_experts=2, output_router_logits=True),
}  # fmt: skip

MLA = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 8}
EXPERTS = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "n_group": 1, "topk_group": 1}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8, "rope_theta": 100.0}
FAMILIES: dict[str, Any] = {
    **{name: config for name, config in CONFIGS.items() if name != "falcon-alibi"},
    "mistral-window": MistralConfig(**SMALL, sliding_window=5),
    "cohere2-windows-without-positions": Cohere2Config(
        **SMALL, sliding_window=5, layer_types=WINDOW_AND_ALL, logit_scale=1.0
    ),
    "gpt-oss-sinks": GptOssConfig(
        **SMALL, head_dim=8, sliding_window=5, num_local_experts=4, num_experts_per_tok=2, layer_types=WINDOW_AND_ALL,
        rope_parameters=YARN,
    ),
    "deepseek-v3-latent": DeepseekV3Config(
        **{**SMALL, "num_key_value_heads": 4}, **MLA, **EXPERTS, n_shared_experts=1, first_k_dense_replace=1,
        rope_parameters=YARN,
    ),
    "opt-learned-positions": OPTConfig(
        vocab_size=VOCABULARY, hidden_size=32, word_embed_proj_dim=32, ffn_dim=48, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=64, dropout=0.0,
    ),
    "stablelm-partial-rotary": StableLmConfig(**{**SMALL, "num_key_value_heads": 4}),
    "gemma3n-shared-keys": Gemma3nTextConfig(
        **{**SMALL, "num_hidden_layers": 4, "intermediate_size": [48] * 4}, head_dim=8, sliding_window=5,
        layer_types=WINDOW_AND_ALL * 2, num_kv_shared_layers=2, activation_sparsity_pattern=[0.0] * 4, laurel_rank=4,
        altup_num_inputs=2, hidden_size_per_layer_input=8, vocab_size_per_layer_input=VOCABULARY,
    ),
    "gemma4-shared-keys": Gemma4TextConfig(
        **{**SMALL, "num_hidden_layers": 4}, head_dim=8, global_head_dim=8, sliding_window=5,
        layer_types=WINDOW_AND_ALL * 2, num_kv_shared_layers=2, hidden_size_per_layer_input=8,
        vocab_size_per_layer_input=VOCABULARY,
    ),
    "olmo2-norms": Olmo2Config(**SMALL),
    "olmo3-window": Olmo3Config(**SMALL, sliding_window=5, layer_types=WINDOW_AND_ALL),
    "phi3-window": Phi3Config(**SMALL, sliding_window=5),
    "gemma3-of-images-and-text": Gemma3Config(
        text_config={**SMALL, "head_dim": 8, "sliding_window": 6},
        vision_config={
            "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "image_size": 16, "patch_size": 8,
        },
        mm_tokens_per_image=4,
    ),
}  # fmt: skip
"""Models whose prompts are shared, with windows that are shorter than the rows."""

NO_HEADS = {name: value for name, value in SMALL.items() if "heads" not in name}
HYBRID = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 4}
RECURRENT: dict[str, Any] = {
    "mamba": MambaConfig(**NO_HEADS, state_size=8),
    "falcon-mamba": FalconMambaConfig(**NO_HEADS, state_size=8),
    "falcon-h1-hybrid": FalconH1Config(**SMALL, **HYBRID, mamba_d_ssm=64),
    "minimax-lightning": MiniMaxConfig(
        **SMALL, head_dim=8, layer_types=["linear_attention", "full_attention"], num_local_experts=2, block_size=4
    ),
    "recurrent-gemma": RecurrentGemmaConfig(
        **{**SMALL, "num_hidden_layers": 3}, attention_window_size=5, lru_width=32
    ),
    "rwkv": RwkvConfig(
        vocab_size=VOCABULARY, hidden_size=32, attention_hidden_size=32, num_hidden_layers=2, bos_token_id=1,
        eos_token_id=2,
    ),
}  # fmt: skip
"""Models with a state that runs over all tokens; the last three are refused."""


def tiny(name: str, dtype: torch.dtype = torch.float32, vocabulary: int = VOCABULARY, **how: Any) -> Any:
    """A random model whose logits are some nats apart, with a head bias that acts if it has one."""
    torch.manual_seed(0)
    config = copy.deepcopy((CONFIGS | FAMILIES | RECURRENT)[name])
    config.get_text_config().vocab_size = vocabulary
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, **how).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            blown_up = any(part in name for part in ("shared-keys", "norms"))  # their rounding would be
            parameter.mul_(2.0 if blown_up else 4.0)
        bias = model.get_output_embeddings().bias
        if bias is not None:
            bias.normal_()
    return model.to(dtype)


def rows(seed: int = 0, sizes: tuple[tuple[int, int], ...] = ((3, 7), (9, 2), (5, 1), (1, 12))) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    draw = [[rng.integers(3, VOCABULARY, size=n).tolist() for n in pair] for pair in sizes]
    return [p for p, _ in draw], [c for _, c in draw]


def plain(model: Any, prompt: list[int], completion: list[int], temperature: float) -> Tensor:
    """[T, V] in float32: one row alone, all logits, no padding."""
    with torch.no_grad():
        logits = model(torch.tensor([prompt + completion]), use_cache=False).logits[0].float() / temperature
    return logits.log_softmax(-1)[len(prompt) - 1 : -1]
