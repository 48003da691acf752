"""The token head: log-probabilities of some entries without keeping all logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dphrl.models.logit_rule import LogitRule
from dphrl.models.token_head import entry_logps


@pytest.mark.parametrize("changes", [{}, {"scale": 0.5, "temperature": 0.7}, {"softcap": 2.0, "scale": 1.5}])
def test_entries_are_those_of_the_full_log_softmax(changes: dict[str, Any]) -> None:
    """Value and gradients, whatever the size of the parts; and no part's logits outlive it."""
    rng = torch.Generator().manual_seed(1)
    hidden, weight, bias = (torch.randn(*s, generator=rng).requires_grad_() for s in ((13, 6), (40, 6), (40,)))
    ids = torch.randint(40, (13, 3), generator=rng)
    logits = (hidden @ weight.T + bias) * changes.get("scale", 1.0)
    if "softcap" in changes:
        logits = changes["softcap"] * (logits / changes["softcap"]).tanh()
    want = (logits / changes.get("temperature", 1.0)).log_softmax(-1).gather(1, ids)
    direction = torch.randn(13, 3, generator=rng)
    want_grads = torch.autograd.grad((want * direction).sum(), (hidden, weight, bias))
    for positions in (1, 4, 100):
        kept: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t.numel()) or t, lambda t: t):
            found = entry_logps(hidden, ids, weight, bias, LogitRule(**changes), positions=positions)[0]
        assert max(kept, default=0) < 13 * 40
        torch.testing.assert_close(found, want)
        torch.testing.assert_close(torch.autograd.grad((found * direction).sum(), (hidden, weight, bias)), want_grads)
