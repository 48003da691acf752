"""The penalty over top-K entries against the divergence over the whole vocabulary."""

from __future__ import annotations

import pytest
import torch

from dphrl.method.divergences import generator
from dphrl.method.penalties import topk_penalty


@pytest.mark.parametrize("name", ["forward_kl", "js", "reverse_kl"])
def test_with_the_whole_vocabulary_it_is_the_divergence(name: str) -> None:
    """K = V: sum over the vocabulary of pi_ref f(pi / pi_ref), and its gradient in the logits, over N = 7."""
    rng = torch.Generator().manual_seed(0)
    ref = torch.randn(3, 11, dtype=torch.float64, generator=rng).log_softmax(-1)
    logits = torch.randn(3, 11, dtype=torch.float64, generator=rng).requires_grad_()
    f = generator(name, log_u_cap=80.0)
    found = topk_penalty(logits.log_softmax(-1), ref, f, 7)
    (grad,) = torch.autograd.grad(found, logits)
    p, q = logits.softmax(-1), ref.exp()
    m = (p + q) / 2
    by_name = {
        "forward_kl": (q * (q / p).log()).sum(),
        "reverse_kl": (p * (p / q).log()).sum(),
        "js": (p * (p / m).log()).sum() + (q * (q / m).log()).sum(),
    }
    (want_grad,) = torch.autograd.grad(by_name[name] / 7, logits)
    assert found.item() == pytest.approx(by_name[name].item() / 7, rel=1e-9)
    torch.testing.assert_close(grad, want_grad, rtol=1e-6, atol=1e-9)


def test_no_token_gives_zero_and_no_count_is_refused() -> None:
    none = torch.zeros(0, 4)
    assert topk_penalty(none, none, generator("js"), 5) == 0
    with pytest.raises(ValueError, match="step_tokens=0"):
        topk_penalty(none, none, generator("js"), 0)
