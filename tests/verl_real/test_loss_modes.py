"""verl's other policy losses pass anchors by too: a micro-batch of anchors alone has a loss of 0 and no gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY
from verl.utils import tensordict_utils as tu
from verl.workers.config import FSDPActorConfig
from verl.workers.config.actor import PolicyLossConfig

from dphrl.engines.common.anchor_term import AnchorSettings
from dphrl.engines.verl.anchor_rows import NEEDED, anchor_row
from dphrl.engines.verl.loss import ETA, dph_loss
from dphrl.types import Anchor

ANCHORS = [Anchor("a", (5, 6), (7, 8, 2), (-1.0, -2.0, -0.5)), Anchor("b", (5,), (9, 2), (-0.1, -3.0))]
DPH = AnchorSettings(method="dph", per_step=2, seed=0, divergence="forward_kl")


def micro_batch(eta: float) -> Any:
    """Two anchors, as verl's engines hand them to the loss."""
    data = tu.list_of_dict_to_tensordict([anchor_row(a, NEEDED, step_tokens=5) for a in ANCHORS])
    meta = {"dp_size": 1, "batch_num_tokens": 11, "global_batch_size": 4, ETA: eta}
    tu.assign_non_tensor(data, **meta)
    return data


REFUSED = "bypass_mode"
"""It needs a token of a rollout in each micro-batch; `checks.check_settings` refuses it."""


@pytest.mark.parametrize("mode", sorted(set(POLICY_LOSS_REGISTRY) - {REFUSED}))
@pytest.mark.parametrize("aggregation", ["token-mean", "seq-mean-token-mean", "seq-mean-token-sum"])
def test_a_micro_batch_of_anchors_alone_is_the_penalty_alone(mode: str, aggregation: str) -> None:
    actor = FSDPActorConfig(
        strategy="fsdp2",
        rollout_n=2,
        ppo_mini_batch_size=2,
        ppo_micro_batch_size_per_gpu=2,
        loss_agg_mode=aggregation,
        policy_loss=PolicyLossConfig(loss_mode=mode, dro_beta=0.1),
    )
    logps = torch.full((8,), -1.5, requires_grad=True)  # of all tokens of both rows
    out = {"log_probs": torch.nested.nested_tensor_from_jagged(logps, torch.tensor([0, 5, 8]))}
    loss, _ = dph_loss(DPH, actor, out, micro_batch(0.0))
    assert loss.item() == 0.0
    with_penalty, _ = dph_loss(DPH, actor, out, micro_batch(0.5))
    with_penalty.backward()
    assert with_penalty.item() > 0 and logps.grad is not None and logps.grad.isfinite().all()
