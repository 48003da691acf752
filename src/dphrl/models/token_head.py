"""Log-probabilities of chosen tokens from a model's last states, without a [time, vocabulary] tensor.

The model's own forward learns one more way to be called, as TRL teaches it `fused_lm_head`: so DDP, FSDP2 and PEFT,
which wrap that forward, see nothing new. Logits exist for `HEAD_POSITIONS` positions at a time and are made again in
backward.
Axes: B batch, L length, M positions that are read, H hidden, E entries at each of them, V vocabulary.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from dphrl.errors import AnchorError, ConfigError
from dphrl.models.logit_rule import HEAD_POSITIONS, LogitRule
from dphrl.models.packed_rows import PackedRows
from dphrl.models.shared_attention import packed_attention
from dphrl.types import Anchor


@dataclass(frozen=True, slots=True)
class Read:
    """What is asked of some of a forward's last states."""

    state_M: Int64[Tensor, " read"]
    """Their places among the B * L states."""
    ids_ME: Int64[Tensor, "read entries"]
    """Tokens whose log-probabilities are asked for."""
    entropy: bool = False
    """Whether the entropy of the whole distribution is asked for."""


Answer = tuple[Tensor, Tensor | None]
"""Log-probabilities [M, E] and, where asked for, entropies [M], of one `Read`; nats, float32."""


def check_topk(anchors: Sequence[Anchor]) -> None:
    """Raise where top-K anchors cannot be trained on.

    Raises:
        AnchorError: the anchors hold no likeliest tokens (a store holds them for all of its anchors or for none).
        ConfigError: DeepSpeed ZeRO-3, whose head is no longer whole when backward makes the logits again.
    """
    if not anchors[0].topk_ids:
        raise AnchorError(
            "objective.anchor_estimator=topk needs the reference's likeliest tokens, and these anchors hold none; "
            "pre-sample with anchor.topk=16, or set objective.anchor_estimator=sampled"
        )
    if head_is_sharded():
        raise ConfigError(
            "objective.anchor_estimator=topk makes logits again in backward, when ZeRO-3 has given the head's weight "
            "away; use ZeRO-2 or FSDP2, or objective.anchor_estimator=sampled"
        )


def head_is_sharded() -> bool:
    """Whether DeepSpeed ZeRO-3 holds the weights, whose head is whole only within its own forward."""
    from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

    return bool(is_deepspeed_zero3_enabled())


def add_token_head(model: Any, temperature: float) -> None:
    """Let `model(reads=(...), packed=..., **inputs)` return an `Answer` for each `Read`, as `read_states`.

    Without `reads` the forward is the one it was.

    Args:
        model: a causal LM of transformers, whose forward may have been extended already.
        temperature: divides the logits, > 0.
    """
    before = model.forward
    rule = LogitRule.of(model.config, temperature)

    @functools.wraps(type(model).forward)  # `generate` checks its arguments against the signature
    def forward(
        self: Any, *args: Any, reads: tuple[Read, ...] = (), packed: PackedRows | None = None, **kwargs: Any
    ) -> Any:
        return read_states(self, rule, reads, packed, **kwargs) if reads else before(*args, **kwargs)

    model.forward = MethodType(forward, model)


def read_states(
    model: Any, rule: LogitRule, reads: Sequence[Read], packed: PackedRows | None = None, **inputs: Any
) -> tuple[Answer, ...]:
    """One forward of a model's body, and what is asked of its states.

    Args:
        model: a causal LM of transformers; with `packed` one that shares its attention.
        inputs: of the body, e.g. `input_ids` and `attention_mask` [B, L]; a packed sequence has its own.
    """
    states_NH = body_states(model, packed, **inputs).flatten(0, 1)
    head = model.get_output_embeddings()
    weight, bias = (x.full_tensor() if hasattr(x, "full_tensor") else x for x in (head.weight, head.bias))  # FSDP2
    return tuple(
        entry_logps(states_NH[r.state_M].to(weight.device), r.ids_ME.to(weight.device), weight, bias, rule, r.entropy)
        for r in reads
    )


def body_states(model: Any, packed: PackedRows | None, **inputs: Any) -> Float[Tensor, "batch length hidden"]:
    """Last hidden states of a packed sequence, or of other inputs."""
    if packed is not None:
        ids, positions = packed.input_ids_1N, packed.position_ids_1N
        inputs = {"input_ids": ids, "position_ids": positions, "attention_mask": torch.ones_like(ids)}
    given = {name: value for name, value in inputs.items() if value is not None}  # PEFT names all, most of them None
    with nullcontext() if packed is None else packed_attention(packed):
        states: Tensor = model.base_model(**given, use_cache=False).last_hidden_state
    return states


def entry_logps(
    hidden_MH: Float[Tensor, "read hidden"],
    ids_ME: Int64[Tensor, "read entries"],
    weight_VH: Float[Tensor, "vocabulary hidden"],
    bias_V: Float[Tensor, " vocabulary"] | None,
    rule: LogitRule,
    entropy: bool = False,
    *,
    positions: int | None = None,
) -> Answer:
    """The log-softmax of a rule's logits, at some entries of each row.

    Args:
        hidden_MH: last states; weight_VH, bias_V: the output embedding.
        ids_ME: entries to read.
        entropy: whether the distributions' entropies are wanted too.
        positions: rows whose logits exist at once; None = `HEAD_POSITIONS` of the device.
    Returns:
        Log-probabilities [M, E] and entropies [M] or None, in nats, float32. Backward makes the logits again,
        `positions` rows at a time.
    """

    def part(hidden_PH: Tensor, ids_PE: Tensor) -> tuple[Tensor, Tensor]:
        logits_PV = rule.logits(hidden_PH, weight_VH, bias_V)
        log_z_P1 = logits_PV.logsumexp(-1, keepdim=True)
        mean_P = (logits_PV - log_z_P1).exp().mul(logits_PV).sum(-1) if entropy else log_z_P1[:, 0]
        return logits_PV.gather(1, ids_PE) - log_z_P1, log_z_P1[:, 0] - mean_P

    size = positions or HEAD_POSITIONS.get(hidden_MH.device.type, HEAD_POSITIONS["cuda"])
    parts = [
        checkpoint(part, h, ids, use_reentrant=False, preserve_rng_state=False)
        for h, ids in zip(torch.split(hidden_MH, size), torch.split(ids_ME, size), strict=True)
    ]
    logps, entropies = (torch.cat(column) for column in zip(*parts, strict=True))
    return logps, entropies if entropy else None
