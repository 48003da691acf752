"""Advantages: by hand, against enumeration of subsets, and against the gradient of what they claim to raise."""

from __future__ import annotations

import math
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from needs import NEEDS_TRL
from torch import Tensor

from dphrl.config.load import build_config
from dphrl.engines.trl.config_to_trl import trainer_settings
from dphrl.errors import ConfigError
from dphrl.method.advantages import (
    ADVANTAGES,
    advantage,
    maxrl_advantages,
    passk_advantages,
    pkpo_advantages,
    unlikeliness_advantages,
)

relaxed = settings(deadline=None, max_examples=50)
nan = math.nan


def group(*rewards: float) -> Tensor:
    return torch.tensor([rewards], dtype=torch.float64)


def test_maxrl_by_hand() -> None:
    """(1,0,0,0): m = 1/4 -> (3,-1,-1,-1). All right or all wrong: 0. nan is left out of m and gets 0."""
    rewards = torch.tensor([[1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0], [1, nan, 0, nan], [nan] * 4, [0.5, 1, 0, 0.5]])
    want = [[3, -1, -1, -1], [0, 0, 0, 0], [0, 0, 0, 0], [1, 0, -1, 0], [0, 0, 0, 0], [0, 1, -1, 0]]
    assert maxrl_advantages(rewards).tolist() == want
    with pytest.raises(ConfigError, match=r"reward of -0\.5"):
        maxrl_advantages(torch.tensor([[1.0, -0.5]]))


@relaxed
@given(st.lists(st.floats(0, 1e6) | st.just(nan), min_size=2, max_size=6))
def test_maxrl_is_centred_and_finite(rewards: list[float]) -> None:
    found = maxrl_advantages(group(*rewards))
    assert found.isfinite().all() and found.sum().abs() < 1e-6 * max(1.0, found.abs().max())


def test_passk_by_hand() -> None:
    """n = 4, c = 1, k = 2: of 6 pairs 3 are right, m = 1/2, s = 1/2. Right: (1 - 1/2) / (1/2) = 1; a wrong one is in
    3 pairs, 2 of them wrong: (1 - 1/2 - 2/3) / (1/2) = -1/3."""
    assert passk_advantages(group(1, 0, 0, 0), 2)[0].tolist() == pytest.approx([1, -1 / 3, -1 / 3, -1 / 3])


def subsets_of(rewards: list[float], k: int) -> list[float]:
    """The definition: group-normalised rewards of all subsets, averaged over those that hold a completion."""
    subsets = list(combinations(range(len(rewards)), k))
    best = [max(rewards[i] for i in subset) for subset in subsets]
    mean = sum(best) / len(best)
    deviation = math.sqrt(sum((b - mean) ** 2 for b in best) / len(best))
    if deviation == 0:
        return [0.0] * len(rewards)
    share = len(subsets) * k / len(rewards)
    return [
        sum((b - mean) / deviation for s, b in zip(subsets, best, strict=True) if i in s) / share
        for i in range(len(rewards))
    ]


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_passk_is_the_mean_over_all_subsets(k: int) -> None:
    for c in range(6):
        rewards = [1.0] * c + [0.0] * (5 - c)
        assert passk_advantages(group(*rewards), k)[0].tolist() == pytest.approx(subsets_of(rewards, k), abs=1e-12)


def test_passk_leaves_out_what_was_not_judged() -> None:
    found = passk_advantages(torch.cat([group(nan, 1, 0, 0, 0, nan), group(nan, nan, nan, nan, nan, 1)]), 2)
    assert found[0, 1:5].tolist() == passk_advantages(group(1, 0, 0, 0), 2)[0].tolist()
    assert found[0, [0, 5]].tolist() == [0, 0] and found[1].tolist() == [0] * 6  # one judged, fewer than k
    with pytest.raises(ConfigError, match=r"0\.5 is neither 0 nor 1.*pkpo"):
        passk_advantages(group(0.5, 0), 2)


def gained(rewards: list[float], k: int) -> list[float]:
    """The definition: n / C(n, k) times what each completion adds to the best of the subsets it is in."""
    n, found = len(rewards), [0.0] * len(rewards)
    for subset in combinations(range(n), k):
        for i in subset:
            others = max(rewards[j] for j in subset if j != i)
            found[i] += max(rewards[i] - others, 0.0) * n / math.comb(n, k)
    return found


@relaxed
@given(st.lists(st.sampled_from([-2.0, -0.5, 0.0, 0.25, 1.0, 3.0]), min_size=2, max_size=6), st.integers(2, 5))
def test_pkpo_is_the_gain_over_all_subsets(rewards: list[float], k: int) -> None:
    want = gained(rewards, k) if k <= len(rewards) else [0.0] * len(rewards)
    found = pkpo_advantages(group(*rewards, nan), k)[0]
    assert found[:-1].tolist() == pytest.approx(want) and found[-1] == 0


@pytest.mark.parametrize(("n", "k"), [(4, 2), (5, 3), (4, 4)])
@pytest.mark.parametrize("p", [0.1, 0.6])
def test_pkpo_estimates_the_gradient_of_pass_at_k(n: int, k: int, p: float) -> None:
    """E[mean of A * dln pi/dp] over all 2^n outcomes = d/dp (1 - (1-p)^k)."""
    total = 0.0
    for outcome in product((0.0, 1.0), repeat=n):
        right = sum(outcome)
        weight = p**right * (1 - p) ** (n - right)
        slopes = torch.tensor([1 / p if x else -1 / (1 - p) for x in outcome], dtype=torch.float64)
        total += weight * (pkpo_advantages(group(*outcome), k)[0] * slopes).mean().item()
    assert total == pytest.approx(k * (1 - p) ** (k - 1))


def test_pkpo_needs_something_to_subtract() -> None:
    with pytest.raises(ValueError, match="k=1"):
        pkpo_advantages(group(1, 0), 1)


def test_unlikeliness_by_hand() -> None:
    """Right ones at rank 3 of 4 and rank 1 (one wrong below each): 1 - 0.4 * 3/4 = 0.7 and 1 - 0.4 * 1/4 = 0.9."""
    logp = torch.tensor([[-1.0, -3.0, -2.0, -4.0]], dtype=torch.float64)
    rewards = torch.tensor([[0.7, 0.9, 0.0, 0.0]], dtype=torch.float64)
    want = (rewards - 0.4) / (rewards.std() + 1e-4)
    assert torch.allclose(unlikeliness_advantages(group(1, 1, 0, 0), logp, 0.4), want)


def test_without_a_penalty_unlikeliness_is_the_group_advantage_of_what_was_judged() -> None:
    judged = torch.tensor([1.0, 0.0, 0.5], dtype=torch.float64)
    want = (judged - judged.mean()) / (judged.std() + 1e-4)
    found = unlikeliness_advantages(group(1, nan, 0, 0.5), -torch.rand(1, 4, dtype=torch.float64), 0.0)
    assert torch.allclose(found[0, [0, 2, 3]], want) and found[0, 1] == 0
    assert unlikeliness_advantages(group(nan, nan), torch.zeros(1, 2, dtype=torch.float64), 0.5).tolist() == [[0, 0]]


def test_ranks_are_among_the_judged_and_equal_ones_share_theirs() -> None:
    logp = torch.tensor([[-1.0, -1.0, -5.0]], dtype=torch.float64)
    found = unlikeliness_advantages(group(1, 1, nan), logp, 0.5)
    assert found.tolist() == [[0, 0, 0]]  # the unjudged one is not less likely, and both have rank 0


@pytest.mark.parametrize("name", [name for name in ADVANTAGES if name != "group"])
def test_every_advantage_is_finite_and_keeps_the_shape(name: str) -> None:
    chosen = advantage(name, pass_k=2, rank_penalty=0.25)
    assert chosen is not None and advantage("group", pass_k=2, rank_penalty=0.25) is None
    rewards = torch.tensor([[1.0, 0, nan, 0], [nan] * 4, [0.0] * 4, [1.0] * 4])
    found = chosen.of(rewards, torch.zeros(4, 4))
    assert found.shape == rewards.shape and found.dtype == rewards.dtype and found.isfinite().all()
    assert (found[rewards.isnan()] == 0).all() and found[0, 0] > found[0, 1]


def test_an_unknown_advantage_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'passk'"):
        advantage("pass_k", pass_k=2, rank_penalty=0.25)


@pytest.mark.parametrize(
    ("train", "part"),
    [
        ({"pass_k": 4}, "train.pass_k is read with train.advantage=passk or pkpo, but it is group"),
        ({"advantage": "passk", "rank_penalty": 0.1}, "rank_penalty is read with train.advantage=unlikeliness"),
        ({"advantage": "pkpo", "pass_k": 9}, "pass_k=9 needs 2 <= pass_k <= group_size=8"),
        ({"advantage": "passk", "group_size": 2}, "pass_k=4 needs 2 <= pass_k <= group_size=2"),
    ],
)
def test_settings_of_another_advantage_are_refused(train: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        build_config({"train": train})


@NEEDS_TRL
def test_settings_reach_the_trainer_and_are_checked_there_too(tmp_path: Path) -> None:
    from dphrl import DPHConfig

    config = build_config({"train": {"advantage": "pkpo", "pass_k": 3, "trl": {"entropy_coef": 0.01}}})
    args = DPHConfig(**trainer_settings(config, tmp_path) | {"use_cpu": True})
    assert (args.advantage, args.pass_k, args.entropy_coef) == ("pkpo", 3, 0.01)
    with pytest.raises(ConfigError, match=r"train\.pass_k"):
        DPHConfig(output_dir=str(tmp_path), advantage="maxrl", pass_k=3, use_cpu=True)


@NEEDS_TRL
@pytest.mark.parametrize("updates", [1, 2])
def test_the_trainer_ranks_by_the_sampling_policy(updates: int, tmp_path: Path) -> None:
    """Mean ln pi of each completion's tokens, from full logits, whether TRL keeps them (2 updates) or not."""
    from datasets import Dataset

    from dphrl import DPHConfig, DPHTrainer
    from dphrl.demo.task import load_demo_task
    from dphrl.models.policy import load_policy

    config = build_config({"model": {"path": "demo", "device": "cpu"}, "method": "grpo"})
    config_changes: dict[str, Any] = {
        "advantage": "unlikeliness",
        "rank_penalty": 0.5,
        "num_generations": 4,
        "per_device_train_batch_size": 8 // updates,
        "gradient_accumulation_steps": 1,
        "steps_per_generation": updates,
        "max_completion_length": 16,
        "use_cpu": True,
    }
    policy = load_policy(config)
    trainer = DPHTrainer(
        model=policy.model,
        reward_funcs=lambda completions, **_: [1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0],
        args=DPHConfig(**trainer_settings(config, tmp_path) | config_changes),
        train_dataset=Dataset.from_list([{"prompt": p.prompt} for p in load_demo_task("in_domain").prompts[:2]]),
        processing_class=policy.tokenizer,
        encode=policy.encode,
    )
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    torch.manual_seed(0)
    batch = trainer._generate_and_score_completions([trainer.train_dataset[i] for i in range(2) for _ in range(4)])
    assert ("old_per_token_logps" in batch) == (updates == 2)
    ids, mask = (torch.cat([batch[f"prompt_{x}"], batch[f"completion_{x}"]], 1) for x in ("ids", "mask"))
    time = batch["completion_ids"].shape[1]
    with torch.no_grad():
        logits = trainer.model(input_ids=ids, attention_mask=mask).logits[:, -time - 1 : -1]
    logp = logits.log_softmax(-1).gather(2, batch["completion_ids"][..., None])[..., 0]
    mean = (logp * batch["completion_mask"]).sum(1) / batch["completion_mask"].sum(1)
    want = unlikeliness_advantages(batch["rewards"].view(2, 4), mean.view(2, 4), 0.5).flatten()
    assert torch.allclose(batch["advantages"], want, atol=1e-5)
    plain = unlikeliness_advantages(batch["rewards"].view(2, 4), mean.view(2, 4), 0.0).flatten()
    assert not torch.allclose(batch["advantages"], plain, atol=1e-2)
