"""Recurrent models and others are one policy however they are read, or refused by name before anything is drawn."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_models import RECURRENT, tiny

from dphrl.config.precision import Precision
from dphrl.errors import ModelError
from dphrl.models.policy import Policy
from dphrl.models.positions import needs_positions
from dphrl.sampling import one_policy
from dphrl.sampling.one_policy import check_drawing, check_one_policy

REFUSED = {
    "minimax-lightning": "draws with log-probabilities that are",
    "recurrent-gemma": "caps its logits by logits_soft_cap",
    "rwkv": "scores rows with log-probabilities that are",
}


def with_a_state() -> Any:
    """RecurrentGemma; verl's transformers does not say that it has a state, and it is refused by its draws."""
    model = tiny("recurrent-gemma")
    if not model._is_stateful:
        pytest.skip("this transformers does not say that RecurrentGemma has a state")
    return model


def policy_of(model: Any) -> Policy:
    return Policy(
        source="tiny",
        revision=None,
        tokenizer=SimpleNamespace(pad_token_id=0, bos_token_id=1),
        stop_ids=(2,),
        chat_template_args={},
        generation_defaults=None,
        context=None,
        precision=Precision("float32"),
        load=lambda: model,
    )


@pytest.mark.parametrize(
    "name",
    [*sorted(set(RECURRENT) - set(REFUSED)), "olmo2-norms", "olmo3-window", "phi3-window", "gemma3-of-images-and-text"],
)
def test_one_policy_in_float64(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn, scored and padded, against each row alone; the head's log-softmax is float32, and Mamba's cache is."""
    monkeypatch.setattr(one_policy, "ALLOWED", 2e-5)
    check_one_policy(policy_of(tiny(name, torch.float64)))


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_one_policy_is_refused(name: str) -> None:
    model = tiny(name)
    attention, random = model.config._attn_implementation, torch.get_rng_state()
    with pytest.raises(ModelError, match=REFUSED[name]):
        check_one_policy(policy_of(model))
    assert model.config._attn_implementation == attention
    assert torch.equal(torch.get_rng_state(), random)


def test_what_is_only_measured_need_not_be_trainable() -> None:
    check_drawing(policy_of(with_a_state()))
    with pytest.raises(ModelError, match="RwkvForCausalLM draws with"):
        check_drawing(policy_of(tiny("rwkv")))


def test_a_state_that_begins_at_position_0_is_given_positions() -> None:
    assert needs_positions(with_a_state())
    assert not needs_positions(tiny("mamba"))  # it takes none


def test_a_forward_that_fails_is_refused_with_its_words() -> None:
    model = tiny("llama")
    model.forward = lambda **kwargs: {}["no such key"]
    with pytest.raises(ModelError, match=r"LlamaForCausalLM fails where it reads a row \(KeyError"):
        check_drawing(policy_of(model))
