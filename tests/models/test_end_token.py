"""A tokenizer that appends an end token to prompts is refused before anything is drawn."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tokenizers.processors import TemplateProcessing

from dphrl.config.load import build_config
from dphrl.errors import ModelError
from dphrl.models.policy import Policy, load_policy
from dphrl.types import Prompt

PROMPT = Prompt("p", "list name of singer ?")


@pytest.fixture
def policy() -> Policy:
    return load_policy(build_config({"model": {"path": "demo", "device": "cpu"}}), trained=False)


def test_an_end_token_behind_a_prompt_is_refused(policy: Policy) -> None:
    end = policy.tokenizer.eos_token
    policy.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, policy.tokenizer.eos_token_id)]
    )
    with pytest.raises(ModelError, match=f"appends its end token \\('{end}'\\).*add_eos_token to false"):
        policy.encode(PROMPT)


def test_a_prompt_that_ends_so_itself_is_taken(policy: Policy) -> None:
    """A template may end in the end token of a turn, and a stop token is often a line's end."""
    ids = policy.encode(PROMPT)
    assert policy.encode(Prompt("p", f"{PROMPT.prompt} {policy.tokenizer.eos_token}")) == [*ids, *policy.stop_ids[:1]]
    lines = replace(policy, stop_ids=(*policy.stop_ids, ids[-1]))
    assert lines.encode(PROMPT) == ids
