"""A prompt's token ids as verl makes them, so that they can be held to those that dphrl draws from.

verl has chat messages alone. Its agent loop renders them by the tokenizer's chat template, with a generation prompt and
no token added around the text (`ContinuousTokenBuilder.build_initial_tokens`, verl 0.9.1). A prompt that is a text is
one message of the user there, and `actor_rollout_ref.model.custom_chat_template` must give back that text alone, with
the tokens that the tokenizer itself puts around one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from dphrl.types import Message

TEXT_TEMPLATE = "{{ messages[0].content }}"
"""The template where the tokenizer adds no token."""


def text_template(tokenizer: Any) -> str:
    """The chat template with which verl reads one message as the tokenizer reads its text."""
    bare = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    whole = list(tokenizer("a")["input_ids"])
    starts = [i for i in range(len(whole) - len(bare) + 1) if whole[i : i + len(bare)] == bare]
    if not starts:  # no two tokenizers are known that do so; whoever compares the ids will see it
        return TEXT_TEMPLATE
    before, after = whole[: starts[0]], whole[starts[0] + len(bare) :]
    return _named(tokenizer, before) + TEXT_TEMPLATE + _named(tokenizer, after)


def verl_prompt_ids(
    tokenizer: Any, messages: Sequence[Message], chat_template: str | None, arguments: Mapping[str, Any]
) -> list[int]:
    """Token ids of messages as verl's agent loop renders them.

    Args:
        chat_template: `custom_chat_template`; None = the tokenizer's own.
        arguments: `data.apply_chat_template_kwargs`.
    """
    rendered = tokenizer.apply_chat_template(
        [dict(message) for message in messages],
        chat_template=chat_template,
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        **arguments,
    )
    return list(rendered["input_ids"])


def _named(tokenizer: Any, ids: Sequence[int]) -> str:
    """Special tokens in a template, by their names where a template knows them."""
    names = {tokenizer.bos_token_id: "bos_token", tokenizer.eos_token_id: "eos_token"}
    return "".join("{{ " + names.get(i, json.dumps(tokenizer.convert_ids_to_tokens(i))) + " }}" for i in ids)
