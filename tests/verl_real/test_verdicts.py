"""Completions that could not be judged: out of their group's advantages and out of the loss; statuses are counted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from queue_in_memory import QueueInMemory
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1 import trainer_base
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from dphrl.engines.verl import verdicts
from dphrl.engines.verl.trainer import DPHTrainerSync
from dphrl.engines.verl.verdicts import Verdicts, validation_shares
from dphrl.errors import VerifierError
from dphrl.types import STATUSES

CONFIG = OmegaConf.create(
    {
        "algorithm": {"adv_estimator": "grpo", "use_kl_in_reward": False, "gamma": 1.0, "lam": 1.0},
        "actor_rollout_ref": {"rollout": {"n": 4}},
    }
)
REWARDS = {"p": (1.0, 0.0, 0.0, 1.0), "q": (0.0, 1.0, 0.0, 0.0)}
FAILED = ("p_1_0",)
"""Its reward would have been 0 in any case: the mark makes the difference."""


def row(uid: str, reward: float, status: str, tokens: int) -> dict[str, Any]:
    info = {"status": status, "unjudged": float(status == "verifier_error"), "detail": "no server"}
    info |= {"verifier_s": 2.0, "timeouts_s": 0.5}
    scores = torch.zeros(tokens)
    scores[-1] = reward
    return {
        "uid": uid,
        "responses": torch.arange(tokens) + 5,
        "response_mask": torch.ones(tokens, dtype=torch.int64),
        "loss_mask": torch.ones(tokens, dtype=torch.int64),
        "rm_scores": scores,
        "extra_fields": {"reward_extra_info": info},
    }


def advantages(monkeypatch: pytest.MonkeyPatch, trainer: Any, failed: tuple[str, ...]) -> tuple[Any, dict[str, float]]:
    """(rows, metrics) behind the computation of advantages."""
    queue, metrics = QueueInMemory(), dict[str, float]()
    for module in (trainer_base, verdicts):
        monkeypatch.setattr(module, "tq", queue)
    for uid, rewards in REWARDS.items():
        for i, reward in enumerate(rewards):
            key = f"{uid}_{i}_0"
            status = "verifier_error" if key in failed else "correct" if reward else "wrong"
            queue.rows[key] = row(uid, reward, status, 2 + i)
    keys = list(queue.rows)
    batch = KVBatchMeta(keys=keys, tags=[{} for _ in keys], partition_id="train", fields=list(queue.rows[keys[0]]))
    trainer.config, trainer.dph_verdicts = CONFIG, Verdicts()
    monkeypatch.setattr(queue, "kv_batch_put", returning(queue.kv_batch_put, batch))
    trainer._compute_advantage(batch, metrics)
    return queue.rows, metrics


def returning(put: Any, batch: Any) -> Any:
    def with_batch(**given: Any) -> Any:
        put(**given)
        return batch

    return with_batch


def first(rows: Mapping[str, Any], uid: str) -> list[float]:
    return [float(rows[key]["advantages"][0]) for key in rows if key.startswith(uid)]


def test_the_others_of_its_group_are_as_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, metrics = advantages(monkeypatch, DPHTrainerSync.__new__(DPHTrainerSync), FAILED)
    judged = torch.tensor([1.0, 0.0, 1.0])
    by_hand = ((judged - judged.mean()) / (judged.std() + 1e-6)).tolist()
    assert first(rows, "p") == pytest.approx([by_hand[0], 0.0, by_hand[1], by_hand[2]], abs=1e-5)
    assert rows["p_1_0"]["response_mask"].tolist() == rows["p_1_0"]["loss_mask"].tolist() == [0, 0, 0]
    assert rows["p_0_0"]["response_mask"].tolist() == [1, 1]
    assert {row["uid"] for row in rows.values()} == {"p", "q"}
    assert metrics["verifier/unjudged"] == 1 / 8 and metrics["verifier/status/verifier_error"] == 1 / 8
    assert {name.rpartition("/")[2] for name in metrics} == {*STATUSES, "unjudged", "timeout_share"} and metrics[
        "verifier/timeout_share"
    ] == 0.25


def test_without_failures_advantages_are_verls_own(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, _ = advantages(monkeypatch, DPHTrainerSync.__new__(DPHTrainerSync), ())
    stock, none = advantages(monkeypatch, PPOTrainerSync.__new__(PPOTrainerSync), ())
    assert first(ours, "p") == first(stock, "p") and first(ours, "q") == first(stock, "q") and none == {}


def test_a_verifier_that_judges_nothing_ends_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = tuple(f"{uid}_{i}_0" for uid in REWARDS for i in range(4))
    with pytest.raises(VerifierError, match=r"none of 8 completions could be judged; .*verifier_error: no server"):
        advantages(monkeypatch, DPHTrainerSync.__new__(DPHTrainerSync), everything)


def test_validation_counts_statuses_of_each_task() -> None:
    infos = {"status": ["correct", "wrong", "timeout", None], "unjudged": [0.0, 0.0, 0.0, None]}
    found = validation_shares(["a", "a", "b", "b"], infos)
    assert found["val-aux/a/verifier/status/correct"] == 0.5
    assert found["val-aux/b/verifier/status/timeout"] == 1.0
    assert validation_shares(["a"], {"reward": [1.0]}) == {}
