"""The trainer: eta = 0 is TRL to the bit, splitting the work changes nothing, gradients are the stated ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch import Tensor
from trl import GRPOConfig, GRPOTrainer

from dphrl import DPHConfig, DPHTrainer
from dphrl.config.load import build_config
from dphrl.demo.task import load_demo_task
from dphrl.engines.common.anchor_term import AnchorBatch
from dphrl.engines.common.generation.dynamic_sampling import flat_groups
from dphrl.engines.trl.config_to_trl import trainer_settings
from dphrl.errors import ConfigError, EmptyAnchorStore
from dphrl.models.policy import Policy, load_policy
from dphrl.models.scoring import score
from dphrl.types import Anchor

CONFIG = build_config({"model": {"path": "demo", "device": "cpu"}, "sampling": {"max_new_tokens": 24}})
GROUP = 4


@pytest.fixture
def policy() -> Policy:
    return load_policy(CONFIG)


@pytest.fixture(scope="module")
def anchors() -> tuple[Anchor, ...]:
    """16 gold answers of training prompts, scored by the shipped model."""
    policy = load_policy(CONFIG)
    prompts = load_demo_task("in_domain").prompts[:16]
    ids = [policy.encode(p) for p in prompts]
    gold = [[*policy.tokenizer(p.columns["gold"])["input_ids"], policy.stop_ids[0]] for p in prompts]
    logps = score(policy.model, ids, gold, pad_id=0, temperature=1.0, batch_size=5)
    return tuple(
        Anchor(p.id, tuple(i), tuple(g), x.logps) for p, i, g, x in zip(prompts, ids, gold, logps, strict=True)
    )


def short_is_good(completions: list[str], **columns: Any) -> list[float]:
    return [float(len(text.split()) < 14) for text in completions]


def some_unjudged(completions: list[str], **columns: Any) -> list[float | None]:
    return [None if i % 3 == 0 else float(len(text.split()) < 14) for i, text in enumerate(completions)]


def settings(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    return {
        "output_dir": str(tmp_path / "out"),
        "num_generations": GROUP,
        "per_device_train_batch_size": 8,
        "steps_per_generation": 2,
        "max_steps": 3,
        "max_completion_length": 24,
        "learning_rate": 1e-3,
        "max_grad_norm": 1.0,
        "seed": 3,
        "use_cpu": True,
        "bf16": False,
        "activation_checkpointing": False,
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        **changes,
    }


def dataset() -> Dataset:
    rows = [{"prompt": p.prompt, "prompt_id": p.id} for p in load_demo_task("in_domain").prompts[:16]]
    return Dataset.from_list(rows)


Built = Callable[..., DPHTrainer]


@pytest.fixture
def build(tmp_path: Path) -> Built:
    def make(anchors: Any = None, reward: Any = short_is_good, **changes: Any) -> DPHTrainer:
        policy = load_policy(CONFIG)
        return DPHTrainer(
            model=policy.model,
            reward_funcs=reward,
            args=DPHConfig(**settings(tmp_path, **changes)),
            train_dataset=dataset(),
            processing_class=policy.tokenizer,
            anchors=anchors,
            encode=policy.encode,
        )

    return make


def weights(trainer: Any) -> Tensor:
    return torch.cat([p.detach().flatten().double() for p in trainer.model.parameters()])


def trained(trainer: GRPOTrainer) -> Tensor:
    torch.manual_seed(11)
    trainer.train()
    return weights(trainer)


@pytest.fixture
def plain_trl(tmp_path: Path) -> GRPOTrainer:
    policy = load_policy(CONFIG)
    return GRPOTrainer(
        model=policy.model,
        reward_funcs=short_is_good,
        args=GRPOConfig(**settings(tmp_path)),
        train_dataset=dataset(),
        processing_class=policy.tokenizer,
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "dph"},
        pytest.param({"method": "grpo"}, marks=pytest.mark.slow),
        pytest.param({"method": "replay"}, marks=pytest.mark.slow),
        pytest.param({"method": "dph", "anchor_forward": "merged"}, marks=pytest.mark.slow),
        pytest.param({"method": "dph", "form": "definition", "divergence": "js"}, marks=pytest.mark.slow),
    ],
)
def test_without_weight_every_method_is_trl_to_the_bit(
    changes: dict[str, str], build: Built, plain_trl: GRPOTrainer, anchors: tuple[Anchor, ...]
) -> None:
    anchored: dict[str, Any] = {} if changes["method"] == "grpo" else {"eta": 0.0, "anchors_per_step": 4}
    ours = build(anchors if anchored else None, share_prompts="off", **anchored, **changes)
    start = weights(ours)
    assert torch.equal(trained(ours), trained(plain_trl))
    assert not torch.equal(start, weights(ours))


def test_with_weight_the_parameters_differ_from_trl(
    build: Built, plain_trl: GRPOTrainer, anchors: tuple[Anchor, ...]
) -> None:
    ours = build(anchors, method="replay", eta=0.2, anchors_per_step=4, share_prompts="off")
    assert not torch.equal(trained(ours), trained(plain_trl))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dph", "replay"])
def test_accumulation_changes_nothing(method: str, build: Built, anchors: tuple[Anchor, ...]) -> None:
    """1 x 8 = 2 x 4 = 8 x 1 micro-batches of the same 8 rows and 8 anchors."""
    results = []
    for micro in (8, 4, 1):
        trainer = build(
            anchors,
            method=method,
            eta=0.5,
            anchors_per_step=8,
            optim="sgd",  # AdamW's first steps are signs of gradients: rounding would decide where they are about 0
            learning_rate=0.1,
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=8 // micro,
            steps_per_generation=16 // micro,
        )
        results.append(trained(trainer))
    for other in results[1:]:
        assert (other - results[0]).abs().max() < 2e-5


def test_anchor_gradient_is_the_stated_objective(build: Built, anchors: tuple[Anchor, ...]) -> None:
    """eta * sum f(log u) / N by hand on a moved policy: autograd through plain log_softmax."""
    trainer = build(anchors, method="dph", divergence="js", eta=0.3, anchors_per_step=16)
    with torch.no_grad():
        for p in trainer.model.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
    chosen = list(anchors[:6])
    tokens = sum(len(a.completion_ids) for a in chosen)
    loss = 0.3 * trainer._anchor_penalty(trainer.model, AnchorBatch(tuple(chosen), tokens))
    loss.backward()
    found = gradient(trainer.model)
    trainer.model.zero_grad()
    total = torch.zeros(())
    for a in chosen:
        logits = trainer.model(torch.tensor([[*a.prompt_ids, *a.completion_ids]])).logits[0, len(a.prompt_ids) - 1 : -1]
        logp = logits.log_softmax(-1).gather(1, torch.tensor(a.completion_ids)[:, None])[:, 0]
        u = (logp - torch.tensor(a.ref_logps)).exp()
        total = total + (u * u.log() - (u + 1) * ((u + 1) / 2).log()).sum()
    reference = 0.3 * total / tokens
    reference.backward()
    assert loss.item() == pytest.approx(reference.item(), rel=1e-4)
    assert (found - gradient(trainer.model)).abs().max() < 1e-5


def gradient(model: Any) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.fixture
def rkl(build: Built) -> Iterator[Callable[..., tuple[DPHTrainer, dict[str, Any]]]]:
    def make(estimator: str, **changes: Any) -> tuple[DPHTrainer, dict[str, Any]]:
        """A moved policy, and one generation on it."""
        trainer = build(method="rkl", kl_estimator=estimator, beta=0.7, **changes)
        with torch.no_grad():
            for p in trainer.model.parameters():
                p.add_(0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
        trainer.current_gradient_accumulation_steps = 1
        trainer.model.train()
        rows = [trainer.train_dataset[i] for i in range(4) for _ in range(GROUP)]
        torch.manual_seed(0)
        return trainer, trainer._generate_and_score_completions(rows)

    yield make


def kl_gradient(trainer: DPHTrainer, batch: dict[str, Any], term: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The gradient of 0.7 * mean over tokens of `term`, written out without the trainer."""
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    time = batch["completion_ids"].shape[1]
    logits = trainer.model(input_ids=ids, attention_mask=mask).logits[:, -time - 1 : -1]
    logp = logits.log_softmax(-1).gather(2, batch["completion_ids"][..., None])[..., 0]
    terms = term(logp, batch["ref_per_token_logps"]) * batch["completion_mask"]
    # Half of the generation is one optimiser step; the whole batch is given here, so the denominator is half as well.
    (0.7 * terms.sum() / (batch["completion_mask"].sum() / 2)).backward()
    found = gradient(trainer.model)
    trainer.model.zero_grad()
    return found


@pytest.mark.parametrize(
    ("estimator", "term"),
    [
        ("k2", lambda logp, ref: (logp - ref) ** 2 / 2),
        ("k3", lambda logp, ref: (ref - logp).exp() - (ref - logp) - 1),
        ("k3_corrected", lambda logp, ref: ((ref - logp).exp() - (ref - logp) - 1) * (logp - logp.detach()).exp()),
    ],
)
def test_kl_in_the_loss_is_the_named_estimator(estimator: str, term: Any, rkl: Any) -> None:
    trainer, batch = rkl(estimator)
    batch["advantages"] = torch.zeros_like(batch["advantages"])  # leaves the KL term alone
    trainer.compute_loss(trainer.model, batch).backward()
    found = gradient(trainer.model)
    trainer.model.zero_grad()
    expected = kl_gradient(trainer, batch, term)
    assert expected.abs().max() > 1e-3
    assert (found - expected).abs().max() < 1e-5
    assert trainer.beta == 0.7


@pytest.mark.parametrize("updates", [1, 2])
def test_kl_as_a_reward_is_centred_and_adds_no_loss_term(updates: int, rkl: Any) -> None:
    trainer, batch = rkl("k1_reward", steps_per_generation=updates, per_device_train_batch_size=16 // updates)
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    time = batch["completion_ids"].shape[1]
    with torch.no_grad():
        logits = trainer.model(input_ids=ids, attention_mask=mask).logits[:, -time - 1 : -1]
    logp = logits.log_softmax(-1).gather(2, batch["completion_ids"][..., None])[..., 0]
    k1 = ((logp - batch["ref_per_token_logps"]) * batch["completion_mask"]).sum(1).view(-1, GROUP)
    rewards = batch["rewards"].view(-1, GROUP)
    group = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)
    expected = (group - 0.7 * (k1 - k1.mean(1, keepdim=True))).flatten()
    assert torch.allclose(batch["advantages"], expected, atol=1e-4)
    batch["advantages"] = torch.zeros_like(batch["advantages"])
    assert trainer.compute_loss(trainer.model, batch).item() == 0


def test_dynamic_sampling_replaces_groups_without_spread(build: Built) -> None:
    calls: list[int] = []

    def reward(completions: list[str], **columns: Any) -> list[float]:
        calls.append(len(completions))
        if len(calls) == 1:  # first generation: groups 0 and 2 are flat
            return [1.0] * 4 + [0.0, 1.0, 0.0, 1.0] + [0.0] * 4 + [1.0, 0.0, 0.0, 0.0]
        return [1.0, 0.0, 1.0, 0.0] * (len(completions) // 4)

    trainer = build(method="dapo", reward=reward, max_resample=2)
    trainer.model.train()
    rows = [trainer.train_dataset[i] for i in range(4) for _ in range(GROUP)]
    batch = trainer._generate_and_score_completions(rows)
    assert calls == [16, 8]
    assert flat_groups(batch["rewards"], GROUP) == []
    assert batch["advantages"].view(4, 4).abs().sum(1).min() > 0
    assert batch["num_items_in_batch"] == batch["completion_mask"].sum()
    assert batch["prompt_ids"].shape == batch["prompt_mask"].shape
    assert trainer._metrics["train"]["dapo/flat_groups_left"] == [0.0]


def test_dynamic_sampling_gives_up_after_its_rounds(build: Built) -> None:
    calls: list[int] = []

    def reward(completions: list[str], **columns: Any) -> list[float]:
        calls.append(len(completions))
        return [1.0] * len(completions)

    trainer = build(method="dapo", reward=reward, max_resample=2)
    trainer.model.train()
    batch = trainer._generate_and_score_completions([trainer.train_dataset[i] for i in range(4) for _ in range(GROUP)])
    assert calls == [16, 16, 16] and batch["advantages"].abs().max() == 0
    assert trained(build(method="dapo", max_resample=1)).isfinite().all()


def test_maxrl_divides_by_the_group_mean(build: Built) -> None:
    """Rewards 1,0,0,0: mean 1/4, advantages 3, -1, -1, -1; an all-wrong group has none."""
    trainer = build(method="grpo", advantage="maxrl", reward=lambda completions, **_: [1.0, 0, 0, 0, 0, 0, 0, 0])
    trainer.model.train()
    batch = trainer._generate_and_score_completions([trainer.train_dataset[i] for i in range(2) for _ in range(GROUP)])
    assert batch["advantages"].tolist() == pytest.approx([3, -1, -1, -1, 0, 0, 0, 0])


def test_unjudged_completions_have_no_advantage(build: Built) -> None:
    trainer = build(method="grpo", reward=some_unjudged)
    trainer.model.train()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trl.trainer.grpo_trainer.logger.warning", lambda *a, **k: None)
        batch = trainer._generate_and_score_completions(
            [trainer.train_dataset[i] for i in range(4) for _ in range(GROUP)]
        )
    assert (batch["advantages"][::3] == 0).all() and batch["rewards"][::3].isnan().all()


def test_metrics_hold_the_unclamped_forward_kl(build: Built, anchors: tuple[Anchor, ...]) -> None:
    trainer = build(anchors, method="dph", eta=0.2, anchors_per_step=8)
    assert trainer.initial_log_u() < 1e-5
    trainer.train()
    last = [row for row in trainer.state.log_history if "anchor/penalty" in row][-1]
    assert {"anchor/forward_kl", "anchor/log_u_min", "anchor/log_u_max", "anchor/log_u_abs_mean"} <= set(last)
    assert last["anchor/log_u_min"] < 0 < last["anchor/penalty"]


def test_anchors_must_be_there_for_the_methods_that_use_them(build: Built, anchors: tuple[Anchor, ...]) -> None:
    with pytest.raises(EmptyAnchorStore):
        build((), method="dph")
    with pytest.raises(ConfigError, match="no use for anchors"):
        build(anchors, method="grpo")


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"method": "dhp"}, "did you mean 'dph'"),
        ({"method": "rkl", "beta": 0.0}, "objective.beta=0.0 must be greater than 0"),
        ({"method": "dph", "beta": 0.1}, "objective.beta is read by method rkl, but method is dph"),
        ({"method": "rkl", "kl_estimator": "k4"}, "'k3', 'k3_corrected', 'k2' or 'k1_reward'"),
        ({"advantage": "max"}, "'group', 'maxrl'"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes: dict[str, Any], part: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=part):
        DPHConfig(**settings(tmp_path, **changes))


def test_the_policy_s_own_tokens_are_trained(build: Built, policy: Policy) -> None:
    trainer = build(method="grpo")
    texts = [trainer.train_dataset[i]["prompt"] for i in range(3)]
    assert trainer._tokenize_prompts(texts)[0] == [policy.tokenizer(t)["input_ids"] for t in texts]


def test_settings_of_a_config_reach_trl(tmp_path: Path) -> None:
    config = build_config(
        {"train": {"prompts_per_step": 8, "group_size": 8, "micro_batch": 8, "steps": 5, "warmup_steps": 2}}
    )
    found = DPHConfig(**trainer_settings(config, tmp_path) | {"use_cpu": True})
    assert (found.gradient_accumulation_steps, found.steps_per_generation, found.max_steps) == (4, 8, 10)
    assert (found.epsilon, found.epsilon_high, found.beta) == (0.2, 0.28, 0.0)
    grpo = trainer_settings(build_config({"method": "grpo"}), tmp_path)
    assert grpo["epsilon_high"] == 0.2


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"train": {"trl": {"num_iteration": 2}}}, "num_iterations"),
        ({"train": {"trl": {"beta": 0.1}}}, "set by dphrl"),
        ({"train": {"micro_batch": 24}}, "do not divide"),
        (
            {"train": {"micro_batch": 4}, "objective": {"anchors_per_step": 7, "anchor_forward": "separate"}},
            "anchors_per_step=7.*8 micro-batches",
        ),
    ],
)
def test_settings_trl_cannot_have_are_refused(values: dict[str, Any], part: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=part):
        trainer_settings(build_config(values), tmp_path)


def test_buffered_batches_are_not_changed(build: Built, anchors: tuple[Anchor, ...]) -> None:
    trainer = build(anchors, method="dph", anchors_per_step=4)
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    rows = [trainer.train_dataset[i] for i in range(4) for _ in range(GROUP)]
    assert "anchors" in trainer._prepare_inputs(rows)
    assert all("anchors" not in batch for batch in trainer._buffered_inputs)
