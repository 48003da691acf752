"""Anchors as rows of verl's batches: what the fields hold, and where rows stand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dphrl.engines.verl.anchor_rows import (
    ANCHOR_FIELDS,
    NEEDED,
    OPTIONAL,
    REF_LOGPS,
    STEP_TOKENS,
    anchor_row,
    fields_of_update,
    mixed,
    rollout_marks,
)
from dphrl.errors import ConfigError
from dphrl.types import Anchor

ANCHOR = Anchor("a", (5, 6, 7), (8, 9), (-0.25, -1.5))


def test_a_row_holds_the_anchor_and_nothing_that_verls_loss_would_count() -> None:
    row = anchor_row(ANCHOR, (*NEEDED, *OPTIONAL), step_tokens=40)
    assert list(row) == [*NEEDED, *OPTIONAL, *ANCHOR_FIELDS]
    assert row["input_ids"].tolist() == [5, 6, 7, 8, 9] and row["position_ids"].tolist() == [0, 1, 2, 3, 4]
    assert row["prompts"].tolist() == [5, 6, 7] and row["responses"].tolist() == [8, 9]
    for name in ("response_mask", "loss_mask", "advantages", "rollout_is_weights"):
        assert row[name].tolist() == [0, 0], name
    assert row[STEP_TOKENS].tolist() == [40, 40]
    assert row[REF_LOGPS].tolist() == row["old_log_probs"].tolist() == [-0.25, -1.5]


def test_rows_have_the_types_of_a_rollouts_marks() -> None:
    row, marks = anchor_row(ANCHOR, NEEDED), rollout_marks(2)
    assert {name: (row[name].dtype, row[name].shape) for name in ANCHOR_FIELDS} == {
        name: (marks[name].dtype, marks[name].shape) for name in ANCHOR_FIELDS
    }
    assert marks[STEP_TOKENS].sum() == 0 and torch.equal(marks[REF_LOGPS], torch.zeros(2))


def test_optional_fields_go_along_where_rollouts_have_them() -> None:
    assert fields_of_update([*NEEDED, "uid", "entropy"]) == NEEDED
    assert fields_of_update([*NEEDED, "rollout_is_weights"]) == (*NEEDED, "rollout_is_weights")
    with pytest.raises(ConfigError, match=r"router replay \(set .*disabled\): anchors have no routed_experts"):
        fields_of_update([*NEEDED, "routed_experts"])
    with pytest.raises(RuntimeError, match="the rollouts lack advantages"):
        fields_of_update([name for name in NEEDED if name != "advantages"])


def test_order_by_hand() -> None:
    rollouts = [f"r{i}" for i in range(8)]
    anchors = [["a0", "a1"], ["b0", "b1"]]
    assert mixed(rollouts, anchors, ranks=2) == ["r0", "r1", "a0", "r2", "r3", "b0", "r4", "r5", "a1", "r6", "r7", "b1"]


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 5), st.integers(0, 3))
def test_each_rank_cuts_its_part_into_the_mini_batches_it_had(ranks: int, minis: int, size: int, own: int) -> None:
    rollouts = [f"r{i}" for i in range(ranks * minis * size)]
    anchors = [[f"a{mini}-{i}" for i in range(ranks * own)] for mini in range(minis)]
    order = mixed(rollouts, anchors, ranks=ranks)
    assert sorted(order) == sorted([*rollouts, *(key for keys in anchors for key in keys)])
    part = len(order) // ranks
    for rank in range(ranks):
        rows = order[rank * part : (rank + 1) * part]
        for mini in range(minis):
            cut = rows[mini * (size + own) : (mini + 1) * (size + own)]
            start = (rank * minis + mini) * size
            assert cut[:size] == rollouts[start : start + size]
            assert all(key.startswith(f"a{mini}-") for key in cut[size:]) and len(cut[size:]) == own
