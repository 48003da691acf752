"""Top-K anchors inside the trainer, against autograd through full logits."""

from __future__ import annotations

from collections.abc import Callable
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
from dphrl.errors import AnchorError, ConfigError
from dphrl.method.divergences import generator, topk_divergence
from dphrl.models.policy import load_policy
from dphrl.models.scoring import score
from dphrl.types import Anchor

CONFIG = build_config({"model": {"path": "demo", "device": "cpu"}})
TOPK = 5


def gradient_of(model: Any) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.fixture(scope="module")
def anchors() -> tuple[Anchor, ...]:
    """16 gold answers of training prompts with the shipped model's likeliest tokens."""
    policy = load_policy(CONFIG)
    prompts = load_demo_task("in_domain").prompts[:16]
    ids = [policy.encode(p) for p in prompts]
    gold = [[*policy.tokenizer(p.columns["gold"])["input_ids"], policy.stop_ids[0]] for p in prompts]
    scored = score(policy.model, ids, gold, pad_id=0, temperature=1.0, batch_size=5, topk=TOPK)
    return tuple(
        Anchor(p.id, tuple(i), tuple(g), s.logps, topk_ids=s.topk_ids, topk_logps=s.topk_logps)
        for p, i, g, s in zip(prompts, ids, gold, scored, strict=True)
    )


def short_is_good(completions: list[str], **columns: Any) -> list[float]:
    return [float(len(text.split()) < 14) for text in completions]


def settings(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    return {
        "output_dir": str(tmp_path / "out"),
        "num_generations": 4,
        "per_device_train_batch_size": 8,
        "steps_per_generation": 2,
        "max_steps": 2,
        "max_completion_length": 16,
        "learning_rate": 1e-3,
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
    return Dataset.from_list([{"prompt": p.prompt} for p in load_demo_task("in_domain").prompts[:16]])


Built = Callable[..., DPHTrainer]


@pytest.fixture
def build(tmp_path: Path) -> Built:
    def make(anchors: Any, **changes: Any) -> DPHTrainer:
        policy = load_policy(CONFIG)
        return DPHTrainer(
            model=policy.model,
            reward_funcs=short_is_good,
            args=DPHConfig(
                **settings(tmp_path, **{"anchor_estimator": "topk", "method": "dph", "anchors_per_step": 8} | changes)
            ),
            train_dataset=dataset(),
            processing_class=policy.tokenizer,
            anchors=anchors,
            encode=policy.encode,
        )

    return make


def trained(trainer: GRPOTrainer) -> Tensor:
    torch.manual_seed(11)
    trainer.train()
    return torch.cat([p.detach().flatten().double() for p in trainer.model.parameters()])


@pytest.mark.parametrize("divergence", ["forward_kl", "js"])
def test_the_gradient_is_that_of_full_logits(divergence: str, build: Built, anchors: tuple[Anchor, ...]) -> None:
    """eta * sum over tokens of D_f over K entries and the rest, by hand on a moved policy."""
    trainer = build(anchors, divergence=divergence, temperature=0.8)
    with torch.no_grad():
        for p in trainer.model.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
    chosen = list(anchors[:6])
    tokens = sum(len(a.completion_ids) for a in chosen)
    loss = trainer._anchor_penalty(trainer.model, AnchorBatch(tuple(chosen), tokens))
    loss.backward()
    found = gradient_of(trainer.model)
    trainer.model.zero_grad()
    terms, log_u = [], []
    for a in chosen:
        logits = trainer.model(torch.tensor([[*a.prompt_ids, *a.completion_ids]])).logits[0, len(a.prompt_ids) - 1 : -1]
        logp = (logits / 0.8).log_softmax(-1)
        log_u.append(logp.gather(1, torch.tensor(a.completion_ids)[:, None])[:, 0] - torch.tensor(a.ref_logps))
        p, q = (x.exp() for x in (logp.gather(1, torch.tensor(a.topk_ids)), torch.tensor(a.topk_logps)))
        p, q = (torch.cat([x, (1 - x.sum(1, keepdim=True)).clamp(min=2e-6)], 1) for x in (p, q))
        u = p / q
        f = u - 1 - u.log() if divergence == "forward_kl" else u * u.log() - (u + 1) * ((u + 1) / 2).log()
        terms.append((q * f).sum())
    reference = sum(terms) / tokens
    reference.backward()
    want = gradient_of(trainer.model)
    assert loss.item() == pytest.approx(reference.item(), rel=1e-3)
    assert want.abs().max() > 0.01 and (found - want).abs().max() < 1e-3 * want.abs().max()
    stats = trainer._anchors.stats[-1].metrics()
    assert stats["anchor/forward_kl"].item() == pytest.approx(-torch.cat(log_u).mean().item(), rel=1e-4)
    assert stats["anchor/penalty"].item() == pytest.approx(loss.item(), rel=1e-5)


def test_the_whole_vocabulary_has_no_sampling_noise(build: Built, anchors: tuple[Anchor, ...]) -> None:
    """K = V through the trainer: KL(pi_ref || pi_theta) at each position, from two full log-softmaxes."""
    policy = load_policy(CONFIG)
    a = anchors[0]
    row = torch.tensor([[*a.prompt_ids, *a.completion_ids]])
    with torch.no_grad():
        ref = policy.model(row).logits[0, len(a.prompt_ids) - 1 : -1].log_softmax(-1)
    every = tuple(range(ref.shape[1]))
    whole = Anchor(
        a.prompt_id,
        a.prompt_ids,
        a.completion_ids,
        a.ref_logps,
        topk_ids=(every,) * len(ref),
        topk_logps=tuple(map(tuple, ref.tolist())),
    )
    trainer = build([whole])
    with torch.no_grad():
        for p in trainer.model.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
        now = trainer.model(row).logits[0, len(a.prompt_ids) - 1 : -1].log_softmax(-1)
        found = trainer._anchor_penalty(trainer.model, AnchorBatch((whole,), len(ref)))
    want = (ref.exp() * (ref - now)).sum(1).mean()
    assert found.item() == pytest.approx(want.item(), rel=1e-3)
    assert topk_divergence(now, ref, generator("forward_kl")).mean().item() == pytest.approx(want.item(), rel=1e-3)


@pytest.mark.slow
def test_without_weight_it_is_trl_to_the_bit(build: Built, anchors: tuple[Anchor, ...], tmp_path: Path) -> None:
    policy = load_policy(CONFIG)
    plain = GRPOTrainer(
        model=policy.model,
        reward_funcs=short_is_good,
        args=GRPOConfig(**settings(tmp_path)),
        train_dataset=dataset(),
        processing_class=policy.tokenizer,
    )
    want = trained(plain)
    assert torch.equal(trained(build(anchors, eta=0.0, share_prompts="off")), want)
    assert not torch.equal(trained(build(anchors, eta=0.2, share_prompts="off")), want)


@pytest.mark.slow
def test_accumulation_changes_nothing(build: Built, anchors: tuple[Anchor, ...]) -> None:
    """1 x 8 = 4 x 2 micro-batches of the same rows and anchors."""
    results = [
        trained(
            build(
                anchors,
                eta=0.5,
                optim="sgd",
                learning_rate=0.1,
                per_device_train_batch_size=micro,
                gradient_accumulation_steps=8 // micro,
                steps_per_generation=16 // micro,
            )
        )
        for micro in (8, 2)
    ]
    assert (results[0] - results[1]).abs().max() < 2e-5


def test_the_untrained_policy_is_the_reference(build: Built, anchors: tuple[Anchor, ...]) -> None:
    trainer = build(anchors)
    assert trainer.initial_log_u() < 1e-5
    assert trainer._anchor_penalty(trainer.model, AnchorBatch(anchors[:4], 10)).item() < 1e-5


def test_what_top_k_needs_is_asked_for_by_name(build: Built, anchors: tuple[Anchor, ...]) -> None:
    bare = [Anchor(a.prompt_id, a.prompt_ids, a.completion_ids, a.ref_logps) for a in anchors]
    with pytest.raises(AnchorError, match=r"these anchors hold none; pre-sample with anchor\.topk=16"):
        build(bare)
    with pytest.raises(ConfigError, match="is read by method dph, but method is replay"):
        build(anchors, method="replay")
    with pytest.raises(ConfigError, match=r"anchor\.topk=0 stores none"):
        build_config({"objective": {"anchor_estimator": "topk"}})
    assert build_config({"objective": {"anchor_estimator": "topk"}, "anchor": {"topk": 4}}).anchor.topk == 4
    with pytest.raises(ConfigError, match="is read by method dph, but method is grpo"):
        build_config({"objective": {"anchor_estimator": "topk"}, "method": "grpo"})
