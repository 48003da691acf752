"""The policy's log-probabilities of the likeliest tokens that anchors carry, without a [time, vocabulary] tensor.

The model's own forward learns one more way to be called, as TRL teaches it `fused_lm_head`: so DDP, FSDP2 and PEFT,
which wrap that forward, see nothing new. Logits exist for `HEAD_POSITIONS` positions at a time and are made again in
backward.
Axes: B batch, L length, T time, N completion tokens of a batch, H hidden, K likeliest tokens, E = 1 + K, V vocabulary.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from types import MethodType
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from dphrl.errors import AnchorError, ConfigError
from dphrl.models.logit_rule import HEAD_POSITIONS, LogitRule
from dphrl.types import Anchor


def check_topk(anchors: Sequence[Anchor]) -> None:
    """Raise where top-K anchors cannot be trained on.

    Raises:
        AnchorError: the anchors hold no likeliest tokens (a store holds them for all of its anchors or for none).
        ConfigError: DeepSpeed ZeRO-3, whose head is no longer whole when backward makes the logits again.
    """
    from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

    if not anchors[0].topk_ids:
        raise AnchorError(
            "objective.anchor_estimator=topk needs the reference's likeliest tokens, and these anchors hold none; "
            "pre-sample with anchor.topk=16, or set objective.anchor_estimator=sampled"
        )
    if is_deepspeed_zero3_enabled():
        raise ConfigError(
            "objective.anchor_estimator=topk makes logits again in backward, when ZeRO-3 has given the head's weight "
            "away; use ZeRO-2 or FSDP2, or objective.anchor_estimator=sampled"
        )


def add_topk_head(model: Any, temperature: float) -> None:
    """Let `model(input_ids, attention_mask, completion_mask=, topk_ids=)` return log-probabilities [N, 1 + K].

    Without `topk_ids` the forward is the one it was.

    Args:
        model: a causal LM of transformers, whose forward may have been extended already.
        temperature: divides the logits, > 0.
    """
    before = model.forward
    rule = LogitRule.of(model.config, temperature)

    @functools.wraps(type(model).forward)  # `generate` checks its arguments against the signature
    def forward(self: Any, *args: Any, topk_ids: Tensor | None = None, **kwargs: Any) -> Any:
        return before(*args, **kwargs) if topk_ids is None else _score(self, rule, topk_ids, *args, **kwargs)

    model.forward = MethodType(forward, model)


def topk_logps(
    call: Callable[..., Tensor],
    rows: Mapping[str, Tensor],
    mask_BT: Tensor,
    anchors: Sequence[Anchor],
) -> tuple[Tensor, Tensor, Tensor]:
    """What the policy and the reference say of the anchors' likeliest tokens.

    Args:
        call: a model with `add_topk_head`, wrapped or not.
        rows: its `input_ids` and `attention_mask`, padded by `scoring.pad_sequences`.
        mask_BT: True on completion tokens.
        anchors: the same rows, with likeliest tokens.
    Returns:
        logp_BT of the anchors' own tokens, 0 where masked; logp_NK of the likeliest; ref_logp_NK. All in nats, float32.
    """
    ids_NK = torch.tensor([row for a in anchors for row in a.topk_ids], device=mask_BT.device)
    ref_logp_NK = torch.tensor([row for a in anchors for row in a.topk_logps], device=mask_BT.device)
    logp_NE = call(**rows, completion_mask=mask_BT, topk_ids=ids_NK)
    logp_BT = logp_NE.new_zeros(mask_BT.shape).masked_scatter(mask_BT, logp_NE[:, 0])
    return logp_BT, logp_NE[:, 1:], ref_logp_NK


def _score(
    model: Any,
    rule: LogitRule,
    topk_ids_NK: Tensor,
    input_ids: Tensor,
    attention_mask: Tensor,
    completion_mask: Tensor,
    **kwargs: Any,
) -> Float[Tensor, "tokens entries"]:
    """Log-probabilities of each completion token and of its row's likeliest tokens."""
    time = completion_mask.shape[1]
    states_BLH = model.base_model(input_ids, attention_mask=attention_mask, use_cache=False, **kwargs).last_hidden_state
    hidden_NH = states_BLH[:, -time - 1 : -1][completion_mask]  # the state before a token predicts it
    ids_NE = torch.cat([input_ids[:, -time:][completion_mask][:, None], topk_ids_NK], 1)
    head = model.get_output_embeddings()
    weight, bias = (x.full_tensor() if hasattr(x, "full_tensor") else x for x in (head.weight, head.bias))  # FSDP2
    return entry_logps(hidden_NH.to(weight.device), ids_NE.to(weight.device), weight, bias, rule)


def entry_logps(
    hidden_NH: Float[Tensor, "tokens hidden"],
    ids_NE: Int64[Tensor, "tokens entries"],
    weight_VH: Float[Tensor, "vocabulary hidden"],
    bias_V: Float[Tensor, " vocabulary"] | None,
    rule: LogitRule,
    *,
    positions: int | None = None,
) -> Float[Tensor, "tokens entries"]:
    """The log-softmax of a rule's logits, at some entries of each row.

    Args:
        hidden_NH: last states; weight_VH, bias_V: the output embedding.
        ids_NE: entries to read.
        positions: rows whose logits exist at once; None = `HEAD_POSITIONS` of the device.
    Returns:
        Log-probabilities in nats, float32. Backward makes the logits again, `positions` rows at a time.
    """

    def part(hidden_PH: Tensor, ids_PE: Tensor) -> Tensor:
        logits_PV = rule.logits(hidden_PH, weight_VH, bias_V)
        return logits_PV.gather(1, ids_PE) - logits_PV.logsumexp(-1, keepdim=True)

    size = positions or HEAD_POSITIONS.get(hidden_NH.device.type, HEAD_POSITIONS["cuda"])
    parts = [
        checkpoint(part, h, ids, use_reentrant=False, preserve_rng_state=False)
        for h, ids in zip(torch.split(hidden_NH, size), torch.split(ids_NE, size), strict=True)
    ]
    return torch.cat(parts)
