"""The trainer's gradient is that of the stated loss, written out in plain PyTorch, for every method and divergence."""

from __future__ import annotations

from typing import Any

import pytest
import reference_loss as reference
from exact_cases import CONFIG, GROUP, TEMPERATURE, Recorded, anchors, gradient, record

from dphrl.method.anchor_order import AnchorOrder
from dphrl.models.policy import load_policy
from dphrl.types import Anchor

__all__ = ["anchors", "record"]  # fixtures

TOLERANCE = 2e-5
"""Of a gradient in float32 against the reference's float64 log-softmax, relative to its norm."""

METHODS: dict[str, dict[str, Any]] = {
    "grpo": {"method": "grpo"},
    "dapo": {"method": "dapo"},
    **{
        f"rkl-{k}": {"method": "rkl", "kl_estimator": k, "beta": 0.3} for k in ("k3", "k3_corrected", "k2", "k1_reward")
    },
    **{f"dph-{f}": {"method": "dph", "divergence": f, "eta": 0.4} for f in reference.F_OF_U},
    **{
        f"definition-{f}": {"method": "dph", "divergence": f, "form": "definition", "eta": 0.4}
        for f in reference.ON_ANCHORS
    },
    "dph-alpha": {"method": "dph", "divergence": "alpha", "alpha": 0.3, "eta": 0.4},
    "merged": {"method": "dph", "divergence": "js", "eta": 0.4, "anchor_forward": "merged"},
    "replay": {"method": "replay", "eta": 0.4},
}


QUICK = ("dapo", "rkl-k2", "dph-js", "definition-js", "merged", "replay")
"""The others differ from one of these in one term, and run with the slow tests."""


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in METHODS]
)
def test_gradient_is_that_of_the_stated_loss(name: str, record: Recorded, anchors: tuple[Anchor, ...]) -> None:
    """The second step on a generation, in two micro-batches: ratios are not 1, clipping acts, u is on either side."""
    changes = METHODS[name]
    uses_anchors = changes["method"] in ("dph", "replay")
    seen = record(anchors if uses_anchors else None, **changes)
    s = {
        "T": TEMPERATURE,
        "low": 0.05,
        "high": 0.08,
        "updates": 2,
        "beta": changes.get("beta", 0.0),
        "kl": changes.get("kl_estimator"),
        "eta": changes.get("eta", 0.0),
        "f": changes.get("divergence", "replay"),
        "form": changes.get("form"),
        "cap": 5.0,
    }
    generation, step = seen.rows(), seen.rows(step=1)
    assert sorted(sum(r.group == g for r in generation) for g in {r.group for r in generation}) == [GROUP] * 4
    chosen = [anchors[i] for i in AnchorOrder(16, 5).step(1, 8)] if uses_anchors else []
    model, old, initial = seen.model_at(1), seen.model_at(0), load_policy(CONFIG).model
    # Groups are numbered over the generation, so the step's rows are found there.
    known = {(r.prompt, r.completion, r.reward): r for r in generation}
    step = [known[r.prompt, r.completion, r.reward] for r in step]
    loss = reference.exploration_loss(model, old, initial, generation, step, s)
    loss.backward()
    without = gradient(model)
    if chosen:
        reference.anchor_loss(model, chosen, s).backward()
    if s["form"] == "definition":
        reference.fresh_loss(model, initial, generation, step, s).backward()
    expected = gradient(model)
    assert (seen.gradients[1] - expected).norm() < TOLERANCE * expected.norm()
    if chosen:
        assert (expected - without).norm() > 0.1 * expected.norm()  # the anchors weigh enough to be seen
    log = seen.trainer.state.log_history
    assert log[1]["clip_ratio/region_mean"] > 0.02
    if changes["method"] == "dapo":
        assert log[0]["dapo/resample_rounds"] > 0
