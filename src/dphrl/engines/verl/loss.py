"""verl's loss of a micro-batch, plus eta times its share of the anchor penalty: L = L_verl + eta * sum f(log u) / N."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from verl.utils import tensordict_utils as tu
from verl.workers.utils.losses import ppo_loss
from verl.workers.utils.padding import no_padding_2_padding

from dphrl.engines.common.anchor_term import AnchorSettings, sampled_penalty
from dphrl.engines.verl.anchor_rows import REF_LOGPS, STEP_TOKENS
from dphrl.engines.verl.metrics import of_rollouts_alone, stats_as_metrics
from dphrl.method.anchor_stats import AnchorStats

ETA = "dph_eta"
"""Name in an update's `extra_info` of the weight at this update."""


def dph_loss(
    settings: AnchorSettings, config: Any, model_output: dict[str, Tensor], data: TensorDict, dp_group: Any = None
) -> tuple[Tensor, dict[str, Any]]:
    """What verl's engines call for each micro-batch, with `settings` and `config` bound.

    verl averages gradients over data-parallel ranks and multiplies each loss by their number; so does this. Anchors
    have masks of 0, and verl's own loss passes them by.

    Args:
        config: verl's ActorConfig.
        model_output: `log_probs` of all tokens, without padding (nats).
        data: the micro-batch; rollouts and anchors have the fields of `anchor_rows`.
    Returns:
        The loss (a 0-dim tensor), and metrics for `metrics.as_logged`.
    Source: DPH-RL, arXiv:2509.07430, the generator form; `method.penalties`.
    """
    loss, verl_metrics = ppo_loss(config=config, model_output=model_output, data=data, dp_group=dp_group)
    logp_BT = no_padding_2_padding(model_output["log_probs"], data)
    tokens_BT = _padded(data[STEP_TOKENS], logp_BT.shape[1])
    ref_logp_BT = _padded(data[REF_LOGPS], logp_BT.shape[1])
    mask_BT = tokens_BT > 0
    step_tokens = max(int(tokens_BT.max()), 1)  # 1: the micro-batch has no anchor, and its penalty is 0
    penalty = sampled_penalty(settings)(logp_BT, ref_logp_BT, mask_BT, step_tokens)
    stats = AnchorStats.measure(logp_BT, ref_logp_BT, mask_BT, penalty, step_tokens)
    ranks = int(data["dp_size"])
    metrics = of_rollouts_alone(verl_metrics, not bool(mask_BT.any(dim=1).all())) | stats_as_metrics(stats, ranks)
    eta = float(tu.get_non_tensor_data(data, ETA, None))
    # eta = 0 must not change the loss by a bit, and 0 times a penalty that overflowed is nan
    return (loss + eta * ranks * penalty if eta else loss), metrics


def _padded(field: Tensor, width: int) -> Tensor:
    """A field of responses as (rows, width)."""
    if not field.is_nested:
        return field
    padded: Tensor = torch.nested.to_padded_tensor(field, 0, output_size=(field.shape[0], width))
    return padded
