"""The trainer on a tiny model of many families: the pull of the anchors is the reference's, and a step is taken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import exact_cases as cases
import pytest
from tiny_models import tiny

from dphrl import DPHConfig
from dphrl.engines.common.anchor_term import AnchorBatch
from dphrl.models.policy import load_policy
from dphrl.models.scoring import score
from dphrl.types import Anchor

FAMILIES = (
    "qwen3", "gemma3-softcap", "phi-bias", "neox", "mistral-window", "mixtral-router", "deepseek-v3-latent",
    "gpt-oss-sinks", "opt-learned-positions",
)  # fmt: skip
anchors = cases.anchors

ERROR = 2e-4
"""Of the gradient, relative to its norm: float32 in other orders of summing."""


@pytest.mark.filterwarnings("ignore:each completion reads its own prompt")
@pytest.mark.parametrize("family", FAMILIES)
def test_the_pull_is_the_reference_s(family: str, anchors: tuple[Anchor, ...], tmp_path: Path) -> None:
    policy = load_policy(cases.CONFIG)
    model = tiny(family, vocabulary=len(policy.tokenizer))
    chosen = anchors[:6]
    ids, gold = [list(a.prompt_ids) for a in chosen], [list(a.completion_ids) for a in chosen]
    scored = score(model, ids, gold, pad_id=0, temperature=cases.TEMPERATURE, batch_size=3)
    own = [Anchor(a.prompt_id, a.prompt_ids, a.completion_ids, x.logps) for a, x in zip(chosen, scored, strict=True)]
    moved = [replace(a, ref_logps=tuple(x + 0.7 * (-1) ** t for t, x in enumerate(a.ref_logps))) for a in own]
    trainer: Any = cases.Unchecked(
        model=model,
        reward_funcs=cases.by_length,
        args=DPHConfig(**cases.settings(tmp_path, method="dph", max_steps=1, share_prompts="auto")),
        train_dataset=cases.dataset(),
        processing_class=policy.tokenizer,
        anchors=own,
        encode=policy.encode,
    )
    assert trainer.initial_log_u() < 1e-4
    trainer.current_gradient_accumulation_steps = 1
    model.train()
    model.zero_grad()
    tokens = sum(len(a.completion_ids) for a in moved)
    (0.4 * trainer._anchor_penalty(model, AnchorBatch(tuple(moved), tokens))).backward()
    found = cases.gradient(model)
    model.zero_grad()
    settings = {"T": cases.TEMPERATURE, "eta": 0.4, "f": "forward_kl", "cap": 5.0}
    cases.reference.anchor_loss(model, moved, settings).backward()
    expected = cases.gradient(model)
    assert (found - expected).norm() < ERROR * expected.norm()
    trainer.train()
    assert all(p.isfinite().all() for p in model.parameters())
