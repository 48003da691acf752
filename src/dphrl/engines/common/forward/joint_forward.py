"""One forward for rollouts and, where they wait, anchors: as rows padded to one another, or as their distinct tokens.

Axes: B rows, L length, T completion tokens, N completion tokens of all anchors, K likeliest tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dphrl.engines.common.anchor_term import AnchorLogps, AnchorRows
from dphrl.engines.common.forward.padded_rows import PaddedRows, Scores, join_rows
from dphrl.errors import ConfigError
from dphrl.models.packed_rows import pack_rows
from dphrl.models.prefix_tree import TokenArray
from dphrl.models.token_head import Read

Rows = list[tuple[TokenArray, TokenArray]]
"""Token ids of prompts and completions."""


class JointForward:
    """Anchors that are scored together with the next forward, and the log-probabilities that it gives them."""

    def __init__(self) -> None:
        self._waiting: AnchorRows | None = None
        self._logps: AnchorLogps | None = None

    def add(self, rows: AnchorRows) -> None:
        """Add these anchors to the next forward."""
        self._waiting = rows

    def take(self) -> AnchorLogps | None:
        """What the policy says of the added anchors, given once; None if none were added."""
        logps, self._logps = self._logps, None
        return logps

    def padded(self, own: PaddedRows, forward: Callable[[PaddedRows], Scores], beside: Mapping[str, object]) -> Scores:
        """The scores that `forward` gives to `own`; waiting anchors are scored at the end of the same batch.

        Args:
            beside: what else the forward is given.
        Raises:
            ConfigError: anchors wait, and `beside` holds more than text for `own`.
        """
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return forward(own)
        more = more_than_text(beside)
        if more:
            raise ConfigError(
                f"anchor_forward='merged' joins rows of text, and these have {', '.join(more)} beside it; use "
                "anchor_forward='separate'"
            )
        logps, entropies, aux_loss = forward(join_rows(own, waiting.padded(), waiting.pad_id))
        count = len(own.input_ids_BL)
        self._logps = AnchorLogps(logps[count:, : waiting.mask_BT.shape[1]])
        entropies = None if entropies is None else entropies[:count, : own.time]
        return logps[:count, : own.time], entropies, aux_loss

    def packed(self, own: PaddedRows, call: Callable[..., Any], *, entropy: bool, topk: bool) -> Scores:
        """The scores of `own`, with the waiting anchors among the distinct tokens that are read.

        Args:
            call: a model with `token_head.add_token_head`.
            entropy: whether entropies are wanted; topk: whether the anchors' likeliest tokens are read.
        """
        waiting, self._waiting = self._waiting, None
        scores, self._logps = packed_scores(call, own, waiting, entropy=entropy, topk=topk)
        return scores


def more_than_text(beside: Mapping[str, object]) -> list[str]:
    """Names of what a forward is given beside token ids, such as images."""
    return [name for name, value in beside.items() if isinstance(value, Tensor | list)]


def packed_scores(
    call: Callable[..., Any], own: PaddedRows | None, anchors: AnchorRows | None, *, entropy: bool, topk: bool
) -> tuple[Scores, AnchorLogps | None]:
    """Scores of padded rows and of anchors by one forward of their distinct tokens.

    Args: as `JointForward.packed`; either of both may be None.
    Returns:
        Log-probabilities and entropies [B, T] of `own`, 0 behind a completion's end, [0, 0] without it; the anchors'.
    """
    rows = [] if own is None else unpadded(own)
    count, time = len(rows), 0 if own is None else own.time
    if anchors is not None:
        rows += [(np.array(a.prompt_ids), np.array(a.completion_ids)) for a in anchors.anchors]
    widths = [time, *([anchors.mask_BT.shape[1]] if anchors is not None else [])]
    device = own.input_ids_BL.device if own is not None else anchors.mask_BT.device if anchors is not None else None
    packed = pack_rows([p for p, _ in rows], [c for _, c in rows], time=max(widths), device=device)
    reads = [Read(packed.state_M, packed.target_M[:, None], entropy)]
    if anchors is not None and topk:
        number_N = packed.scored_BT[count:, : anchors.mask_BT.shape[1]][anchors.mask_BT]
        ids_NK = torch.tensor([ids for a in anchors.anchors for ids in a.topk_ids], device=device)
        reads.append(Read(packed.state_M[number_N], ids_NK))
    (logps_M1, entropy_M), *likeliest = call(reads=tuple(reads), packed=packed)
    logps_BT = packed.to_rows(logps_M1[:, 0])
    entropies_BT = None if entropy_M is None else packed.to_rows(entropy_M)[:count, :time]
    scores = (logps_BT[:count, :time], entropies_BT, None)
    if anchors is None:
        return scores, None
    own_logps = logps_BT[count:, : anchors.mask_BT.shape[1]]
    if not likeliest:
        return scores, AnchorLogps(own_logps)
    return scores, AnchorLogps(own_logps, likeliest[0][0], _ref_likeliest(anchors))


def unpadded(rows: PaddedRows) -> Rows:
    """Each row's prompt and completion without padding."""
    ids, masks = rows.input_ids_BL.cpu().numpy(), rows.attention_mask_BL.cpu().numpy().astype(bool)
    width = ids.shape[1] - rows.time
    return [(i[:width][m[:width]], i[width:][m[width:]]) for i, m in zip(ids, masks, strict=True)]


def padded_topk(call: Callable[..., Any], anchors: AnchorRows) -> AnchorLogps:
    """What the policy says of the anchors' own and likeliest tokens, by a forward of padded rows."""
    padded, mask_BT = anchors.padded(), anchors.mask_BT
    ids_BL = padded.input_ids_BL
    scored_BL = torch.zeros_like(ids_BL, dtype=torch.bool)
    scored_BL[:, -mask_BT.shape[1] :] = mask_BT
    likeliest_NK = torch.tensor([ids for a in anchors.anchors for ids in a.topk_ids], device=ids_BL.device)
    ids_NE = torch.cat([ids_BL[scored_BL][:, None], likeliest_NK], 1)
    state_N = scored_BL.flatten().nonzero()[:, 0] - 1  # the state before a token predicts it
    inputs = {"input_ids": ids_BL, "attention_mask": padded.attention_mask_BL}
    ((logp_NE, _),) = call(**inputs, reads=(Read(state_N, ids_NE),))
    logp_BT = logp_NE.new_zeros(mask_BT.shape).masked_scatter(mask_BT, logp_NE[:, 0])
    return AnchorLogps(logp_BT, logp_NE[:, 1:], _ref_likeliest(anchors))


def _ref_likeliest(anchors: AnchorRows) -> Tensor:
    return torch.tensor([logps for a in anchors.anchors for logps in a.topk_logps], device=anchors.mask_BT.device)
