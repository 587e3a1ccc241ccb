"""The science of the nonlinear rule: lengths, independent sources, whitening, which way to bend."""

import pytest
import torch
from helpers import largest_difference, mutant
from helpers.hebbian_features import amari, cosines, exact_inputs, linear_net, sources

from course_utils.network import MLP
from course_utils.rules import NonlinearHebb

BENT = {"expand": lambda y: y - torch.tanh(y), "compress": torch.tanh}
responses = pytest.mark.parametrize("response", BENT)


def apart_from_the_equation(rule_class, response):
    """Largest difference between `change` and (7), added up example by example; and of the layer before, from (5)."""
    net = MLP([6, 4, 3, 2], activation="linear", seed=3, device="cpu").double()
    rule, (x, _) = rule_class(net, response=response), exact_inputs()
    z = x[:, :4]
    w = net.weights[1].detach()
    r = BENT[response](z @ w.T)
    summed = sum(torch.outer(r_n, z_n) - torch.outer(r_n, r_n @ w) for r_n, z_n in zip(r, z, strict=True)) / len(z)
    first = net.weights[0].detach()
    y = x @ first.T
    below = (y.T @ x - torch.tril(y.T @ y) @ first) / len(x)
    return largest_difference([rule.change(1, z, z @ w.T), rule.change(0, x, y)], [summed, below])


@responses
def test_the_last_hidden_layer_learns_by_its_bent_responses_and_those_before_by_sanger_s_rule(response):
    assert apart_from_the_equation(NonlinearHebb, response) < 1e-14
    for old, new in (("(r.T @ r)", "torch.tril(r.T @ r)"), ("r.T @ c", "y.T @ c"), ("self.net.depth - 2", "0")):
        assert apart_from_the_equation(mutant(NonlinearHebb, old, new), response) > 1e-3


def error_of_reference(rule_class, response):
    """`reference_gradient` of one nonlinear layer against autograd of ½|z − Wᵀr|²."""
    net, (x, _) = linear_net([6, 4, 2]), exact_inputs()
    rule, labels = rule_class(net, response=response, rate=0.3), torch.arange(40) % 2
    w = net.weights[0].detach().clone().requires_grad_()
    loss = 0.5 * (x - BENT[response](x @ w.T) @ w).square().sum(1).mean()
    return (rule.reference_gradient(x, labels)[0] - 0.3 * torch.autograd.grad(loss, w)[0]).abs().max().item()


@responses
def test_its_reference_is_the_gradient_of_reconstruction_from_bent_responses(response):
    assert error_of_reference(NonlinearHebb, response) < 1e-13
    for old, new in (("slope * (", "("), ("(w @ w.T)", "torch.tril(w @ w.T)"), ("y - r @", "r - r @")):
        assert error_of_reference(mutant(NonlinearHebb, old, new), response) > 1e-4


@torch.no_grad()
def separated(kind, response="expand", whitened=True, rule_class=NonlinearHebb, epochs=12, seed=0):
    """(Amari's index of what four neurons find in four mixed sources, weights on the whitened inputs)."""
    s, generator = sources(kind, seed=seed), torch.Generator().manual_seed(seed + 1)
    x = s @ (mixing := torch.randn(4, 4, generator=generator, dtype=torch.float64)).T
    x = x - x.mean(0)
    variances, axes = torch.linalg.eigh(torch.cov(x.T))
    whitener = (axes / variances.sqrt()).T if whitened else torch.eye(4, dtype=torch.float64) / variances.max().sqrt()
    z = x @ whitener.T
    rule = rule_class(MLP([4, 4, 2], activation="linear", seed=seed, device="cpu").double(), response=response)
    w, steps = rule.net.weights[0].detach(), epochs * len(z) // 100
    for n in range(steps):
        c = z[torch.randperm(len(z), generator=generator)[:100]]
        w += 0.2 * (1 - n / steps) * rule.change(0, c, c @ w.T)
    return amari(w @ whitener @ mixing), w


PAIRS = [("laplace", "expand"), ("uniform", "compress")]


@pytest.mark.parametrize("kind, response", PAIRS)
def test_whitened_sources_come_apart_with_the_right_bend_and_are_mixed_evenly_with_the_wrong_one(kind, response):
    other = "compress" if response == "expand" else "expand"
    assert separated(kind, response)[0] < 0.03
    assert separated(kind, other)[0] > 0.4
    assert separated(kind, response, whitened=False)[0] > 0.15
    assert separated("gaussian", response)[0] > 0.15
    linear = mutant(NonlinearHebb, "r, _ = self.bent(y)", "r = y")
    assert separated(kind, response, rule_class=linear)[0] > 0.15


def length_law(s, response):
    """c with ⟨g(cs) s⟩ = c ⟨g(cs)²⟩, by bisection over a source s: how long a neuron becomes that found it."""
    g, low, high = BENT[response], 0.05, 5.0
    for _ in range(60):
        c = (low + high) / 2
        grows = (g(c * s) * s).mean() > c * g(c * s).square().mean()
        low, high = (c, high) if grows else (low, c)
    return low


@pytest.mark.parametrize("kind, response", PAIRS)
def test_a_neuron_that_found_a_source_has_the_length_of_its_law_and_not_length_one(kind, response):
    _, w = separated(kind, response)
    law = length_law(sources(kind, n=200_000, k=1, seed=5)[:, 0], response)
    assert abs(law - 1) > 0.15
    assert (w.norm(dim=1) - law).abs().max() < 0.03
    still = mutant(NonlinearHebb, "(r.T @ r) @ self.net.weights[l]", "(y.T @ r) @ self.net.weights[l]")
    assert (separated(kind, response, rule_class=still)[1].norm(dim=1) - law).abs().max() > 0.03


def test_a_layer_of_sanger_s_below_whitens_what_the_nonlinear_layer_meets():
    """Mixed heavy-tailed sources, both layers taught together: found without anybody whitening."""
    s = sources("laplace", n=10_000)
    x = s @ (mixing := torch.randn(4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).T
    x = x / x.std()
    rule = NonlinearHebb(MLP([4, 4, 4, 2], activation="linear", seed=0, device="cpu").double(), rate=1.0)
    generator, steps = torch.Generator().manual_seed(2), 1_200
    optimizer = torch.optim.SGD(rule.parameters(), lr=0.0)
    for n in range(steps):
        optimizer.param_groups[0]["lr"] = 0.2 * (1 - n / steps)
        some = torch.randint(len(x), (100,), generator=generator)
        rule.step(x[some], some % 2, optimizer)
    first, second = (w.detach() for w in rule.net.weights[:2])
    whole = second / rule.variances[0].sqrt() @ first
    assert amari(whole @ mixing) < 0.06 < 0.15 < amari(first @ mixing)
    _, axes = torch.linalg.eigh(torch.cov(x.T))
    assert cosines(first, axes.flip(1).T).diagonal().min() > 0.98
