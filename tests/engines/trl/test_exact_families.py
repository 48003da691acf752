"""The trainer on a tiny model of many families: its loss and gradient are the reference's, and a step is taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import exact_cases as cases
import pytest
import torch
from tiny_models import tiny

from dphrl import DPHConfig
from dphrl.engines.common.anchor_term import AnchorBatch
from dphrl.method.anchor_order import AnchorOrder
from dphrl.models.policy import load_policy
from dphrl.models.scoring import score
from dphrl.types import Anchor

FAMILIES = (
    "qwen3", "gemma3-softcap", "phi-bias", "neox", "mistral-window", "mixtral-router", "deepseek-v3-latent",
    "gpt-oss-sinks", "opt-learned-positions", "olmo2-norms", "olmo3-window", "phi3-window", "gemma3-of-images-and-text",
    "mamba", "falcon-mamba", "falcon-h1-hybrid",
)  # fmt: skip
WHOLE = [
    pytest.param(family, eta, marks=[] if (family, eta) in (("phi3-window", 0.0), ("mamba", 0.4)) else pytest.mark.slow)
    for family in FAMILIES
    for eta in (0.4, 0.0)
]
"""All but two run with the slow tests."""
anchors = cases.anchors

ERROR = 2e-4
"""Of the gradient, relative to its norm: float32 in other orders of summing."""

pytestmark = [
    pytest.mark.filterwarnings("ignore:each completion reads its own prompt"),
    pytest.mark.filterwarnings("ignore:rollouts read a prompt once for each completion"),
]


def moved(model: Any, anchors: Sequence[Anchor]) -> list[list[Anchor]]:
    """The same tokens as that model scores them, and with log-probabilities that lie to either side."""
    ids, gold = [list(a.prompt_ids) for a in anchors], [list(a.completion_ids) for a in anchors]
    scored = score(model, ids, gold, pad_id=0, temperature=cases.TEMPERATURE, batch_size=3)
    own = [Anchor(a.prompt_id, a.prompt_ids, a.completion_ids, x.logps) for a, x in zip(anchors, scored, strict=True)]
    apart = [replace(a, ref_logps=tuple(x + 0.7 * (-1) ** t for t, x in enumerate(a.ref_logps))) for a in own]
    return [own, apart]


def trainer_of(model: Any, anchors: Sequence[Anchor], folder: Path, **changes: Any) -> Any:
    policy = load_policy(cases.CONFIG)
    return cases.Unchecked(
        model=model,
        reward_funcs=cases.by_length,
        args=DPHConfig(**cases.settings(folder, method="dph", share_prompts="auto", **changes)),
        train_dataset=cases.dataset(),
        processing_class=policy.tokenizer,
        anchors=anchors,
        encode=policy.encode,
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_the_pull_is_the_reference_s(family: str, anchors: tuple[Anchor, ...], tmp_path: Path) -> None:
    model = tiny(family, vocabulary=len(load_policy(cases.CONFIG).tokenizer))
    own, apart = moved(model, anchors[:6])
    trainer = trainer_of(model, own, tmp_path, max_steps=1)
    assert trainer.initial_log_u() < 1e-4
    trainer.current_gradient_accumulation_steps = 1
    model.train()
    model.zero_grad()
    tokens = sum(len(a.completion_ids) for a in apart)
    (0.4 * trainer._anchor_penalty(model, AnchorBatch(tuple(apart), tokens))).backward()
    found = cases.gradient(model)
    model.zero_grad()
    settings = {"T": cases.TEMPERATURE, "eta": 0.4, "f": "forward_kl", "cap": 5.0}
    cases.reference.anchor_loss(model, apart, settings).backward()
    expected = cases.gradient(model)
    assert (found - expected).norm() < ERROR * expected.norm()
    trainer.train()
    assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(("family", "eta"), WHOLE)
def test_the_whole_loss_is_the_reference_s(
    family: str, eta: float, anchors: tuple[Anchor, ...], tmp_path: Path
) -> None:
    """The second step on a generation, in two micro-batches, against a forward in float64: ratios are not 1."""
    fresh = partial(tiny, family, vocabulary=len(load_policy(cases.CONFIG).tokenizer))
    _, apart = moved(fresh(), anchors)
    changes = {"eta": eta, "learning_rate": 0.003, "router_aux_loss_coef": 0.0}  # the reference has none
    seen = cases.Recorder(trainer_of(fresh(), apart, tmp_path, **changes), fresh)
    torch.manual_seed(1)
    seen.trainer.train()
    s = {"T": cases.TEMPERATURE, "low": 0.05, "high": 0.08, "updates": 2, "beta": 0.0, "kl": None}
    s |= {"eta": eta, "f": "forward_kl", "cap": 5.0}
    generation = seen.rows()
    known = {(r.prompt, r.completion, r.reward): r for r in generation}
    step = [known[r.prompt, r.completion, r.reward] for r in seen.rows(step=1)]
    model, old = (seen.model_at(n).double() for n in (1, 0))
    for read in (model, old):
        if hasattr(read.config, "output_router_logits"):
            read.set_experts_implementation("eager")  # the other ones have no float64
    loss = cases.reference.exploration_loss(model, old, old, generation, step, s)
    loss = loss + cases.reference.anchor_loss(model, [apart[i] for i in AnchorOrder(16, 5).step(1, 8)], s)
    loss.backward()
    expected = cases.gradient(model)
    found = seen.gradients[1]
    assert (found - expected).norm() < ERROR * expected.norm()
    assert any(not torch.equal(p, q) for p, q in zip(model.parameters(), old.parameters(), strict=True))
    assert sum(seen.losses[2:]) == pytest.approx(loss.item(), rel=1e-4, abs=1e-5)
