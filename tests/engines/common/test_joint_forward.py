"""Rows of two batches in one, around one edge; anchors that go along with another forward, padded or packed."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from dphrl.engines.common.anchor_term import AnchorRows
from dphrl.engines.common.forward.joint_forward import JointForward
from dphrl.engines.common.forward.padded_rows import PaddedRows, Scores, join_rows
from dphrl.errors import ConfigError
from dphrl.types import Anchor

FIRST = PaddedRows(torch.tensor([[5, 6, 7]]), torch.tensor([[1, 1, 1]]), time=2)
SECOND = PaddedRows(torch.tensor([[1, 2, 3, 4], [0, 8, 9, 9]]), torch.tensor([[1, 1, 1, 1], [0, 1, 1, 1]]), time=1)
ANCHORS = AnchorRows(
    (Anchor("a", (1, 2, 3), (4,), (-1.0,)), Anchor("b", (8, 9), (9,), (-1.0,))),
    torch.ones(2, 1, dtype=torch.bool),
    torch.full((2, 1), -1.0),
    pad_id=0,
)


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


def call(*, reads: Any, packed: Any) -> Any:
    """The same of a packed sequence."""
    return tuple((r.ids_ME.float(), -r.ids_ME[:, 0].float() if r.entropy else None) for r in reads)


def test_anchors_go_along_once_and_come_back_apart() -> None:
    joint = JointForward()
    for scored in (
        lambda: joint.padded(FIRST, forward, {"compute_entropy": True}),
        lambda: joint.packed(FIRST, call, entropy=True, topk=False),
    ):
        joint.add(ANCHORS)
        logps, entropies, _ = scored()
        assert logps.tolist() == [[6, 7]] and entropies is not None and entropies.tolist() == [[-6, -7]]
        along = joint.take()
        assert along is not None and along.logp_BT.tolist() == [[4], [9]] and joint.take() is None
        assert scored()[0].tolist() == [[6, 7]] and joint.take() is None


def test_a_masked_completion_is_not_read() -> None:
    rows = PaddedRows(torch.tensor([[5, 6, 7], [5, 8, 8]]), torch.tensor([[1, 1, 1], [1, 0, 0]]), time=2)
    logps, _, _ = JointForward().packed(rows, call, entropy=False, topk=False)
    assert logps.tolist() == [[6, 7], [0, 0]]


def test_rows_that_are_more_than_text_are_refused() -> None:
    joint = JointForward()
    images = {"pixel_values": torch.zeros(1), "batch_size": 2}
    assert joint.padded(FIRST, forward, images)
    joint.add(ANCHORS)
    with pytest.raises(ConfigError, match="pixel_values beside it"):
        joint.padded(FIRST, forward, images)


def test_a_group_stays_together() -> None:
    """Groups of 3 of which the first began on the process before; 3 micro-batches of 4 rows."""
    from dphrl.engines.common.generation.whole_groups import micro_batches

    ids = torch.arange(12)
    batch = {
        "advantages": ids.float(),
        "ids": ids[:, None],
        "names": [str(int(i)) for i in ids],
        "all": torch.tensor(7),
    }
    torch.manual_seed(3)
    parts = micro_batches(batch, 3, group_size=3, first=2)
    order = torch.cat([p["ids"][:, 0] for p in parts]).tolist()
    assert sorted(order) == list(range(12)) and order != sorted(order)
    groups = [(i + 2) // 3 for i in order]
    assert len([a for a, b in pairwise(groups) if a != b]) == len(set(groups)) - 1
    assert all(len(p["ids"]) == 4 and p["all"] == 7 for p in parts)
    assert [list(map(int, p["names"])) for p in parts] == np.array(order).reshape(3, 4).tolist()
