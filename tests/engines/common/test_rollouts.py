"""Rollouts as a function of (seed, step, prompt, draw), whatever the processes and batches; and who draws them."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, MambaConfig, MambaForCausalLM

from dphrl.engines.common.generation.rollouts import Rollouts, check_sharing, rollouts
from dphrl.engines.common.processes import Processes
from dphrl.errors import ConfigError
from dphrl.sampling.rows.row_drawer import Decoding

DECODING = Decoding(10, 1.0, 1.0, (1,), 0)
A, B, C = (5, 6, 7), (8, 9, 10, 11, 12), (13, 14)
PROMPTS = [A, A, B, B, C, C, A, A]
"""A stands twice, in two groups of two."""


@pytest.fixture(scope="module")
def model() -> Any:
    """With dropout, and learned positions."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=60, n_embd=32, n_layer=2, n_head=2, n_positions=32, resid_pdrop=0.5)
    made = GPT2LMHeadModel(config)
    with torch.no_grad():
        for p in made.parameters():
            p.normal_(0, 0.3)
    return made.eval()


@torch.no_grad()
def drawn(model: Any, prompts: Any = PROMPTS, *, seed: int = 0, step: int = 3, training: bool = True) -> Any:
    return Rollouts(DECODING, seed, Processes()).draw(model, prompts, step=step, training=training)


def test_a_prompt_that_stands_twice_has_other_draws_and_its_place_does_not_matter(model: Any) -> None:
    whole = drawn(model)
    assert len({tuple(ids) for ids in whole}) == len(PROMPTS)
    assert all(ids[-1] == 1 or len(ids) == 10 for ids in whole) and not any(1 in ids[:-1] for ids in whole)
    order = [4, 0, 2, 5, 1, 6, 3, 7]
    assert drawn(model, [PROMPTS[i] for i in order]) == [whole[i] for i in order]
    assert drawn(model, [C, B]) == [whole[4], whole[2]]


@torch.no_grad()
def test_two_processes_draw_what_one_does(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """1 x 8 = 2 x 4, though a group and the draws of A lie on both; and small batches change nothing."""
    whole = drawn(model)
    halves = PROMPTS[:3], PROMPTS[3:]
    records = [record for rank, half in enumerate(halves) for record in _records(rank, half)]
    for most in (256, 2):
        monkeypatch.setattr("dphrl.engines.common.generation.rollouts.MOST_ROWS", most)
        found = []
        for rank, half in enumerate(halves):
            processes = Processes(rank, 2, gather_objects=lambda mine: records)
            found += Rollouts(DECODING, 0, processes).draw(model, half, step=3)
        assert found == whole


def _records(rank: int, prompts: Any) -> list[Any]:
    """What a process tells the others of its prompts."""
    told: list[Any] = []
    processes = Processes(rank, 2, gather_objects=lambda mine: told.extend(mine) or mine)
    Rollouts(DECODING, 0, processes)._numbered(prompts)
    return told


@torch.no_grad()
def test_seed_step_and_generation_of_a_step_differ_and_evaluation_does_not(model: Any) -> None:
    whole = drawn(model)
    others = [drawn(model, seed=1), drawn(model, step=4), drawn(model, training=False)]
    one = Rollouts(DECODING, 0, Processes())
    assert one.draw(model, PROMPTS, step=3) == whole
    assert one.draw(model, PROMPTS, step=3, training=False) == others[2]
    others.append(one.draw(model, PROMPTS, step=3))  # dapo's second round
    assert one.draw(model, PROMPTS, step=3, training=False) == others[2]
    assert one.draw(model, PROMPTS, step=4) == others[1]
    assert one.draw(model, PROMPTS, step=3) == whole  # gone on from an earlier checkpoint
    assert all(other[i] != whole[i] for other in others for i in (2, 4)) and len({str(o) for o in others}) == 4


@torch.no_grad()
def test_the_generator_is_not_asked_and_dropout_is_off(model: Any) -> None:
    whole = drawn(model)
    model.train()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert drawn(model) == whole and model.training
    assert torch.equal(torch.get_rng_state(), before)
    model.eval()


OPTIONS: list[tuple[dict[str, Any], str | None]] = [
    ({}, None),
    ({"top_k": 0, "min_p": None, "repetition_penalty": 1.0, "generation_kwargs": {"top_p": 0.9}}, None),
    ({"generation_kwargs": {"top_k": 0, "num_beams": None, "max_new_tokens": 5}}, None),
    ({"top_k": 50}, "top_k=50"),
    ({"min_p": 0.1}, "min_p=0.1"),
    ({"repetition_penalty": 1.2}, "repetition_penalty=1.2"),
    ({"cache_implementation": "static"}, "cache_implementation='static'"),
    ({"generation_kwargs": {"num_beams": 2}}, "generation_kwargs.num_beams=2"),
    ({"generation_kwargs": {"eos_token_id": 5}}, "generation_kwargs.eos_token_id=5"),
    ({"max_completion_length": None}, "max_completion_length=None"),
    ({"top_k": 50, "use_vllm": True}, None),
    ({"top_k": 50, "use_transformers_continuous_batching": True}, None),
]


@pytest.mark.parametrize(("options", "named"), OPTIONS)
def test_options_that_only_trl_honours_are_told_or_refused_by_name(
    options: dict[str, Any], named: str | None, model: Any
) -> None:
    if named is None:
        check_sharing({"share_prompts": "on", **options})
    else:
        with pytest.raises(ConfigError, match=r"share_prompts='on' .* " + named.replace(".", r"\.") + " .*auto"):
            check_sharing({"share_prompts": "on", **options})
    for wish in ("auto", "off"):
        check_sharing({"share_prompts": wish, **options})
        found, told = chosen(model, share_prompts=wish, **options)
        engine = "use_vllm" in options or "use_transformers_continuous_batching" in options
        assert (found is None) == (wish == "off" or engine or named is not None)
        assert (len(told) == 1 and str(named) in told[0]) if wish == "auto" and named else not told


def chosen(model: Any, *, tools: bool = False, **options: Any) -> tuple[Rollouts | None, list[str]]:
    args = {"share_prompts": "auto", "seed": 7, "max_completion_length": 9, "use_vllm": False, **options}
    args = {"use_transformers_continuous_batching": False, **args}
    told: list[str] = []
    of_trl = {"max_new_tokens": 9, "temperature": 0.8, "top_p": 0.7, "eos_token_id": [1, 4], "pad_token_id": 0}
    of_trl |= {"bos_token_id": None}
    made = rollouts(SimpleNamespace(**args), model, of_trl, Processes(), sharded=False, tools=tools, tell=told.append)
    return made, told


def test_decoding_is_that_of_trl(model: Any) -> None:
    made, _ = chosen(model)
    assert made is not None and made.seed == 7
    assert made.decoding == Decoding(9, 0.8, 0.7, (1, 4), 0, None)


def test_tools_and_other_states_are_told_and_refused(model: Any) -> None:
    made, told = chosen(model, tools=True)
    assert made is None and "tools" in told[0]
    with pytest.raises(ConfigError, match="tools needs"):
        chosen(model, tools=True, share_prompts="on")
    sizes = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4, "time_step_rank": 4}
    mamba = MambaForCausalLM(MambaConfig(**sizes))
    made, told = chosen(mamba)
    assert made is not None and "a state that cannot be given" in told[0]
    with torch.no_grad():
        one, two = (replace(made, processes=Processes()).draw(mamba, [A, A, B], step=0) for _ in range(2))
    assert one == two and one[0] != one[1]
    with pytest.raises(ConfigError, match="a state that cannot be given"):
        chosen(mamba, share_prompts="on")
