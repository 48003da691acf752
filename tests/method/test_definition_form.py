"""The definition form on a model small enough to enumerate: its mean gradient is the divergence's own, exactly.

Two tokens from a vocabulary of five. A context is nothing, or the first token; the divergence of a form is the sum over
contexts of their probability under the law that draws them, times the divergence of the next token there. The contexts'
law is held fixed, as each form of the loss does.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dphrl.config.objective import DEFINED
from dphrl.errors import ConfigError
from dphrl.method.definition_form import DEFINITIONS, definition
from dphrl.method.divergences import GENERATORS

VOCABULARY = 5


def kl(p: Tensor, q: Tensor) -> Tensor:
    return (p * (p / q).log()).sum(-1)


HALVES: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    "forward_kl": (lambda pi, ref: kl(ref, pi), lambda pi, ref: 0 * pi.sum(-1)),
    "js": (lambda pi, ref: kl(ref, (pi + ref) / 2), lambda pi, ref: kl(pi, (pi + ref) / 2)),
    "reverse_kl": (lambda pi, ref: 0 * pi.sum(-1), lambda pi, ref: kl(pi, ref)),
}
"""What the papers write, from probabilities of the next token: the part on the reference's tokens, on the policy's."""


@pytest.fixture
def parameters() -> Tensor:
    """Logits of the first token, then of the second after each first: [1 + 5, 5]."""
    made = torch.randn(1 + VOCABULARY, VOCABULARY, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return made.requires_grad_()


@pytest.fixture
def ref() -> Tensor:
    noise = torch.randn(1 + VOCABULARY, VOCABULARY, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return (1.5 * noise).softmax(-1)


def contexts(p: Tensor) -> Tensor:
    """How often each context comes: the empty one always."""
    return torch.cat([torch.ones(1, dtype=p.dtype), p[0].detach()])


def mean_terms(term: Callable[[Tensor], Tensor] | None, parameters: Tensor, ref: Tensor, law: Tensor) -> Tensor:
    """E[sum over both tokens of term(log_u)] over every pair of tokens with its probability under `law`, held fixed."""
    if term is None:
        return 0 * parameters.sum()
    log_u = parameters.log_softmax(-1) - ref.log()
    law = law.detach()
    total = torch.zeros((), dtype=torch.float64)
    for first in range(VOCABULARY):
        for second in range(VOCABULARY):
            tokens = torch.stack([log_u[0, first], log_u[1 + first, second]])
            total = total + law[0, first] * law[1 + first, second] * term(tokens).sum()
    return total


def gradient(value: Tensor, parameters: Tensor) -> Tensor:
    return torch.autograd.grad(value, parameters, retain_graph=True)[0]


def exact(name: str, parameters: Tensor, ref: Tensor, *laws: Tensor) -> Tensor:
    pi = parameters.softmax(-1)
    return sum((contexts(law) * half(pi, ref)).sum() for half, law in zip(HALVES[name], laws, strict=True))


@pytest.mark.parametrize("name", DEFINITIONS)
def test_the_definition_form_has_the_divergence_s_own_gradient(name: str, parameters: Tensor, ref: Tensor) -> None:
    pi = parameters.softmax(-1)
    form = definition(name)
    found = mean_terms(form.anchors, parameters, ref, ref) + mean_terms(form.fresh, parameters, ref, pi)
    expected = exact(name, parameters, ref, ref, pi)
    assert found.item() == pytest.approx(expected.item(), abs=1e-12)
    assert gradient(expected, parameters).norm() > 0.1
    assert (gradient(found, parameters) - gradient(expected, parameters)).abs().max() < 1e-12


@pytest.mark.parametrize("name", DEFINITIONS)
def test_the_generator_form_has_it_on_the_reference_s_contexts(name: str, parameters: Tensor, ref: Tensor) -> None:
    """So the forms differ in one thing: where the second half looks, in the policy's contexts or in the reference's."""
    found = mean_terms(GENERATORS[name](0.5), parameters, ref, ref)
    expected = exact(name, parameters, ref, ref, ref)
    assert found.item() == pytest.approx(expected.item(), abs=1e-12)
    assert (gradient(found, parameters) - gradient(expected, parameters)).abs().max() < 1e-12


@pytest.mark.parametrize("name", DEFINITIONS)
def test_at_the_first_token_both_forms_agree(name: str, parameters: Tensor, ref: Tensor) -> None:
    pi, form = parameters.softmax(-1), definition(name)
    both = mean_terms(form.anchors, parameters, ref, ref) + mean_terms(form.fresh, parameters, ref, pi)
    generator = mean_terms(GENERATORS[name](0.5), parameters, ref, ref)
    assert (gradient(both, parameters) - gradient(generator, parameters))[0].abs().max() < 1e-12
    apart = (gradient(both, parameters) - gradient(generator, parameters))[1:].abs().max()
    assert apart < 1e-12 if name == "forward_kl" else apart > 1e-2  # forward-KL looks at the reference's contexts alone


def test_forward_kl_is_that_of_whole_sequences(parameters: Tensor, ref: Tensor) -> None:
    """It chains over tokens: the KL between the laws of pairs, whose gradient neither form misses anything of."""
    log_ref = ref[0].log()[:, None] + ref[1:].log()
    log_pi = parameters[0].log_softmax(-1)[:, None] + parameters[1:].log_softmax(-1)
    whole = (log_ref.exp() * (log_ref - log_pi)).sum()
    found = mean_terms(definition("forward_kl").anchors, parameters, ref, ref)
    assert (gradient(found, parameters) - gradient(whole, parameters)).abs().max() < 1e-12


@pytest.mark.parametrize("name", ["js", "reverse_kl"])
def test_autograd_of_the_terms_alone_would_pull_nowhere(name: str, parameters: Tensor, ref: Tensor) -> None:
    """Why the fresh half states its slope: the halves as they are written cancel, token by token."""
    plain = {"js": lambda x: (2 * x.exp() / (x.exp() + 1)).log(), "reverse_kl": lambda x: x}[name]
    both = mean_terms(definition(name).anchors, parameters, ref, ref)
    both = both + mean_terms(plain, parameters, ref, parameters.softmax(-1))
    assert gradient(both, parameters)[0].abs().max() < 1e-12


@pytest.mark.parametrize("name", DEFINITIONS)
def test_far_tokens_keep_finite_values_and_slopes(name: str) -> None:
    for term in (definition(name).anchors, definition(name).fresh):
        if term is not None:
            log_u = torch.tensor([-200.0, -1e-6, 0.0, 1e-6, 200.0], requires_grad=True)
            term(log_u).sum().backward()
            assert term(log_u).isfinite().all() and log_u.grad.isfinite().all()


def test_other_divergences_have_no_definition_form() -> None:
    assert tuple(DEFINITIONS) == DEFINED
    with pytest.raises(ConfigError, match=r"forward_kl, js, reverse_kl, and 'alpha' came"):
        definition("alpha")
