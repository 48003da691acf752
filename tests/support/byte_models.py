"""Folders of models without weights: a tokenizer of bytes, which tells texts apart, perhaps with a chat template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing
from transformers import LlamaConfig, PreTrainedTokenizerFast

SPECIAL = ("<pad>", "<s>", "</s>")
CHAT = (
    "{{ bos_token }}{% if messages[0].role != 'system' %}[system] Help.\n{% endif %}"
    "{% for message in messages %}[{{ message.role }}] {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% if enable_thinking %} <think>{% endif %}{% endif %}"
)
"""With a begin token and a system message of its own, and an argument, as Qwen's and Llama's have them."""


def byte_tokenizer(*, around: str = "$A", chat_template: str | None = None) -> Any:
    """One token a byte.

    Args:
        around: what a text becomes, e.g. "<s> $A" for a tokenizer that adds a begin token.
    """
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *sorted(ByteLevel.alphabet())])}
    tokenizer = Tokenizer(BPE(vocabulary, []))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = ByteDecoder()  # type: ignore[assignment]
    tokenizer.post_processor = TemplateProcessing(  # type: ignore[assignment]
        single=around, special_tokens=[(token, vocabulary[token]) for token in SPECIAL]
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", padding_side="left"
    )
    wrapped.chat_template = chat_template
    return wrapped


def model_without_weights(folder: Path, tokenizer: Any, context: int = 512) -> Path:
    """What `load_policy` reads before weights are asked for."""
    tokenizer.save_pretrained(folder)
    shape = LlamaConfig(vocab_size=len(tokenizer), hidden_size=32, max_position_embeddings=context)
    shape.architectures = ["LlamaForCausalLM"]
    shape.save_pretrained(folder)
    return folder
