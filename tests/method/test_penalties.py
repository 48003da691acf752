"""Anchor penalty and its metrics: by hand, and against enumeration of a vocabulary."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dphrl.method.anchor_stats import AnchorStats
from dphrl.method.divergences import GENERATORS, generator
from dphrl.method.penalties import anchor_nll, anchor_penalty

relaxed = settings(deadline=None, max_examples=50)
every_generator = pytest.mark.parametrize("f", [generator(name) for name in GENERATORS], ids=GENERATORS)


def batch(seed=0, rows=8, time=6, dtype=torch.float64):
    """logp, ref_logp and a ragged mask; every row has at least one token."""
    rng = torch.Generator().manual_seed(seed)
    logp, ref_logp = -3 * torch.rand(2, rows, time, dtype=dtype, generator=rng)
    lengths = torch.randint(1, time + 1, (rows, 1), generator=rng)
    return logp, ref_logp, torch.arange(time) < lengths


def gradient(fn, x):
    """fn(x) and its gradient."""
    x = x.clone().requires_grad_()
    y = fn(x)
    y.backward()
    return y.detach(), x.grad


@every_generator
def test_penalty_and_gradient_against_a_loop_over_tokens(f):
    """sum f(log u) / N with a gradient of df/dlog_u / N on anchor tokens and exactly 0 elsewhere."""
    logp, ref_logp, mask = batch()
    value, grad = gradient(lambda x: anchor_penalty(x, ref_logp, mask, f, 50), logp)
    want, want_grad = 0.0, torch.zeros_like(logp)
    for b, t in mask.nonzero().tolist():
        token, want_grad[b, t] = gradient(lambda x, b=b, t=t: f(x - ref_logp[b, t]) / 50, logp[b, t])
        want += token.item()
    assert value.shape == () and value.item() == pytest.approx(want, rel=1e-12)
    torch.testing.assert_close(grad, want_grad, rtol=1e-12, atol=0)


def test_penalty_by_hand():
    """forward-KL, log u = ln 2 and -ln 2, N = 4: ((1 - ln 2) + (-1/2 + ln 2)) / 4 = 1/8; slopes (2-1)/4, (1/2-1)/4."""
    logp, ref_logp = torch.tensor([[0.5, 0.25, 1.0], [0.25, 0.5, 1.0]]).log()[:, None]
    mask = torch.tensor([[True, True, False]])
    value, grad = gradient(lambda x: anchor_penalty(x, ref_logp, mask, generator("forward_kl"), 4), logp)
    assert value.item() == pytest.approx(1 / 8)
    torch.testing.assert_close(grad, torch.tensor([[0.25, -0.125, 0.0]]))
    nll, grad = gradient(lambda x: anchor_nll(x, mask, 4), logp)
    assert nll.item() == pytest.approx(math.log(8) / 4)
    assert grad.tolist() == [[-0.25, -0.25, 0.0]]


@every_generator
@pytest.mark.parametrize("junk", [math.nan, math.inf, -math.inf, 1e38, -7.0])
def test_padding_content_and_width_change_nothing(f, junk):
    """Whatever lies under the mask, and however wide: same value, same gradient, zero gradient on padding."""
    logp, ref_logp, mask = batch()
    plain, plain_grad = gradient(lambda x: anchor_penalty(x, ref_logp, mask, f, 9), logp)
    nll, nll_grad = gradient(lambda x: anchor_nll(x, mask, 9), logp)

    def pad(x, fill):
        return torch.nn.functional.pad(x, (3, 2), value=fill)

    wide_mask = pad(mask, False)
    for dirty in ((junk, 0.0), (0.0, junk), (junk, junk)):
        a, b = (pad(x.masked_fill(~mask, j), j) for x, j in zip((logp, ref_logp), dirty, strict=True))
        value, grad = gradient(lambda x, b=b: anchor_penalty(x, b, wide_mask, f, 9), a)
        assert value.item() == pytest.approx(plain.item(), rel=1e-13)
        assert torch.equal(grad[:, 3:-2], plain_grad) and (grad[~wide_mask] == 0).all()
        value, grad = gradient(lambda x: anchor_nll(x, wide_mask, 9), a)
        assert value.item() == pytest.approx(nll.item(), rel=1e-13) and torch.equal(grad[:, 3:-2], nll_grad)
        stats = AnchorStats.measure(a, b, wide_mask, plain, 9).metrics()
        for name, want in AnchorStats.measure(logp, ref_logp, mask, plain, 9).metrics().items():
            torch.testing.assert_close(stats[name], want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sizes", [[1] * 8, [4, 4], [2, 5, 1], [0, 8]])
def test_micro_batches_add_up_to_the_whole_step(sizes, dtype):
    """1 x 8 = 8 x 1 with one step-wide denominator: penalty, replay, gradients and metrics; in any order."""
    logp, ref_logp, mask = batch(dtype=dtype)
    n, f = int(mask.sum()), generator("js")
    whole, whole_grad = gradient(lambda x: anchor_penalty(x, ref_logp, mask, f, n), logp)
    order = torch.tensor([3, 0, 7, 1, 6, 2, 5, 4])
    parts, grads, records, nll = [], torch.zeros_like(logp), [], torch.zeros((), dtype=dtype)
    for ids in order.split(sizes):
        ref, m = ref_logp[ids], mask[ids]
        value, grads[ids] = gradient(lambda x, ref=ref, m=m: anchor_penalty(x, ref, m, f, n), logp[ids])
        parts.append(value)
        nll = nll + anchor_nll(logp[ids], m, n)
        records.append(AnchorStats.measure(logp[ids], ref, m, value, n))
    torch.testing.assert_close(sum(parts), whole)
    torch.testing.assert_close(grads, whole_grad)
    torch.testing.assert_close(nll, anchor_nll(logp, mask, n))

    metrics = AnchorStats.measure(logp, ref_logp, mask, whole, n).metrics()
    added = records[0]
    for record in records[1:]:
        added = added + record
    gathered = AnchorStats.unpack(torch.stack([r.pack() for r in records]))
    for merged in (added, gathered):
        assert merged.tokens == n and merged.metrics().keys() == metrics.keys()
        for name, value in merged.metrics().items():
            torch.testing.assert_close(value, metrics[name])


def test_metrics_by_hand():
    """log u = (1, -2, 3): penalty as given, forward_kl = -2/3, |log u| mean 2, extremes -2 and 3; unclamped at 1e4."""
    logp, ref_logp = torch.tensor([[1.0, -2.0, 0.0], [3.0, 0.0, 0.0]]), torch.zeros(2, 3)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    penalty = anchor_penalty(logp.requires_grad_(), ref_logp, mask, generator("forward_kl"), 6)
    metrics = AnchorStats.measure(logp, ref_logp, mask, penalty, 6).metrics()
    assert all(v.shape == () and not v.requires_grad for v in metrics.values())
    assert {k: v.item() for k, v in metrics.items()} == pytest.approx(
        {
            "anchor/penalty": 2 * penalty.item(),
            "anchor/forward_kl": -2 / 3,
            "anchor/log_u_min": -2.0,
            "anchor/log_u_max": 3.0,
            "anchor/log_u_abs_mean": 2.0,
        }
    )
    far = AnchorStats.measure(logp.detach() * 1e4, ref_logp, mask, penalty, 6).metrics()
    assert far["anchor/forward_kl"].item() == pytest.approx(-2e4 / 3) and far["anchor/log_u_max"] == 3e4


@given(log_u=st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=12), cut=st.integers(0, 12))
@relaxed
def test_stats_merge_like_one_set(log_u, cut):
    """Any split of the tokens, an empty half included, gives the whole set's record; merging commutes."""
    x = torch.tensor([log_u])

    def measure(part):
        return AnchorStats.measure(part, torch.zeros_like(part), torch.ones_like(part).bool(), part.abs().sum() / 7, 7)

    a, b, whole = measure(x[:, :cut]), measure(x[:, cut:]), measure(x)
    torch.testing.assert_close((a + b).pack(), whole.pack(), rtol=1e-5, atol=1e-4)
    assert torch.equal((a + b).pack(), (b + a).pack())
    assert whole.log_u_min == min(log_u) and whole.log_u_max == max(log_u)


def test_nan_at_an_anchor_token_stays_visible():
    """Only padding is cleaned; a broken policy shows in the penalty and in every metric."""
    logp, ref_logp, mask = batch()
    logp[0, 0] = math.nan
    penalty = anchor_penalty(logp, ref_logp, mask, generator("js"), 5)
    assert all(v.isnan() for v in AnchorStats.measure(logp, ref_logp, mask, penalty, 5).metrics().values())


def test_empty_is_an_error_only_for_the_whole_step():
    """An all-False micro-batch is neutral; no token in the step is refused, with the remedy."""
    logp, ref_logp, mask = batch()
    none = torch.zeros_like(mask)
    value, grad = gradient(lambda x: anchor_penalty(x, ref_logp, none, generator("forward_kl"), 3), logp)
    assert value == 0 and (grad == 0).all() and anchor_nll(logp, none, 3) == 0
    empty = AnchorStats.measure(logp, ref_logp, none, value, 3)
    with pytest.raises(ValueError, match=r"0 anchor tokens were measured; merge .* at least one anchor"):
        empty.metrics()
    full = AnchorStats.measure(logp, ref_logp, mask, value, 3)
    assert torch.equal((empty + full).pack(), full.pack()) and torch.equal((full + empty).pack(), full.pack())
    for bad in (0, -1.0, math.nan):
        with pytest.raises(ValueError, match=rf"step_tokens={bad} must be the positive number .* at least one anchor"):
            anchor_penalty(logp, ref_logp, mask, generator("forward_kl"), bad)
        with pytest.raises(ValueError, match=f"step_tokens={bad}"):
            anchor_nll(logp, mask, bad)


def test_replay_and_forward_kl_have_the_same_gradient_in_the_mean_over_the_reference():
    """Enumerating tokens weighted by pi_ref, in logits: pi - pi_ref for both."""
    logits, ref_logp = torch.linspace(-1, 2, 7, dtype=torch.float64), small_reference()
    f, ones = generator("forward_kl", log_u_cap=80.0), torch.ones(1, 1, dtype=torch.bool)

    def mean(penalty):
        def loss(x):
            logp = x.log_softmax(-1)
            return sum(ref_logp[y].exp() * penalty(logp[y].view(1, 1), ref_logp[y].view(1, 1)) for y in range(7))

        return gradient(loss, logits)[1]

    want = logits.softmax(-1) - ref_logp.exp()
    torch.testing.assert_close(mean(lambda lp, ref: anchor_penalty(lp, ref, ones, f, 1)), want)
    torch.testing.assert_close(mean(lambda lp, ref: anchor_nll(lp, ones, 1)), want)


def small_reference():
    return torch.tensor([0.3, 0.1, 0.05, 0.2, 0.05, 0.25, 0.05], dtype=torch.float64).log()
