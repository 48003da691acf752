"""Fresh completions against the reference: which way each method takes, and its numbers by hand."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from dphrl.engines.common.processes import Processes
from dphrl.engines.common.reference_term import KL_TERMS, centred_k1, reference_term, token_mean


def test_each_method_takes_one_way_or_none() -> None:
    for name, term in KL_TERMS.items():
        assert reference_term(SimpleNamespace(method="rkl", kl_estimator=name)) is term
        assert (term.in_loss is not None) + term.as_reward + term.by_engine == 1
    fresh = reference_term(SimpleNamespace(method="dph", form="definition", divergence="reverse_kl"))
    assert fresh is not None and fresh.metric == "fresh/penalty" and fresh.in_loss is not None
    assert fresh.in_loss(torch.tensor(-1.0), torch.tensor(-1.5)).item() == pytest.approx(0.5)
    for form, divergence in (("definition", "forward_kl"), ("generator", "js")):
        assert reference_term(SimpleNamespace(method="dph", form=form, divergence=divergence)) is None
    assert reference_term(SimpleNamespace(method="grpo", form=None, divergence=None, kl_estimator=None)) is None


def test_the_token_mean_has_the_denominator_of_the_step() -> None:
    """Terms 1, 2 and 4 count: 7 over 10 tokens of the step; logged is their own mean 7/3."""
    terms, mask = torch.tensor([[1.0, 2.0], [4.0, 9.0]]), torch.tensor([[1, 1], [1, 0]])
    loss, logged = token_mean(terms, mask, torch.tensor(10.0))
    assert (loss.item(), logged) == (pytest.approx(0.7), pytest.approx(7 / 3))


def test_k1_as_a_reward_is_centred_in_groups_over_all_processes() -> None:
    """Sums 1 and 3 here, 10 and 20 on the other process: groups of two, means 2 and 15."""
    other = torch.tensor([10.0, 20.0])
    processes = Processes(gather=lambda rows: torch.cat([other, rows]), rank=1, count=2)
    logp, mask = torch.tensor([[1.0, 5.0], [1.0, 2.0]]), torch.tensor([[1, 0], [1, 1]])
    own, mean = centred_k1(logp, torch.zeros(2, 2), mask, group_size=2, processes=processes)
    assert own.tolist() == [-1.0, 1.0] and mean == pytest.approx(8.5)
