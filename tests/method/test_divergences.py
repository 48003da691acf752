"""Generator functions: values worked by hand, mpmath, float64 autograd, brute force over small vocabularies."""

import math

import mpmath as mp
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dphrl.errors import ConfigError
from dphrl.method.divergences import (
    GENERATORS,
    MAX_LOG_U_CAP,
    Generator,
    alpha,
    forward_kl,
    generator,
    jeffreys,
    js,
    reverse_kl,
    squared_hellinger,
    topk_divergence,
)

relaxed = settings(deadline=None, max_examples=50)
ORDERS = (1e-3, 0.2, 0.8)
ALL: dict[str, Generator] = {n: generator(n, log_u_cap=80.0) for n in GENERATORS if n != "alpha"} | {
    f"alpha({a})": alpha(a) for a in ORDERS
}
CURVATURE = {"forward_kl": 1.0, "reverse_kl": 1.0, "js": 0.5, "jeffreys": 2.0, "squared_hellinger": 0.5}
every_generator = pytest.mark.parametrize("name", ALL)
any_float32 = st.floats(width=32, allow_nan=False, allow_infinity=True)


def textbook(name, u):
    """f(u) as PAPER.md prints it, on mpmath numbers."""
    a = mp.mpf(name[6:-1]) if name.startswith("alpha") else mp.mpf("0.5")
    return {
        "forward_kl": lambda: u - 1 - mp.log(u),
        "reverse_kl": lambda: u * mp.log(u) - u + 1,
        "js": lambda: u * mp.log(u) - (u + 1) * mp.log((u + 1) / 2),
        "alpha": lambda: (u ** (1 - a) - (1 - a) * u - a) / (a * (a - 1)),
        "jeffreys": lambda: (u - 1) * mp.log(u),
        "squared_hellinger": lambda: (mp.sqrt(u) - 1) ** 2,
    }[name.partition("(")[0]]()


def textbook_slope(name, u):
    """u f'(u) = df/dln u, by hand from the table."""
    a = mp.mpf(name[6:-1]) if name.startswith("alpha") else mp.mpf("0.5")
    return {
        "forward_kl": lambda: u - 1,
        "reverse_kl": lambda: u * mp.log(u),
        "js": lambda: u * mp.log(2 * u / (u + 1)),
        "alpha": lambda: (u - u ** (1 - a)) / a,
        "jeffreys": lambda: u * mp.log(u) + u - 1,
        "squared_hellinger": lambda: u - mp.sqrt(u),
    }[name.partition("(")[0]]()


def value_and_slope(f, log_u, dtype=torch.float64):
    """f at the points, and its gradient by autograd."""
    x = torch.as_tensor(log_u, dtype=dtype).clone().requires_grad_()
    y = f(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    return y.detach(), slope


def test_bernoulli_values_by_hand():
    """pi_ref = (1/2, 1/2), pi = (3/4, 1/4), so u = 3/2 and 1/2.

    KL(ref||pi) = (ln 2/3 + ln 2)/2 = ln(4/3)/2. KL(pi||ref) = 3/4 ln 3/2 - 1/4 ln 2. The mixture is (5/8, 3/8), so
    twice Jensen-Shannon = 3/4 ln 6/5 + 1/4 ln 2/3 + 1/2 ln 4/5 + 1/2 ln 4/3 = 0.067644. Jeffreys = (ln 3/2 - ln 1/2)/4
    = ln(3)/4. Hellinger = 2 - 2 (sqrt(3/8) + sqrt(1/8)) = 0.068148; alpha(1/2) is twice that.
    """
    log_u = torch.tensor([1.5, 0.5], dtype=torch.float64).log()
    hellinger = 2 - 2 * (math.sqrt(3 / 8) + math.sqrt(1 / 8))
    assert forward_kl(log_u).mean().item() == pytest.approx(math.log(4 / 3) / 2, rel=1e-13)
    assert reverse_kl(log_u).mean().item() == pytest.approx(0.75 * math.log(1.5) - 0.25 * math.log(2), rel=1e-13)
    assert js(log_u).mean().item() == pytest.approx(0.0676441, abs=1e-7)
    assert jeffreys(log_u).mean().item() == pytest.approx(math.log(3) / 4, rel=1e-13)
    assert squared_hellinger(log_u).mean().item() == pytest.approx(hellinger, rel=1e-13)
    assert alpha(0.5)(log_u).mean().item() == pytest.approx(2 * hellinger, rel=1e-13)


def test_single_tokens_by_hand():
    """At u = 2: 1 - ln 2, 2 ln 2 - 1, 2 ln 2 - 3 ln 3/2 = ln(32/27), ln 2, (sqrt 2 - 1)^2, and for alpha(1/2)
    -4 (sqrt 2 - 1 - 1/2) = 6 - 4 sqrt 2.
    """
    two = torch.tensor(math.log(2.0), dtype=torch.float64)
    got = [f(two).item() for f in (forward_kl, reverse_kl, js, jeffreys, squared_hellinger, alpha(0.5))]
    root = math.sqrt(2)
    want = [1 - math.log(2), 2 * math.log(2) - 1, math.log(32 / 27), math.log(2), (root - 1) ** 2, 6 - 4 * root]
    assert got == pytest.approx(want, rel=1e-13)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 2e-14)])
@every_generator
def test_relative_error_against_mpmath(name, dtype, tolerance):
    """Value and slope from u = e^-30 to the largest cap, and down to |log u| = 1e-7 without cancellation noise."""
    small = [s * 10.0**-k for k in range(1, 8) for s in (1, -1)]
    log_u = torch.tensor([*small, *torch.linspace(-30, 80, 111).tolist(), 0.5, -0.5, -0.99, 1.01], dtype=dtype)
    log_u = log_u[log_u != 0]
    got = value_and_slope(ALL[name], log_u, dtype)
    with mp.workdps(50):
        us = [mp.exp(x) for x in log_u.tolist()]
        want = [[float(fn(name, u)) for u in us] for fn in (textbook, textbook_slope)]
    for g, w in zip(got, want, strict=True):
        w = torch.tensor(w, dtype=torch.float64)
        assert ((g.double() - w) / w).abs().max() < tolerance


@every_generator
@given(log_u=any_float32, cap=st.floats(0.01, MAX_LOG_U_CAP))
@relaxed
def test_value_and_gradient_are_finite_for_every_float32(name, log_u, cap):
    """No nan or inf where u under- or overflows, infinities included; and f >= 0."""
    for f in (ALL[name], ALL[name].capped(cap)):
        value, slope = value_and_slope(f, log_u, torch.float32)
        assert torch.isfinite(value) and torch.isfinite(slope)
        assert value >= 0
        assert slope * log_u >= 0 or slope == 0  # falls left of u = 1, rises right of it


@every_generator
def test_extremes(name):
    """The ends of float32, the smallest numbers, and both infinities at once, for the default cap and the largest."""
    ends = [math.inf, 3.4028234e38, 3e38, 1e30, 1e5, 104.0, 89.0, 88.0, 1e-45, 1e-38, 0.0]
    x = torch.tensor([s * v for v in ends for s in (1, -1)])
    for cap in (1e-40, 5.0, 80.0):
        value, slope = value_and_slope(ALL[name].capped(cap), x, torch.float32)
        assert torch.isfinite(value).all() and torch.isfinite(slope).all() and (value >= 0).all()


@every_generator
def test_zero_value_and_gradient_at_one_and_curvature(name):
    """f(1) = f'(1) = 0; near 1, f is f''(1) log_u^2 / 2."""
    value, slope = value_and_slope(ALL[name], 0.0)
    assert value == 0 and slope == 0
    near = 1e-6
    assert 2 * ALL[name](torch.tensor(near, dtype=torch.float64)).item() / near**2 == pytest.approx(
        CURVATURE.get(name, 1.0), rel=1e-5
    )


@every_generator
@given(a=st.floats(-30, 5), b=st.floats(-30, 5), w=st.floats(0, 1))
@relaxed
def test_convex_in_u(name, a, b, w):
    """f(w u + (1-w) v) <= w f(u) + (1-w) f(v)."""
    u, v = math.exp(a), math.exp(b)
    mixed, fu, fv = ALL[name](torch.tensor([w * u + (1 - w) * v, u, v], dtype=torch.float64).log()).tolist()
    assert mixed <= w * fu + (1 - w) * fv + 1e-9 * (1 + fu + fv)


def test_full_pull_on_forgotten_tokens():
    """At log u = -20 forward-KL and Jeffreys still pull with -1 (the released clamp gives 0), to float precision."""
    for log_u in (-20.0, -100.0, -3e38, -math.inf):
        assert value_and_slope(forward_kl, log_u, torch.float32)[1] == -1
        assert value_and_slope(jeffreys, log_u, torch.float32)[1].item() == pytest.approx(-1, abs=1e-7)
    assert forward_kl(torch.tensor(-3e38)).item() == pytest.approx(3e38)
    assert js(torch.tensor(-3e38)).item() == pytest.approx(math.log(2))
    assert alpha(0.2)(torch.tensor(-3e38)).item() == pytest.approx(1.25)


@given(log_u=st.floats(-40, 40))
@relaxed
def test_relations(log_u):
    """Mirror images f(u) = u g(1/u), sums, and multiples, which hold exactly on paper."""
    x = torch.tensor(log_u, dtype=torch.float64)
    u = x.exp()

    def same(left, right):
        assert left.item() == pytest.approx(right.item(), rel=1e-12)

    same(js(x), u * js(-x))
    same(jeffreys(x), u * jeffreys(-x))
    same(squared_hellinger(x), u * squared_hellinger(-x))
    same(forward_kl(x), u * reverse_kl(-x))
    same(alpha(0.2)(x), u * alpha(0.8)(-x))
    same(jeffreys(x), forward_kl(x) + reverse_kl(x))
    same(alpha(0.5)(x), 2 * squared_hellinger(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("distance", [1e-5, 1e-12, 1e-300])
def test_alpha_limits(dtype, distance):
    """alpha -> 1 is forward_kl and alpha -> 0 reverse_kl, at a distance of order `distance`, even below resolution."""
    x = torch.linspace(-20, 5, 201, dtype=dtype)
    pairs = [(alpha(distance), reverse_kl)]
    if distance > 1e-15:
        pairs.append((alpha(1 - distance), forward_kl))
    for near, limit in pairs:
        for got, want in zip(value_and_slope(near, x, dtype), value_and_slope(limit, x, dtype), strict=True):
            torch.testing.assert_close(got, want, rtol=30 * distance + 3e-6, atol=30 * distance + 1e-9)


@every_generator
def test_gradients_match_finite_differences_and_float64_autograd(name):
    """gradcheck over both sides of 1 and of the cap; and autograd through the printed forward-KL, JS formulas."""
    x = torch.tensor([-9.0, -1.3, -0.7, -0.1, 0.1, 0.7, 1.3, 4.0, 7.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ALL[name].capped(5.0), x)
    printed = {
        "forward_kl": lambda x: x.exp() - 1 - x,
        "reverse_kl": lambda x: x.exp() * x - x.exp() + 1,
        "js": lambda x: x.exp() * x - (x.exp() + 1) * ((x.exp() + 1) / 2).log(),
        "jeffreys": lambda x: (x.exp() - 1) * x,
        "squared_hellinger": lambda x: ((x / 2).exp() - 1) ** 2,
    }
    if name in printed:
        exact, automatic = value_and_slope(ALL[name], x), value_and_slope(printed[name], x)
        torch.testing.assert_close(exact, automatic, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
@every_generator
def test_mean_under_the_reference_is_the_divergence(name, seed):
    """E_ref[f(u)] over a small vocabulary against the textbook sums over p and q."""
    logits = 2 * torch.randn(2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    p, q = logits.softmax(-1)  # policy, reference
    m = (p + q) / 2

    def kl(a, b):
        return (a * (a / b).log()).sum()

    if name.startswith("alpha"):
        a = float(name[6:-1])
        want = (1 - (p ** (1 - a) * q**a).sum()) / (a * (1 - a))
    else:
        want = {
            "forward_kl": kl(q, p),
            "reverse_kl": kl(p, q),
            "js": kl(p, m) + kl(q, m),
            "jeffreys": ((p - q) * (p / q).log()).sum(),
            "squared_hellinger": ((p.sqrt() - q.sqrt()) ** 2).sum(),
        }[name]
    assert (q * ALL[name]((p / q).log())).sum().item() == pytest.approx(want.item(), rel=1e-9)


@every_generator
@given(cap=st.floats(0.1, 20), beyond=st.floats(1e-3, 50))
@relaxed
def test_cap_is_a_tangent(name, cap, beyond):
    """C1 at the cap; a straight line with the cap's slope beyond; untouched below."""
    f = ALL[name].capped(cap)
    x = torch.tensor([cap - 1e-9, cap, cap + 1e-9, cap + beyond, cap - beyond], dtype=torch.float64)
    (before, at, after, far, inside), slopes = value_and_slope(f, x)
    (exact_at, exact_inside), exact_slopes = value_and_slope(ALL[name], x[[1, 4]])
    assert at == exact_at and inside == exact_inside and slopes[1] == exact_slopes[0] and slopes[4] == exact_slopes[1]
    step = max(1.0, slopes[1].item()) * 3e-8
    assert abs(at - before) < step and abs(after - at) < step and abs(slopes[0] - slopes[1]) < 2 * step
    assert slopes[2] == slopes[1] == slopes[3]
    assert far.item() == pytest.approx((at + slopes[1] * beyond).item(), rel=1e-12)


def test_saturation_keeps_the_gradient():
    """g(5) + g'(5) * 3e38 = 4.4e40 does not fit float32: the value is its maximum, the slope still e^5 - 1."""
    value, slope = value_and_slope(generator("forward_kl"), [3e38, math.inf], torch.float32)
    assert (value == torch.finfo(torch.float32).max).all()
    torch.testing.assert_close(slope, torch.full((2,), math.exp(5) - 1))


def test_nan_stays_visible():
    """A broken logp must not turn into a number."""
    value, slope = value_and_slope(js, [math.nan, 1.0], torch.float32)
    assert value.isnan().tolist() == slope.isnan().tolist() == [True, False]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_input_is_computed_in_float32(dtype):
    """The value is that of the rounded input in float32; the gradient comes back in the input's dtype."""
    x = torch.tensor([-20.0, -0.01, 0.3, 4.0], dtype=dtype, requires_grad=True)
    y = forward_kl(x)
    y.sum().backward()
    assert y.dtype == torch.float32 and x.grad.dtype == dtype
    torch.testing.assert_close(y.detach(), forward_kl(x.detach().float()))


def test_shapes_and_chain_rule():
    """Any shape, 0-dim and empty included; gradients chain; a second derivative is refused."""
    assert js(torch.zeros(2, 0, 3)).shape == (2, 0, 3) and js(torch.tensor(1.0)).shape == ()
    w = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(3 * forward_kl(2 * w) + reverse_kl(w), w, create_graph=True)
    want = 6 * math.expm1(0.6) + 0.3 * math.exp(0.3)
    assert grad.item() == pytest.approx(want, rel=1e-13)
    (grad,) = torch.autograd.grad(forward_kl(w) ** 2, w, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.backward()


def test_lookup_names_what_is_allowed():
    """Each error says what came and what is allowed."""
    with pytest.raises(ConfigError, match=r"'foward_kl' is not one of forward_kl, .*did you mean 'forward_kl'\?"):
        generator("foward_kl")
    with pytest.raises(ConfigError, match=r"alpha=1.0 must be in \(0, 1\)"):
        generator("alpha", alpha=1.0)
    for cap in (0.0, -1.0, 80.1, math.nan):
        with pytest.raises(ConfigError, match=rf"log_u_cap={cap} must be in \(0, 80\]"):
            generator("js", log_u_cap=cap)
    for a in (0.0, 1.0, -0.1, 2.0, math.nan):
        with pytest.raises(ValueError, match=rf"alpha={a} must be in \(0, 1\)"):
            alpha(a)
    assert set(GENERATORS) == {"forward_kl", "reverse_kl", "js", "alpha", "jeffreys", "squared_hellinger"}


def log_probs(seed, *shape, scale=2.0, dtype=torch.float64):
    return (scale * torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))).log_softmax(-1)


def topk_of(logp, ref_logp, k):
    """The reference's K largest entries of each distribution."""
    ref_top, ids = ref_logp.topk(k, dim=-1)
    return logp.gather(-1, ids), ref_top


@pytest.mark.parametrize("seed", range(5))
@every_generator
def test_topk_is_a_lower_bound_and_equal_with_the_whole_vocabulary(name, seed):
    """Against brute force over the vocabulary for every K; it grows with K, and the capped one is lower still."""
    v = 9
    logp, ref_logp = log_probs(seed, 4, v), log_probs(seed + 100, 4, v)
    f = ALL[name]
    whole = (ref_logp.exp() * f(logp - ref_logp)).sum(-1)
    bounds = [topk_divergence(*topk_of(logp, ref_logp, k), f) for k in range(1, v + 1)]
    for k, (smaller, larger) in enumerate(zip(bounds, [*bounds[1:], whole], strict=True), start=1):
        assert (smaller >= 0).all() and (smaller <= larger + 1e-12).all()
        assert (topk_divergence(*topk_of(logp, ref_logp, k), f.capped(0.5)) <= smaller + 1e-12).all()
    torch.testing.assert_close(bounds[-1], whole, rtol=1e-10, atol=1e-13)


def test_topk_by_hand():
    """pi_ref = (1/2, 1/4, 1/4), pi = (1/4, 1/4, 1/2), K = 1: buckets (1/2, 1/2) and (1/4, 3/4).

    forward-KL = 1/2 ln 2 + 1/2 ln 2/3 = ln(4/3)/2 = 0.144; over the whole vocabulary 1/2 ln 2 - 1/4 ln 2 = 0.173.
    """
    got = topk_divergence(torch.tensor([0.25]).log(), torch.tensor([0.5]).log(), forward_kl)
    assert got.shape == () and got.item() == pytest.approx(math.log(4 / 3) / 2, rel=1e-6)


@pytest.mark.parametrize("k", [1, 3, 9])
@every_generator
def test_topk_gradient_in_logits_matches_the_bucketed_divergence(name, k):
    """Through a log-softmax, against autograd on bucket probabilities formed by summing the others directly."""
    ref_logp = log_probs(7, 9)
    ids = ref_logp.topk(k).indices
    others = torch.ones(9, dtype=torch.bool).index_fill(0, ids, False)

    def with_buckets(logits):
        logp = logits.log_softmax(-1)
        pairs = [(ref_logp[ids], logp[ids])]
        if others.any():
            pairs.append((ref_logp[others].logsumexp(0), logp[others].logsumexp(0)))
        return sum((ref.exp() * ALL[name](lp - ref)).sum() for ref, lp in pairs)

    def ours(logits):
        return topk_divergence(logits.log_softmax(-1)[ids], ref_logp[ids], ALL[name])

    logits = torch.linspace(-2, 2, 9, dtype=torch.float64)
    torch.testing.assert_close(
        value_and_slope(ours, logits), value_and_slope(with_buckets, logits), rtol=1e-10, atol=1e-12
    )


@every_generator
def test_topk_rest_mass_of_zero_on_either_side(name):
    """float32, every pair of rest masses from 0.5 to 0 and to a sum above 1 by rounding; entries of mass 0 as well."""
    masses = torch.tensor([0.5, 1e-3, 1e-6, 1e-8, 1e-40, 0.0, -3e-7])
    rest, ref_rest = torch.cartesian_prod(masses, masses).unbind(-1)
    zero = torch.zeros_like(rest)
    logp = torch.stack([1 - rest, zero, zero], -1).log().requires_grad_()
    ref_logp = torch.stack([1 - ref_rest, zero, zero + 1e-30], -1).log()
    for f in (ALL[name], ALL[name].capped(5.0)):
        value = topk_divergence(logp, ref_logp, f)
        (grad,) = torch.autograd.grad(value.sum(), logp)
        assert torch.isfinite(value).all() and (value >= 0).all() and torch.isfinite(grad).all()


def test_topk_refills_an_emptied_bucket():
    """The reference keeps 1/4 outside the top-K, the policy nothing: forward-KL is large, and its gradient lowers the
    entries (in logits: raises the others); equal distributions with an empty bucket give exactly 0.
    """
    logits = torch.tensor([0.0, 0.0, -40.0], requires_grad=True)
    value = topk_divergence(logits.log_softmax(-1)[:2], torch.tensor([0.375, 0.375]).log(), forward_kl)
    assert 2 < value < 5
    logp = logits.log_softmax(-1)[:2].detach().requires_grad_()
    topk_divergence(logp, torch.tensor([0.375, 0.375]).log(), forward_kl).backward()
    assert (logp.grad > 0.25).all()
    same = torch.tensor([0.5, 0.5]).log()
    assert topk_divergence(same, same, forward_kl) == 0
