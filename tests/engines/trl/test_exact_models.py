"""Models beside the plain float32 Llama: learned positions, noise of their own, bfloat16, LoRA; and the first check."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import exact_cases as cases
import pytest
import torch
from safetensors import safe_open
from transformers import GPT2Config, GPT2LMHeadModel

from dphrl import DPHConfig, DPHTrainer
from dphrl.engines.common.anchor_term import AnchorBatch
from dphrl.errors import AnchorError
from dphrl.models.policy import load_policy
from dphrl.models.positions import needs_positions
from dphrl.models.scoring import score
from dphrl.types import Anchor

reference, gradient, anchors = cases.reference, cases.gradient, cases.anchors

Built = Callable[..., DPHTrainer]


@pytest.fixture
def build(tmp_path: Path) -> Built:
    def make(anchors: Any, model: Any, peft_config: Any = None, **changes: Any) -> DPHTrainer:
        policy = load_policy(cases.CONFIG)
        trainer = cases.Unchecked(
            model=model,
            reward_funcs=cases.by_length,
            args=DPHConfig(**cases.settings(tmp_path, **changes)),
            train_dataset=cases.dataset(),
            processing_class=policy.tokenizer,
            anchors=anchors,
            encode=policy.encode,
            peft_config=peft_config,
        )
        trainer.current_gradient_accumulation_steps = 1
        return trainer

    return make


def scored_by(model: Any, anchors: Sequence[Anchor], autocast: str | None = None) -> list[Anchor]:
    """The same tokens with that model's log-probabilities, as the stage makes them."""
    ids, gold = [list(a.prompt_ids) for a in anchors], [list(a.completion_ids) for a in anchors]
    scored = score(model, ids, gold, pad_id=0, temperature=cases.TEMPERATURE, batch_size=5, autocast=autocast)
    return [Anchor(a.prompt_id, a.prompt_ids, a.completion_ids, x.logps) for a, x in zip(anchors, scored, strict=True)]


def demo_model() -> Any:
    return load_policy(cases.CONFIG).model


def generation(trainer: DPHTrainer) -> dict[str, Any]:
    trainer.model.train()
    torch.manual_seed(0)
    rows = [trainer.train_dataset[i] for i in range(4) for _ in range(cases.GROUP)]
    return trainer._generate_and_score_completions(rows)


def largest_error(model: Any, batch: dict[str, Any], key: str) -> float:
    """Of padded log-probabilities against the model's own, each row alone and without padding (nats)."""
    names = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", key)
    errors = []
    for p, pm, c, cm, logp in zip(*(batch[name] for name in names), strict=True):
        with torch.no_grad():
            own = reference.logps(model, p[pm.bool()].tolist(), c[cm.bool()].tolist(), cases.TEMPERATURE)
        errors.append((own - logp[cm.bool()]).abs().max().item())
    return max(errors)


def test_the_first_check_looks_at_the_whole_store(build: Built, anchors: tuple[Anchor, ...]) -> None:
    """Keep sets lie behind: 100 right anchors, then 10 scored by another model."""
    four = scored_by(demo_model(), anchors[:4])
    right = [four[i % 4] for i in range(100)]
    wrong = [Anchor("w", a.prompt_ids, a.completion_ids, tuple(x - 0.5 for x in a.ref_logps)) for a in right[:10]]
    trainer = build(right, demo_model(), method="dph")
    assert trainer.initial_log_u() < 1e-5
    assert not trainer.model.training  # as it was
    assert build([*right, *wrong], demo_model(), method="dph").initial_log_u() == pytest.approx(0.5 / 11, rel=0.5)


def test_noise_of_the_model_itself_shows_in_the_first_check(build: Built, anchors: tuple[Anchor, ...]) -> None:
    """Dropout in attention is turned off; what no name tells is refused for what it is, not for other anchors."""
    model = demo_model()
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.2
    own = scored_by(model, anchors)
    assert build(own, model, method="dph", share_prompts="auto").initial_log_u() < 1e-5
    noisy = copy.deepcopy(model)
    noisy.model.layers[0].mlp.register_forward_hook(
        lambda module, _, out: out + torch.randn_like(out) if module.training else out
    )
    trainer = build(own, noisy, method="dph", share_prompts="auto")
    assert trainer.initial_log_u() > 1e-2
    assert not trainer.scorer.sharing.active and "noise of its own" in trainer.notes[0]
    with pytest.raises(AnchorError, match="draws random numbers"):
        DPHTrainer.check_anchors(trainer)


def test_learned_positions_do_not_see_the_padding(build: Built, anchors: tuple[Anchor, ...]) -> None:
    """GPT-2 counts from the left edge unless told otherwise, and TRL does not tell it."""
    torch.manual_seed(0)
    policy = load_policy(cases.CONFIG)
    sizes = {"n_positions": 256, "n_embd": 32, "n_layer": 2, "n_head": 2}
    vocabulary = policy.model.config.vocab_size
    model = GPT2LMHeadModel(GPT2Config(vocab_size=vocabulary, eos_token_id=policy.stop_ids[0], **sizes)).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(8)  # as initialised all its log-probabilities are about the same
    assert needs_positions(model) and not needs_positions(policy.model)
    own = scored_by(model, anchors)
    trainer = build(own, model, method="dph")
    assert trainer.initial_log_u() < 1e-4
    batch = generation(trainer)
    assert (batch["prompt_mask"] == 0).any()
    assert largest_error(model, batch, "old_per_token_logps") < 1e-3
    apart = build(own, model, method="dph", share_prompts="off")
    assert apart.initial_log_u() < 1e-4
    assert largest_error(model, generation(apart), "old_per_token_logps") < 1e-3
    apart.scorer._gives_positions = False  # TRL alone
    assert largest_error(model, generation(apart), "old_per_token_logps") > 0.1
    assert apart.initial_log_u() > 1e-2


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("autocast", ["bfloat16", None])
def test_bfloat16_follows_the_float32_gradient(
    weights: torch.dtype, autocast: str | None, build: Built, anchors: tuple[Anchor, ...]
) -> None:
    """Scored and trained in the same compute, anchors have u = 1 at the start; the pull is the stated one."""
    model = demo_model().to(weights)
    trainer = build(scored_by(model, anchors, autocast), model, method="dph", bf16=autocast is not None)
    assert trainer.initial_log_u() < 2e-3  # rounding: rows are padded otherwise
    chosen = anchors[:8]  # far from the policy
    model.train()
    (0.4 * trainer._anchor_penalty(model, AnchorBatch(chosen, sum(len(a.completion_ids) for a in chosen)))).backward()
    found = gradient(model)
    exact = demo_model()
    exact.load_state_dict(model.state_dict())
    s = {"T": cases.TEMPERATURE, "eta": 0.4, "f": "forward_kl", "cap": 5.0}
    reference.anchor_loss(exact, chosen, s).backward()
    expected = gradient(exact)
    assert (found - expected).norm() < 0.05 * expected.norm()
    trainer.train()
    assert all(p.isfinite().all() and p.dtype == weights for p in model.parameters())


@pytest.mark.slow
def test_clipping_acts_on_the_whole_loss(build: Built, anchors: tuple[Anchor, ...]) -> None:
    """The gradient of both terms together is scaled to the norm, its direction stays."""
    steps = []
    for norm in (0.0, 0.05):
        trainer = build(anchors, demo_model(), method="dph", eta=0.4, max_grad_norm=norm, max_steps=1)
        recorder = cases.Recorder(trainer)
        torch.manual_seed(1)
        trainer.train()
        steps.append(recorder.gradients[0])
    assert steps[0].norm() > 0.2
    assert steps[1].norm().item() == pytest.approx(0.05, rel=1e-3)
    assert torch.cosine_similarity(*steps, dim=0) > 1 - 1e-6


# -- LoRA -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def lora() -> Any:
    peft = pytest.importorskip("peft")
    return peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")


def perturb(model: Any) -> None:
    """Adapters start at zero."""
    noise = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn(p.shape, generator=noise))


def test_lora_pulls_the_adapter_to_the_base(build: Built, anchors: tuple[Anchor, ...], lora: Any) -> None:
    """Anchors are scored by the base; at the start u = 1, later the adapter alone has the stated gradient."""
    base = demo_model()
    own = scored_by(base, anchors)
    trainer = build(own, base, lora, method="dph", divergence="js", eta=0.4)
    assert trainer.initial_log_u() < 1e-5
    perturb(trainer.model)
    assert trainer.initial_log_u() > 1e-2
    trainer.model.train()
    tokens = sum(len(a.completion_ids) for a in own)
    (0.4 * trainer._anchor_penalty(trainer.model, AnchorBatch(tuple(own), tokens))).backward()
    found = gradient(trainer.model)
    trainer.model.zero_grad()
    s = {"T": cases.TEMPERATURE, "eta": 0.4, "f": "js", "cap": 5.0}
    reference.anchor_loss(trainer.model, own, s).backward()
    expected = gradient(trainer.model)
    assert (found - expected).norm() < 5e-5 * expected.norm()
    assert len(found) == sum(p.numel() for n, p in trainer.model.named_parameters() if "lora_" in n)


def test_the_reference_of_rkl_is_the_base_without_the_adapter(build: Built, lora: Any) -> None:
    trainer = build(None, demo_model(), lora, method="rkl", beta=0.3, kl_estimator="k2")
    perturb(trainer.model)
    batch = generation(trainer)
    assert trainer.ref_model is None
    assert largest_error(demo_model(), batch, "ref_per_token_logps") < 1e-4
    assert largest_error(demo_model(), batch, "old_per_token_logps") > 1e-2


@pytest.mark.slow
def test_an_adapter_checkpoint_goes_on_to_the_bit(
    build: Built, anchors: tuple[Anchor, ...], lora: Any, tmp_path: Path
) -> None:
    """A checkpoint holds the adapter alone; resuming from it ends where the uninterrupted run does."""
    changes = {"method": "dph", "save_strategy": "steps", "save_steps": 2, "max_steps": 4, "optim": "adamw_torch"}
    ends = []
    for start in (None, str(tmp_path / "out" / "checkpoint-2")):
        trainer = build(anchors, demo_model(), lora, learning_rate=1e-2, **changes)
        trainer.train(resume_from_checkpoint=start)
        ends.append({n: p.detach().clone() for n, p in trainer.model.named_parameters()})
    with safe_open(tmp_path / "out" / "checkpoint-2" / "adapter_model.safetensors", "pt") as file:
        assert file.keys() and all("lora_" in key for key in file.keys())  # noqa: SIM118
    assert not (tmp_path / "out" / "checkpoint-2" / "model.safetensors").exists()
    assert all(torch.equal(p, ends[1][n]) for n, p in ends[0].items())
    untouched = demo_model().state_dict()
    assert torch.equal(ends[1]["base_model.model.model.norm.weight"], untouched["model.norm.weight"])
