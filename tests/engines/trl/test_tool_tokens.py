"""Tokens that a tool wrote, which TRL says by a mask, have no part in our own terms: counts, k1, k2."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

from dphrl import DPHConfig, DPHTrainer
from dphrl.config.load import build_config
from dphrl.demo.task import load_demo_task
from dphrl.models.policy import load_policy
from dphrl.models.scoring import score

CONFIG = build_config({"model": {"path": "demo", "device": "cpu"}, "sampling": {"max_new_tokens": 24}})
OWN, TOOL, TAIL = 3, 9, 2
"""Tokens of each completion: the policy's, the tool's, the policy's."""
MASK = [1] * OWN + [0] * TOOL + [1] * TAIL


def completions(count: int) -> list[list[int]]:
    rng = random.Random(5)
    return [[rng.randrange(10, 60) for _ in MASK] for _ in range(count)]


def moved_policy() -> Any:
    """The demo's model a step away from itself, so that it differs from the reference."""
    policy = load_policy(CONFIG)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in policy.model.parameters():
            weight.add_(0.02 * torch.randn(weight.shape, generator=generator))
    return policy


def first_log(tmp_path: Path, method: str, **settings: Any) -> dict[str, Any]:
    """What one optimiser step on eight completions with a tool's tokens logs."""
    policy = moved_policy()
    prompts = [str(p.prompt) for p in load_demo_task("in_domain").prompts[:8]]

    def rollout(asked: list[str], _trainer: Any) -> dict[str, Any]:
        ids = policy.tokenizer(asked)["input_ids"]
        drawn = completions(len(asked))
        zeros = [[0.0] * len(MASK) for _ in asked]
        return {"prompt_ids": ids, "completion_ids": drawn, "logprobs": zeros, "env_mask": [MASK] * len(asked)}

    def even(completion_ids: Iterable[list[int]], **_columns: Any) -> list[float]:
        return [float(sum(ids) % 2 == 0) for ids in completion_ids]

    arguments = DPHConfig(
        method=method,
        output_dir=str(tmp_path / method),
        num_generations=4,
        per_device_train_batch_size=8,
        steps_per_generation=1,
        max_steps=1,
        max_completion_length=24,
        epsilon=0.2,
        epsilon_high=0.2,
        max_grad_norm=1.0,
        use_cpu=True,
        bf16=False,
        activation_checkpointing=False,
        report_to="none",
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **settings,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*rollout_func.*")
        trainer = DPHTrainer(
            model=policy.model,
            reward_funcs=even,
            args=arguments,
            train_dataset=Dataset.from_dict({"prompt": prompts}),
            processing_class=policy.tokenizer,
            rollout_func=rollout,
        )
    trainer.train()
    return dict(trainer.state.log_history[0])


def test_dapo_with_nothing_replaced_is_grpo(tmp_path: Path) -> None:
    """Its denominator counts the tokens that count in TRL's."""
    grpo, dapo = first_log(tmp_path, "grpo"), first_log(tmp_path, "dapo", max_resample=0)
    assert grpo["grad_norm"] > 0
    assert dapo["grad_norm"] == pytest.approx(grpo["grad_norm"], rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["k2", "k1_reward"])
def test_the_kl_reads_the_policys_tokens_alone(tmp_path: Path, estimator: str) -> None:
    log = first_log(tmp_path, "rkl", kl_estimator=estimator, beta=0.1)
    policy, initial = moved_policy(), load_policy(CONFIG)
    prompts = load_demo_task("in_domain").prompts
    asked = {str(p.prompt): initial.encode(p) for p in prompts[:8]}
    found = []
    for drawn in (prompts[i] for i in range(8)):
        rows = [asked[str(drawn.prompt)]] * 8
        found.append((rows, completions(8)))
    # Which two prompts a step takes is TRL's to choose: the metric is that of one pair of groups.
    by_prompt = {}
    for name, model in (("policy", policy.model), ("reference", initial.model)):
        logps = [score(model, rows, drawn, pad_id=0, temperature=1.0, batch_size=8) for rows, drawn in found]
        by_prompt[name] = torch.tensor([[list(x.logps) for x in of] for of in logps])
    own = torch.tensor(MASK, dtype=torch.bool)
    gap_PNT = (by_prompt["policy"] - by_prompt["reference"])[:, :, own]
    of_completion = (gap_PNT**2 / 2).mean(-1) if estimator == "k2" else gap_PNT.sum(-1)
    first, second = of_completion[:, :4].mean(1), of_completion[:, 4:].mean(1)
    possible = (first[:, None] + second[None, :]) / 2
    assert (possible - log["kl"]).abs().min() < 1e-5
