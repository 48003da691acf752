"""From Python too a trainer refuses anchors that are not of its model, before the first step and only then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import exact_cases as cases
import pytest
import torch

from dphrl import DPHConfig, DPHTrainer
from dphrl.engines.common.anchor_term import CHECKED_ANCHORS
from dphrl.errors import AnchorError
from dphrl.models.policy import load_policy
from dphrl.models.scoring import score
from dphrl.types import Anchor

Built = Callable[..., DPHTrainer]
anchors = cases.anchors


@pytest.fixture(scope="module")
def own(anchors: tuple[Anchor, ...]) -> list[Anchor]:
    """The same tokens with the shipped model's log-probabilities."""
    ids, gold = [list(a.prompt_ids) for a in anchors], [list(a.completion_ids) for a in anchors]
    model = load_policy(cases.CONFIG).model
    scored = score(model, ids, gold, pad_id=0, temperature=cases.TEMPERATURE, batch_size=5)
    return [replace(a, ref_logps=s.logps) for a, s in zip(anchors, scored, strict=True)]


@pytest.fixture
def build(tmp_path: Path) -> Built:
    def make(anchors: Any, model: Any = None, **changes: Any) -> DPHTrainer:
        policy = load_policy(cases.CONFIG)
        return DPHTrainer(
            model=model or policy.model,
            reward_funcs=cases.by_length,
            args=DPHConfig(**cases.settings(tmp_path, **{"method": "dph", **changes})),
            train_dataset=cases.dataset(),
            processing_class=policy.tokenizer,
            anchors=anchors,
            encode=policy.encode,
        )

    return make


def weights(trainer: DPHTrainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


@pytest.mark.parametrize("method", ["dph", "replay"])
def test_anchors_of_another_model_are_refused_before_the_first_step(
    method: str, build: Built, own: list[Anchor]
) -> None:
    trainer = build(own, cases.moved_model(), method=method)
    before = weights(trainer)
    with pytest.raises(AnchorError, match="of another model, or were scored with other settings"):
        trainer.train()
    assert trainer.state.global_step == 0 and torch.equal(weights(trainer), before)


def test_its_own_anchors_are_let_through_reported_and_checked_once(build: Built, own: list[Anchor]) -> None:
    """A second call of `train` starts from weights that have moved."""
    trainer, told = build(own), []
    trainer.report_log_u = told.append
    trainer.train()
    (log_u,) = told
    assert log_u < 1e-5 and trainer.initial_log_u() > 1e-3
    trainer.train()
    assert len(told) == 1


def test_a_run_that_goes_on_is_not_checked(build: Built, own: list[Anchor], tmp_path: Path) -> None:
    saving = {"save_strategy": "steps", "save_steps": 1}
    build(own, max_steps=1, **saving).train()
    again = build(own, max_steps=2, **saving)
    again.report_log_u = lambda log_u: pytest.fail("it was checked")
    again.train(resume_from_checkpoint=str(tmp_path / "out/checkpoint-1"))
    assert again.state.global_step == 2


def test_what_rounding_explains_depends_on_the_precision(build: Built, own: list[Anchor]) -> None:
    """An error of 0.01 nats on each token is far too much in float32, and nothing in bfloat16."""
    off = [replace(a, ref_logps=tuple(x - 0.01 for x in a.ref_logps)) for a in own]
    with pytest.raises(AnchorError, match=r"more than 0\.001"):
        build(off).check_anchors()
    build(off, bf16=True).check_anchors()
    build(off, load_policy(cases.CONFIG).model.to(torch.bfloat16), bf16=False).check_anchors()


def test_few_anchors_are_read(build: Built, own: list[Anchor]) -> None:
    trainer = build([own[i % 16] for i in range(5 * CHECKED_ANCHORS)])
    read: list[int] = []
    measured = trainer._anchors.rows
    trainer._anchors.rows = lambda anchors: read.append(len(anchors)) or measured(anchors)
    trainer.check_anchors()
    assert sum(read) == CHECKED_ANCHORS
