"""Anchors as rows of verl's batches, and where they stand in them. Neither verl nor Ray is needed here.

A row is a mapping from the names of verl's fields to tensors without padding. Its length is that of verl's rollouts:
prompt and response tokens one after another, and what belongs to the response in response tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dphrl.errors import ConfigError
from dphrl.types import Anchor

STEP_TOKENS = "dph_step_tokens"
"""Field of every row, a number for each response token: on an anchor's tokens N, the anchor tokens of the optimiser
step; 0 on a rollout's. So it is mask and denominator at once, and a micro-batch needs nothing of the others."""
REF_LOGPS = "dph_ref_logps"
"""Field of every row: the reference's log-probabilities of an anchor's tokens (nats); 0 on a rollout's."""
ANCHOR_FIELDS = (STEP_TOKENS, REF_LOGPS)

SCORED_FIELDS = ("input_ids", "position_ids", "prompts", "responses", "response_mask", "loss_mask")
"""What verl's forward needs of a row."""
NEEDED = (*SCORED_FIELDS, "old_log_probs", "advantages")
"""What verl's loss needs beside."""
OPTIONAL = ("ref_log_prob", "rollout_is_weights")
"""Fields that verl's loss reads where rollouts have them. TransferQueue hands out fields that all rows have: without
them in anchors, importance weights of the rollouts would silently go."""
REFUSED = {
    "routed_experts": "router replay (set actor_rollout_ref.actor.router_replay.mode=disabled)",
    "teacher_ids": "distillation (set distillation.enabled=False)",
    "teacher_logprobs": "distillation (set distillation.enabled=False)",
}
"""Fields that anchors cannot have, and what makes them."""


def fields_of_update(there: Sequence[str]) -> tuple[str, ...]:
    """The fields of the rollouts that go into the update.

    Args:
        there: fields that the rollouts have.
    Raises:
        ConfigError: one that anchors cannot have. RuntimeError: one is missing; verl has changed.
    """
    for name, what in REFUSED.items():
        if name in there:
            raise ConfigError(f"trainer_mode=dph does not go together with {what}: anchors have no {name}")
    if missing := [name for name in NEEDED if name not in there]:
        raise RuntimeError(f"the rollouts lack {', '.join(missing)}: this verl is not one that dphrl was made for")
    return (*NEEDED, *(name for name in OPTIONAL if name in there))


def anchor_row(anchor: Anchor, fields: Sequence[str], step_tokens: int = 1) -> dict[str, Tensor]:
    """An anchor as a row with these fields, and those of ours.

    verl's masks and advantages are 0, so that its own loss, token counts and metrics pass the row by.

    Args:
        step_tokens: N, anchor tokens of the optimiser step (count, > 0).
    """
    prompt, response = torch.tensor(anchor.prompt_ids), torch.tensor(anchor.completion_ids)
    ref_logps = torch.tensor(anchor.ref_logps, dtype=torch.float32)
    none, zeros = torch.zeros_like(response), torch.zeros_like(ref_logps)
    row = {
        "input_ids": torch.cat([prompt, response]),
        "position_ids": torch.arange(len(prompt) + len(response)),
        "prompts": prompt,
        "responses": response,
        "response_mask": none,
        "loss_mask": none,
        "old_log_probs": ref_logps,  # the ratio is near 1; what comes of it is masked
        "advantages": zeros,
        "ref_log_prob": ref_logps,
        "rollout_is_weights": zeros,
        STEP_TOKENS: torch.full_like(response, step_tokens),
        REF_LOGPS: ref_logps,
    }
    return {name: row[name] for name in (*fields, *ANCHOR_FIELDS)}


def rollout_marks(response_tokens: int) -> dict[str, Tensor]:
    """Our fields of a rollout."""
    return {STEP_TOKENS: torch.zeros(response_tokens, dtype=torch.int64), REF_LOGPS: torch.zeros(response_tokens)}


def mixed(rollouts: Sequence[str], anchors: Sequence[Sequence[str]], *, ranks: int) -> list[str]:
    """Keys of rows in the order in which verl cuts them: by rank, then by mini-batch, rollouts before anchors.

    Args:
        rollouts: keys in verl's order; a multiple of ranks * mini-batches.
        anchors: keys for each mini-batch; a multiple of ranks each. Neighbours go to different ranks.
    """
    size = len(rollouts) // (ranks * len(anchors))
    order: list[str] = []
    for rank in range(ranks):
        for mini, keys in enumerate(anchors):
            start = (rank * len(anchors) + mini) * size
            order += [*rollouts[start : start + size], *keys[rank::ranks]]
    return order
