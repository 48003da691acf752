"""Rows of two batches in one, around one edge; and rows that go along with another forward."""

from __future__ import annotations

import pytest
import torch

from dphrl.engines.common.padded_rows import MergedForward, PaddedRows, Scores, join_rows
from dphrl.errors import ConfigError

FIRST = PaddedRows(torch.tensor([[5, 6, 7]]), torch.tensor([[1, 1, 1]]), time=2)
SECOND = PaddedRows(torch.tensor([[1, 2, 3, 4], [0, 8, 9, 9]]), torch.tensor([[1, 1, 1, 1], [0, 1, 1, 1]]), time=1)


def test_joined_rows_keep_their_tokens_around_one_edge() -> None:
    """Prompts 1 and 3 tokens wide, completions 2 and 1: joined 3 + 2."""
    joined = join_rows(FIRST, SECOND, pad_id=0)
    assert joined.time == 2
    assert joined.input_ids_BL.tolist() == [[0, 0, 5, 6, 7], [1, 2, 3, 4, 0], [0, 8, 9, 9, 0]]
    assert joined.attention_mask_BL.tolist() == [[0, 0, 1, 1, 1], [1, 1, 1, 1, 0], [0, 1, 1, 1, 0]]


def forward(rows: PaddedRows) -> Scores:
    """Scores that are the completions' token ids; entropies are their negatives."""
    logps = rows.input_ids_BL[:, -rows.time :].float()
    return logps, -logps, None


def test_rows_go_along_once_and_come_back_apart() -> None:
    merged = MergedForward(pad_id=0)
    merged.add(SECOND)
    logps, entropies, _ = merged.call(FIRST, forward, beside={"compute_entropy": True})
    assert logps.tolist() == [[6, 7]] and entropies is not None and entropies.tolist() == [[-6, -7]]
    along = merged.take()
    assert along is not None and along.tolist() == [[4], [9]] and merged.take() is None
    assert merged.call(FIRST, forward, beside={})[0].tolist() == [[6, 7]] and merged.take() is None


def test_rows_that_are_more_than_text_are_refused() -> None:
    merged = MergedForward(pad_id=0)
    images = {"pixel_values": torch.zeros(1), "batch_size": 2}
    assert merged.call(FIRST, forward, beside=images)
    merged.add(SECOND)
    with pytest.raises(ConfigError, match="pixel_values beside it"):
        merged.call(FIRST, forward, beside=images)
