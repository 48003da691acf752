"""Packed rows: log-probabilities, entropies and gradients are those of each row alone, in models of every kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import FAMILIES, VOCABULARY, tiny
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

import dphrl.models.prefix_tree
from dphrl.models.logit_rule import LogitRule
from dphrl.models.packed_rows import PackedRows, pack_rows
from dphrl.models.prefix_tree import MIN_SAVED, TokenArray
from dphrl.models.shared_attention import share_attention
from dphrl.models.token_head import Read, read_states

TEMPERATURE = 0.8
RELATIVE = 1e-5
"""Of a gradient in float32, to its norm."""

Rows = tuple[list[TokenArray], list[TokenArray]]


def draw(*sizes: int) -> list[TokenArray]:
    rng = np.random.default_rng(sum(sizes))
    return [rng.integers(3, VOCABULARY, size=n) for n in sizes]


def some_rows() -> Rows:
    """Two prompts with the same examples and one of one token; completions of 0 to 12 tokens, one twice, one with the
    beginning of another."""
    examples, first, second, alone = draw(6, 3, 5, 1)
    a, b = np.concatenate([examples, first]), np.concatenate([examples, second])
    long, short, other, own = draw(7, 3, 12, 9)
    nothing = np.zeros(0, dtype=np.int64)
    completions = [long, short, long, nothing, other, long[:1], np.concatenate([long[:3], short]), own]
    return [a, a, a, a, b, b, a, alone], completions


def shared(model: Any, rows: Rows, min_saved: int) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies [B, T] of one packed forward."""
    packed = pack_rows(*rows, min_saved=min_saved)
    rule = LogitRule.of(model.config, TEMPERATURE)
    reads = [Read(packed.state_M, packed.target_M[:, None], entropy=True)]
    ((logps_M1, entropies_M),) = read_states(model, rule, reads, packed)
    assert entropies_M is not None
    return packed.to_rows(logps_M1[:, 0]), packed.to_rows(entropies_M)


def alone(model: Any, rows: Rows) -> tuple[Tensor, Tensor]:
    """The same from the model's own logits, a row at a time."""
    logps, entropies = [], []
    for prompt, completion in zip(*rows, strict=True):
        ids = torch.from_numpy(np.concatenate([prompt, completion]))
        logits = model(ids[None], use_cache=False).logits[0, len(prompt) - 1 : -1].float() / TEMPERATURE
        logp_TV = logits.log_softmax(-1)
        logps.append(logp_TV.gather(1, ids[len(prompt) :, None])[:, 0])
        entropies.append(-(logp_TV.exp() * logp_TV).sum(-1))
    return pad_sequence(logps, batch_first=True), pad_sequence(entropies, batch_first=True)


def gradient(model: Any, scores: tuple[Tensor, Tensor]) -> Tensor:
    """Of a sum in which each token has a weight of its own."""
    model.zero_grad()
    weights = torch.randn(2, *scores[0].shape, generator=torch.Generator().manual_seed(3))
    (weights * torch.stack(scores)).sum().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def check(model: Any, rows: Rows, expected: tuple[Tensor, Tensor], min_saved: int = 1) -> None:
    found = shared(model, rows, min_saved)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=RELATIVE)
    wanted = gradient(model, expected)
    assert (gradient(model, found) - wanted).norm() <= RELATIVE * wanted.norm()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_reads_shared_prompts_as_its_own_rows(
    name: str, monkeypatch: pytest.MonkeyPatch, attention: str | None = None
) -> None:
    """With every beginning shared, with the long ones alone, and with every node in a block of its own."""
    model = tiny(name, **({} if attention is None else {"attn_implementation": attention}))
    rows = some_rows()
    expected = alone(model, rows)
    logps = expected[0].detach()
    assert logps[logps != 0].max() - logps.min() > 1  # a uniform model would pass anything
    share_attention(model)
    check(model, rows, alone(model, rows))  # as it is: `expected` is still of use
    check(model, rows, expected, MIN_SAVED)
    monkeypatch.setattr(dphrl.models.prefix_tree, "SMALL_AREA", 0)
    check(model, rows, alone(model, rows))


@pytest.mark.parametrize("name", ["llama", "gemma2-softcap", "gpt2-learned-positions", "mistral-window"])
def test_eager_attention_does_as_well(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    test_a_family_reads_shared_prompts_as_its_own_rows(name, monkeypatch, "eager")


@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize("name", ["mistral-window", "opt-learned-positions", "mixtral-router"])
def test_layers_that_are_computed_again_see_the_same_paths(name: str, use_reentrant: bool) -> None:
    """Backward is outside the context that told the masks of the packed sequence."""
    model, rows = tiny(name), some_rows()
    share_attention(model)
    expected = alone(model, rows)
    wanted = gradient(model, expected)
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    model.enable_input_require_grads()
    model.train()
    assert (gradient(model, shared(model, rows, 1)) - wanted).norm() < RELATIVE * wanted.norm()


@settings(max_examples=25, deadline=None)
@given(st.data(), st.integers(1, 20), st.sampled_from(["llama", "mistral-window", "gpt-oss-sinks"]))
def test_any_rows_are_read_as_alone(data: st.DataObject, min_saved: int, name: str) -> None:
    """Prompts and completions of two tokens, so that beginnings are shared at every depth."""
    ids = st.lists(st.sampled_from([5, 6]), max_size=11).map(lambda row: np.array(row, dtype=np.int64))
    prompts = data.draw(st.lists(ids.filter(len), min_size=1, max_size=6))
    completions = data.draw(st.lists(ids, min_size=len(prompts), max_size=len(prompts)))
    model = tiny(name)
    share_attention(model)
    check(model, (prompts, completions), alone(model, (prompts, completions)), min_saved)


def along(packed: PackedRows, row: int, tokens: int) -> list[int]:
    """What stands on a row's path before each of its scored tokens, found by way of the blocks."""
    paths = {
        int(q): [int(k) for k, s in zip(keys, seen, strict=True) if s]
        for block in packed.blocks
        for own, keys, seen in zip(block.query_RQ, block.key_RK, block.seen_RK, strict=True)
        for q in own
    }
    last = int(packed.state_M[packed.scored_BT[row, tokens - 1]])
    path = paths[last]
    return packed.input_ids_1N[0, path[: path.index(last) + 1]].tolist()  # type: ignore[no-any-return]


def test_states_and_targets_are_those_of_each_row() -> None:
    prompts, completions = some_rows()
    packed = pack_rows(prompts, completions, min_saved=1)
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        numbers = packed.scored_BT[row]
        assert (numbers[len(completion) :] == len(packed.target_M)).all()
        assert packed.target_M[numbers[: len(completion)]].tolist() == completion.tolist()
        states = packed.state_M[numbers[: len(completion)]]
        assert packed.position_ids_1N[0, states].tolist() == [len(prompt) - 1 + t for t in range(len(completion))]
        if len(completion):
            assert along(packed, row, len(completion)) == [*prompt.tolist(), *completion[:-1].tolist()]
    inputs = [[*p, *c][:-1] for p, c in zip(prompts, completions, strict=True) if len(c)]
    prefixes = {tuple(map(int, row[:end])) for row in inputs for end in range(1, len(row) + 1)}
    assert packed.input_ids_1N.shape == packed.position_ids_1N.shape == (1, len(prefixes))
    pairs = {
        (tuple(map(int, [*p, *c[:t]])), int(c[t]))
        for p, c in zip(prompts, completions, strict=True)
        for t in range(len(c))
    }
    assert len(packed.target_M) == len(pairs)


def test_equal_tokens_share_their_number_and_the_rest_is_zero() -> None:
    """Two rows 7 -> 8, one 7 -> 9: two scored tokens; the third column is asked for and empty."""
    rows: Sequence[TokenArray] = [np.array([7])] * 3
    packed = pack_rows(rows, [np.array([8, 4]), np.array([8]), np.array([9])], time=3, min_saved=1)
    values = torch.arange(1.0, len(packed.target_M) + 1)
    found = packed.to_rows(values)
    assert found.shape == (3, 3) and found[0, 0] == found[1, 0] != found[2, 0] and (found[:, 2] == 0).all()
    assert (found[1:, 1] == 0).all() and found[0, 1] != 0 and len(packed.target_M) == 3


def test_nothing_to_score_still_has_a_graph() -> None:
    """A micro-batch whose completions are all masked: under DDP and FSDP each process goes through the model."""
    model = tiny("llama")
    share_attention(model)
    empty = np.zeros(0, dtype=np.int64)
    rows = ([np.array([5, 6]), np.array([7])], [empty, empty])
    logps, entropies = shared(model, rows, 1)
    assert logps.shape == (2, 0)
    (logps.sum() + entropies.sum()).backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.model.parameters())
