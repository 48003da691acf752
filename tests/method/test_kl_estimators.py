"""KL estimators: their values by hand, and which gradient each follows, by enumeration of a vocabulary."""

import math

import pytest
import torch

from dphrl.method.kl_estimators import k1, k2, k3


def small_reference():
    return torch.tensor([0.3, 0.1, 0.05, 0.2, 0.05, 0.25, 0.05], dtype=torch.float64).log()


def gradient(fn, x):
    """fn(x) and its gradient."""
    x = x.clone().requires_grad_()
    y = fn(x)
    y.backward()
    return y.detach(), x.grad


def expected_gradient(loss_per_token):
    """E_pi[grad loss(y)] in logits on policy: the sampling weights pi(y) are constants, as in training."""

    def loss(logits):
        logp = logits.log_softmax(-1)
        return (logp.detach().exp() * loss_per_token(logp)).sum()

    return gradient(loss, torch.linspace(-1, 2, 7, dtype=torch.float64))[1]


def test_which_gradient_each_estimator_follows_on_policy():
    """k3 in the loss: forward-KL. k2 in the loss and k1 as a reward: reverse-KL. k1 in the loss: nothing."""
    ref_logp, logits = small_reference(), torch.linspace(-1, 2, 7, dtype=torch.float64)
    forward = gradient(lambda x: (ref_logp.exp() * (ref_logp - x.log_softmax(-1))).sum(), logits)[1]
    reverse = gradient(lambda x: (x.softmax(-1) * (x.log_softmax(-1) - ref_logp)).sum(), logits)[1]
    assert (forward - reverse).abs().max() > 0.01
    torch.testing.assert_close(expected_gradient(lambda logp: k3(logp, ref_logp)), forward)
    torch.testing.assert_close(expected_gradient(lambda logp: k2(logp, ref_logp)), reverse)
    torch.testing.assert_close(expected_gradient(lambda logp: k1(logp, ref_logp).detach() * logp), reverse)
    torch.testing.assert_close(expected_gradient(lambda logp: k1(logp, ref_logp)), torch.zeros_like(logits))


def test_values_of_the_estimators():
    """By hand at ln pi/ref = ln 2: ln 2, (ln 2)^2 / 2, 1/2 - 1 + ln 2. k1 and k3 average to reverse-KL over pi."""
    two, zero = torch.tensor(math.log(2.0), dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64)
    want = {"k1": math.log(2), "k2": math.log(2) ** 2 / 2, "k3": math.log(2) - 0.5}
    assert {f.__name__: f(two, zero).item() for f in (k1, k2, k3)} == pytest.approx(want, rel=1e-13)
    logp, ref_logp = torch.linspace(-1, 2, 7, dtype=torch.float64).log_softmax(-1), small_reference()
    reverse = (logp.exp() * (logp - ref_logp)).sum()
    for estimator in (k1, k3):
        torch.testing.assert_close((logp.exp() * estimator(logp, ref_logp)).sum(), reverse)
    assert torch.isfinite(k3(torch.tensor(-1e4), torch.tensor(0.0)))
