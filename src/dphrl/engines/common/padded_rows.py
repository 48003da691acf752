"""Padded rows of prompts and completions, and how the rows of two batches become one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dphrl.errors import ConfigError

Scores = tuple[Tensor, Tensor | None, Tensor | None]
"""Log-probabilities, entropies and a mixture's balancing loss of padded rows."""


@dataclass(frozen=True, slots=True)
class PaddedRows:
    """Rows whose prompts are padded on the left and whose completions are padded on the right of one edge."""

    input_ids_BL: Tensor
    attention_mask_BL: Tensor
    time: int
    """Width of the completions' part (tokens)."""

    def widened(self, prompt: int, time: int, pad_id: int) -> PaddedRows:
        """The same rows with parts of these widths, each at least as wide as it is."""
        sides = (prompt - (self.input_ids_BL.shape[1] - self.time), time - self.time)
        ids = F.pad(self.input_ids_BL, sides, value=pad_id)
        return PaddedRows(ids, F.pad(self.attention_mask_BL, sides), time)


def join_rows(first: PaddedRows, second: PaddedRows, pad_id: int) -> PaddedRows:
    """Rows of both, padded to one another; their completions still begin at one edge."""
    time = max(first.time, second.time)
    prompt = max(rows.input_ids_BL.shape[1] - rows.time for rows in (first, second))
    both = [rows.widened(prompt, time, pad_id) for rows in (first, second)]
    ids, masks = [rows.input_ids_BL for rows in both], [rows.attention_mask_BL for rows in both]
    return PaddedRows(torch.cat(ids), torch.cat(masks), time)


class MergedForward:
    """Rows that are scored together with those of the next forward, and the log-probabilities that it gives them."""

    def __init__(self, pad_id: int) -> None:
        self._pad_id = pad_id
        self._waiting: PaddedRows | None = None
        self._logps: Tensor | None = None

    def add(self, rows: PaddedRows) -> None:
        """Add these rows to the next forward."""
        self._waiting = rows

    def take(self) -> Tensor | None:
        """Log-probabilities of the added rows, given once; None if no rows were added."""
        logps, self._logps = self._logps, None
        return logps

    def call(self, own: PaddedRows, forward: Callable[[PaddedRows], Scores], *, beside: Mapping[str, object]) -> Scores:
        """The scores that `forward` gives to `own`; the waiting rows are scored at the end of the same batch.

        Args:
            beside: what else the forward is given.
        Raises:
            ConfigError: rows wait, and `beside` holds more than text for `own`.
        """
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return forward(own)
        more = [name for name, value in beside.items() if isinstance(value, Tensor | list)]
        if more:
            raise ConfigError(
                f"anchor_forward='merged' joins rows of text, and these have {', '.join(more)} beside it; use "
                "anchor_forward='separate'"
            )
        logps, entropies, aux_loss = forward(join_rows(own, waiting, self._pad_id))
        count = len(own.input_ids_BL)
        self._logps = logps[count:, : waiting.time]
        entropies = None if entropies is None else entropies[:count, : own.time]
        return logps[:count, : own.time], entropies, aux_loss
