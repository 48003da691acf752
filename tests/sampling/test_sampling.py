"""Draws: uniform numbers without state, inverse CDF, and the same tokens whatever the batch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dphrl.config.load import build_config
from dphrl.demo.task import model_folder
from dphrl.errors import ModelError
from dphrl.models.policy import Policy, load_policy, save_policy
from dphrl.sampling.base import Request
from dphrl.sampling.rows.inverse_cdf import inverse_cdf
from dphrl.sampling.transformers_sampler import TransformersSampler
from dphrl.sampling.uniform import row_key, uniforms
from dphrl.types import GREEDY_DRAW, Completion


def test_uniform_numbers_are_pinned() -> None:
    """A change here would change every run: SplitMix64 of key 0 begins with 0xE220A8397B1DCDAF, as its reference."""
    first = uniforms(np.array([0], dtype=np.uint64), 0)[0]
    assert first == (0xE220A8397B1DCDAF >> 11) * 2.0**-53
    assert row_key(0, "a", 0) == 6713522722224487935


@given(st.integers(0, 2**31), st.integers(0, 1000))
def test_uniform_numbers_lie_in_the_half_open_unit_interval(seed: int, position: int) -> None:
    keys = np.array([row_key(seed, "p", d) for d in range(4)], dtype=np.uint64)
    u = uniforms(keys, position)
    assert ((u >= 0) & (u < 1)).all() and len(set(u)) == 4


def test_uniform_numbers_look_uniform_and_independent() -> None:
    keys = np.array([row_key(1, f"p{i}", d) for i in range(100) for d in range(20)], dtype=np.uint64)
    u = np.stack([uniforms(keys, t) for t in range(20)])
    counts, _ = np.histogram(u, bins=20, range=(0, 1))
    assert ((counts - 2000) ** 2 / 2000).sum() < 50  # chi-square, 19 degrees of freedom: p > 1e-4
    correlation = np.corrcoef(u)
    assert abs(correlation[~np.eye(20, dtype=bool)]).max() < 0.1


def test_inverse_cdf_picks_the_interval_that_holds_the_number() -> None:
    """p = 1/2, 1/4, 1/4 -> intervals [0, .5), [.5, .75), [.75, 1)."""
    logits = torch.tensor([[0.5, 0.25, 0.25]]).log().expand(6, 3)
    u = torch.tensor([0.0, 0.4999, 0.5001, 0.7499, 0.7501, 0.9999], dtype=torch.float64)
    assert inverse_cdf(logits, u, 1.0, 1.0).tolist() == [0, 0, 1, 1, 2, 2]


def test_top_p_and_temperature_reshape_the_distribution() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log().expand(101, 3)
    u = torch.linspace(0, 0.999, 101, dtype=torch.float64)
    assert set(inverse_cdf(logits, u, 1.0, 0.5).tolist()) == {0}
    assert set(inverse_cdf(logits, u, 1.0, 0.6).tolist()) == {0, 1}
    cold = inverse_cdf(logits, u, 0.05, 1.0)
    assert (cold == 0).float().mean() > 0.95


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=8), st.floats(0, 1, exclude_max=True), st.floats(0.05, 1))
def test_impossible_tokens_are_never_drawn(values: list[float], u: float, top_p: float) -> None:
    logits = torch.tensor([[*values, -torch.inf]], dtype=torch.float32)
    token = inverse_cdf(logits, torch.tensor([u], dtype=torch.float64), 1.0, top_p).item()
    assert torch.softmax(logits.double(), -1)[0, token] > 0


def test_frequencies_follow_the_probabilities() -> None:
    p = torch.tensor([0.1, 0.2, 0.3, 0.4])
    keys = np.array([row_key(3, "x", d) for d in range(20_000)], dtype=np.uint64)
    drawn = inverse_cdf(p.log().expand(20_000, 4), torch.from_numpy(uniforms(keys, 0)), 1.0, 1.0)
    share = torch.bincount(drawn, minlength=4) / 20_000
    assert (share - p).abs().max() < 0.015


CONFIG = build_config({"model": {"path": "demo", "device": "cpu"}, "sampling": {"max_new_tokens": 40}})


@pytest.fixture(scope="module")
def policy() -> Policy:
    return load_policy(CONFIG)


@pytest.fixture(scope="module")
def requests(policy: Policy) -> list[Request]:
    from dphrl.demo.task import load_demo_task

    prompts = load_demo_task("in_domain").prompts[:12]
    encoded = {p.id: tuple(policy.encode(p)) for p in prompts}
    return [Request(i, draw, ids) for i, ids in encoded.items() for draw in (GREEDY_DRAW, 0, 1, 2)]


def _drawn(policy: Policy, requests: list[Request], batch: int, seed: int = 0) -> dict[tuple[str, int], Completion]:
    sampler = TransformersSampler(policy, replace(CONFIG.sampling, batch_size=batch), seed)
    batches: Iterator[list[Completion]] = sampler.draw(requests)
    return {(c.prompt_id, c.draw): c for batch_ in batches for c in batch_}


def test_batch_size_order_and_shard_change_no_draw(policy: Policy, requests: list[Request]) -> None:
    whole = _drawn(policy, requests, 64)
    assert _drawn(policy, requests[::-1], 5) == whole
    assert _drawn(policy, requests[::2], 64) | _drawn(policy, requests[1::2], 64) == whole


def test_seeds_differ_but_the_greedy_completion_does_not(policy: Policy, requests: list[Request]) -> None:
    one, other = _drawn(policy, requests, 64, seed=0), _drawn(policy, requests, 64, seed=1)
    assert any(one[k].token_ids != other[k].token_ids for k in one if k[1] >= 0)
    assert all(one[k] == other[k] for k in one if k[1] == GREEDY_DRAW)


def test_greedy_agrees_with_generate(policy: Policy, requests: list[Request]) -> None:
    request = next(r for r in requests if r.draw == GREEDY_DRAW)
    ids = torch.tensor([request.prompt_ids])
    expected = policy.model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=40)
    assert (
        list(_drawn(policy, [request], 1)[request.prompt_id, GREEDY_DRAW].token_ids)
        == expected[0, ids.shape[1] :].tolist()
    )


def test_completions_end_with_a_stop_token_or_at_the_limit(policy: Policy, requests: list[Request]) -> None:
    short = TransformersSampler(policy, replace(CONFIG.sampling, max_new_tokens=12), 0)
    found = [c for batch in short.draw(requests) for c in batch]
    for c in found:
        ended = c.token_ids[-1] in policy.stop_ids
        assert (c.finish_reason == "stop") == ended and (ended or len(c.token_ids) == 12)
        assert not any(t in policy.stop_ids for t in c.token_ids[:-1])
    assert {c.finish_reason for c in found} == {"stop", "length"}


def test_stop_tokens_end_completions(requests: list[Request]) -> None:
    config = build_config(
        {"model": {"path": "demo", "device": "cpu"}, "sampling": {"max_new_tokens": 40, "stop_tokens": ["FROM"]}}
    )
    policy = load_policy(config)
    sampler = TransformersSampler(policy, config.sampling, 0)
    texts = [c.text for batch in sampler.draw(requests) for c in batch]
    assert any(text.endswith("FROM") for text in texts) and not any("FROM " in text for text in texts)


def test_a_stop_text_of_several_tokens_is_refused() -> None:
    config = build_config({"model": {"path": "demo"}, "sampling": {"stop_tokens": ["SELECT name"]}})
    with pytest.raises(ModelError, match="2 tokens"):
        load_policy(config)


def test_settings_that_ship_with_a_model_do_not_reach_the_draws(
    policy: Policy, requests: list[Request], tmp_path: Path
) -> None:
    """`generate` would fall back on a model's own top_k or penalties; they are kept for saving only."""
    folder = tmp_path / "model"
    shutil.copytree(model_folder(), folder)
    path = folder / "generation_config.json"
    shipped = {"do_sample": True, "top_k": 1, "repetition_penalty": 5.0}
    path.write_text(json.dumps({**json.loads(path.read_text()), **shipped}))
    config = build_config({"model": {"path": str(folder), "device": "cpu"}, "sampling": {"max_new_tokens": 40}})
    other = load_policy(config)
    assert other.generation_defaults.repetition_penalty == 5.0
    assert _drawn(other, requests, 64) == _drawn(policy, requests, 64)
    save_policy(other, other.model, tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "generation_config.json").read_text())
    assert {name: saved[name] for name in shipped} == shipped
