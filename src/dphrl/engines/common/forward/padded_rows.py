"""Padded rows of prompts and completions, and how the rows of two batches become one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

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

    def parts(self, rows: int) -> Iterator[PaddedRows]:
        """So many rows at a time."""
        for first in range(0, len(self.input_ids_BL), rows):
            part = slice(first, first + rows)
            yield PaddedRows(self.input_ids_BL[part], self.attention_mask_BL[part], self.time)


def join_rows(first: PaddedRows, second: PaddedRows, pad_id: int) -> PaddedRows:
    """Rows of both, padded to one another; their completions still begin at one edge."""
    time = max(first.time, second.time)
    prompt = max(rows.input_ids_BL.shape[1] - rows.time for rows in (first, second))
    both = [rows.widened(prompt, time, pad_id) for rows in (first, second)]
    ids, masks = [rows.input_ids_BL for rows in both], [rows.attention_mask_BL for rows in both]
    return PaddedRows(torch.cat(ids), torch.cat(masks), time)
