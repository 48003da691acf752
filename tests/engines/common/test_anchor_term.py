"""The anchors' part of the loss, without a model: forwards are made up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dphrl.engines.common.anchor_term import (
    AnchorBatch,
    AnchorLogps,
    AnchorRows,
    AnchorSettings,
    AnchorTerm,
    check_reference,
)
from dphrl.engines.common.processes import Processes
from dphrl.errors import AnchorError, EmptyAnchorStore
from dphrl.method.anchor_order import AnchorOrder
from dphrl.types import Anchor

SETTINGS = AnchorSettings(method="dph", per_step=6, seed=3, divergence="forward_kl")
LENGTHS = [(1 + i % 3, 1 + i % 4) for i in range(10)]
ANCHORS = [
    Anchor(str(i), tuple(range(1, 1 + prompt)), tuple(range(5, 5 + tokens)), (-0.1 * (i + 1),) * tokens)
    for i, (prompt, tokens) in enumerate(LENGTHS)
]


def term(settings: AnchorSettings = SETTINGS, rank: int = 0, ranks: int = 1, anchors: Any = ANCHORS) -> AnchorTerm:
    return AnchorTerm(anchors, settings, Processes(rank=rank, count=ranks), pad_id=0)


def moved_by(log_u: Tensor) -> Any:
    """A forward whose log-probabilities lie `log_u` above the reference's."""
    return lambda rows: AnchorLogps(rows.ref_logp_BT + log_u)


def test_the_parts_of_a_step_are_its_anchors_each_once() -> None:
    parts = [term(rank=r, ranks=2).batch(7, micro, 3) for r in range(2) for micro in range(3)]
    indices = AnchorOrder(10, 3).step(7, 6)
    assert sorted(a.prompt_id for part in parts for a in part.anchors) == sorted(str(i) for i in indices)
    assert {part.step_tokens for part in parts} == {sum(1 + int(i) % 4 for i in indices)}


def test_micro_batches_are_counted_within_a_step() -> None:
    counting, plain = term(), term()
    steps = [4, 4, 4, 5, 5]
    counted = zip(steps, (0, 1, 2, 0, 1), strict=True)
    assert [counting.next_batch(s, 3) for s in steps] == [plain.batch(s, micro, 3) for s, micro in counted]


def test_each_training_of_one_trainer_counts_from_its_start() -> None:
    """In a notebook `train` is called again, or its first step was interrupted."""
    again, fresh = term(), term()
    again.next_batch(0, 3)
    again.begin()
    assert [again.next_batch(0, 3) for _ in range(3)] == [fresh.next_batch(0, 3) for _ in range(3)]


def test_rows_are_padded_around_one_edge() -> None:
    rows = term().rows([ANCHORS[0], ANCHORS[5]])  # 1 + 1 and 3 + 2 tokens
    assert rows.padded().input_ids_BL.tolist() == [[0, 0, 1, 5, 0], [1, 2, 3, 5, 6]]
    assert rows.padded().attention_mask_BL.tolist() == [[0, 0, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert rows.padded().time == 2 and rows.mask_BT.tolist() == [[True, False], [True, True]]
    assert rows.ref_logp_BT.tolist() == [[pytest.approx(-0.1), 0.0], [pytest.approx(-0.6)] * 2]


@pytest.mark.parametrize(("micros", "ranks"), [(1, 1), (3, 1), (2, 2), (1, 6)])
def test_shares_add_up_however_a_step_is_split(micros: int, ranks: int) -> None:
    """f = u - 1 - ln u at ln u = 1/2 on every token; ranks' gradients are averaged, hence the mean over ranks."""
    terms = [term(rank=r, ranks=ranks) for r in range(ranks)]
    forward = moved_by(torch.tensor(0.5))
    shares = [t.penalty(t.batch(2, micro, micros), forward, 0.1) for t in terms for micro in range(micros)]
    assert (sum(shares) / ranks).item() == pytest.approx(np.exp(0.5) - 1.5, rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "eta", "value", "slope"),
    [
        ({}, 0.1, np.exp(0.5) - 1.5, np.exp(0.5) - 1),
        ({}, 0.0, np.exp(0.5) - 1.5, None),
        ({"form": "definition"}, 0.1, -0.5, -1.0),
        ({"form": "definition", "divergence": "reverse_kl"}, 0.1, 0.0, None),
        ({"method": "replay"}, 0.1, 0.6 - 0.5, -1.0),
    ],
)
def test_value_and_slope_by_hand(changes: dict[str, str], eta: float, value: float, slope: float | None) -> None:
    """One anchor of two tokens with ln pi_ref = -0.6, both at ln u = 1/2."""
    log_u = torch.tensor(0.5, requires_grad=True)
    anchors = term(replace(SETTINGS, **changes))
    penalty = anchors.penalty(AnchorBatch((ANCHORS[5],), 2), moved_by(log_u), eta)
    assert penalty.item() == pytest.approx(value, abs=1e-6)
    assert penalty.requires_grad == (slope is not None) == anchors.pulls(eta)
    if slope is not None:
        (found,) = torch.autograd.grad(penalty, log_u)
        assert found.item() == pytest.approx(slope, rel=1e-5)


def test_metrics_are_of_all_processes_and_taken_once() -> None:
    """The other process measured ln u = 1.5 where this one did 0.5: the mean is 1, the drift -1."""
    anchors = term()
    anchors.penalty(AnchorBatch((ANCHORS[5],), 4), moved_by(torch.tensor(1.5)), 0.1)
    other = anchors.stats[0].pack()[None]
    both = Processes(gather=lambda rows: torch.cat([rows, other]))
    ours = AnchorTerm(ANCHORS, SETTINGS, both, 0)
    ours.next_batch(0, 1)
    ours.penalty(AnchorBatch((ANCHORS[5],), 4), moved_by(torch.tensor(0.5)), 0.1)
    assert ours.step_drift() == pytest.approx(-1.0)
    found = ours.take_metrics()
    assert found["anchor/log_u_abs_mean"] == pytest.approx(1.0) and found["anchor/log_u_max"] == pytest.approx(1.5)
    assert next(iter(found)) == "anchor/penalty" and ours.take_metrics() == {}


def test_the_drift_is_of_the_last_step_alone() -> None:
    anchors = term()
    for step, log_u in ((0, 3.0), (1, 0.5), (1, 1.5)):
        anchors.penalty(anchors.next_batch(step, 2), moved_by(torch.tensor(log_u)), 0.1)
    tokens = [stats.tokens.item() for stats in anchors.stats[1:]]
    assert anchors.step_drift() == pytest.approx(-(0.5 * tokens[0] + 1.5 * tokens[1]) / sum(tokens))


def test_the_first_check_spreads_over_the_store_and_leaves_no_trace() -> None:
    seen: list[str] = []

    def forward(rows: AnchorRows) -> AnchorLogps:
        assert not torch.is_grad_enabled()
        seen.extend(a.prompt_id for a in rows.anchors)
        return AnchorLogps(rows.ref_logp_BT - 0.25)

    anchors = term()
    assert anchors.mean_abs_log_u(forward, batch_size=2, most=3) == pytest.approx(0.25)
    assert seen == ["0", "4", "9"] and anchors.stats == []


def test_what_rounding_does_not_explain_is_refused() -> None:
    check_reference(4e-2, "bfloat16", lambda: 0.0)
    with pytest.raises(AnchorError, match=r"is 0\.04 nats, more than 0\.001: they are of another model"):
        check_reference(4e-2, "float32", lambda: 4e-2)
    with pytest.raises(AnchorError, match=r"and 0\.05 when the same anchors are read again.*Dropout"):
        check_reference(4e-2, "float32", lambda: 5e-2)
    with pytest.raises(AnchorError):
        check_reference(float("nan"), "bfloat16", lambda: float("nan"))


def test_anchors_that_a_method_cannot_use_are_refused() -> None:
    with pytest.raises(EmptyAnchorStore, match="method dph needs anchors"):
        term(anchors=[])
    with pytest.raises(AnchorError, match="hold none"):
        term(replace(SETTINGS, estimator="topk"))
