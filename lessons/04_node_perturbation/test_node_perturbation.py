"""How good the estimates of node perturbation are: mean and variance are those of theory, and mutants' are not."""

import math
from collections import namedtuple

import pytest
import torch
from helpers import ACTIVATIONS, LOSSES, batch, grads, largest_difference, mutant, small_net

from course_utils.metrics import cosine, true_gradient
from course_utils.rules import ActivityForwardGradient, NodePerturbation
from course_utils.rules import node_perturbation as module

EXACT = 1e-12
Spread = namedtuple("Spread", "variance variance_se projection projection_se bias")
RULES = [NodePerturbation, ActivityForwardGradient]


SLOPE = "(up - down) / (2 * std)"
MUTANTS = {
    "no baseline": mutant(NodePerturbation, SLOPE, "up / std"),
    "summed loss": mutant(NodePerturbation, SLOPE, f"({SLOPE}).sum(1, keepdim=True).expand_as(up)"),
    "divided by σ": mutant(NodePerturbation, SLOPE, "(up - down) / 2"),
    "divided by σ³": mutant(NodePerturbation, SLOPE, "(up - down) / (2 * std**2)"),
    "sign": mutant(NodePerturbation, SLOPE, "(down - up) / (2 * std)"),
}


class SharedNoiseAndLoss(NodePerturbation):
    """The first example's noise for all examples, and the mean of their losses."""

    def slope(self, y, first, h, loss, noise):
        for xi in noise:
            xi.copy_(xi[:, :1].clone().expand_as(xi))
        return super().slope(y, first, h, loss, noise).mean(1, keepdim=True).expand(-1, len(y))


def predicted_variance(net, x, y, perturb_inactive=True):
    """Var_l of one try (weights and biases) and ‖gradient‖², a pair a layer, from autograd's δ alone."""
    zeros = [torch.zeros(len(x), n, dtype=x.dtype, requires_grad=True) for n in net.sizes[1:]]
    h = net.activations(x, edit=lambda l, a: a + zeros[l])
    delta = torch.autograd.grad(net.loss(h[-1], y, "none").sum(), zeros)
    everyone = sum(d.pow(2).sum(1) for d in delta)
    found = []
    for l, d in enumerate(delta):
        active = (net.derivative(h[l + 1]) != 0).sum(1) if l < net.depth - 1 else d.shape[1]
        shaken = d.shape[1] if perturb_inactive else active
        own = d.pow(2).sum(1)
        # (q + 1)‖δ_l‖² + q Σ_{k≠l} ‖δ_k‖², as the lesson's equation (6) has it
        terms = (h[l].pow(2).sum(1) + 1) * ((shaken + 1) * own + shaken * (everyone - own))
        gradient = (d.T @ h[l] / len(x)).pow(2).sum() + d.mean(0).pow(2).sum()
        found.append((terms.sum().item() / len(x) ** 2, gradient.item()))
    return found


@torch.no_grad()
def estimates(rule, x, y, draws):
    """Single draws of a layer's estimate, (draws, units, inputs + 1) each, the bias as one more input."""
    net = rule.net
    first = torch.nn.functional.linear(x, net.weights[0], net.biases[0])
    h = net.activations(x)
    noise = module.draw_noise(rule, h, draws)
    slope = rule.slope(y, first, h, net.loss(h[-1], y, "none"), noise)
    arriving = [torch.cat([a, torch.ones(len(a), 1, dtype=a.dtype)], 1) for a in h[:-1]]
    pairs = zip(noise, arriving, strict=True)
    return [torch.einsum("kn,knq,np->kqp", slope, xi, a) / len(x) for xi, a in pairs]


@torch.no_grad()
def spread(rule, x, y, draws=4000):
    """Of each layer, relative to the gradient: variance and its error, projection and its error, bias."""
    truth, depth, found = true_gradient(rule.net, x, y), rule.net.depth, []
    for l, each in enumerate(estimates(rule, x, y, draws)):
        g = torch.cat([truth[l], truth[depth + l][:, None]], 1)
        squares = (each - g).pow(2).sum((1, 2)) / g.pow(2).sum()
        along = (each * g).sum((1, 2)) / g.pow(2).sum()
        bias = (each.mean(0) - g).norm() / g.norm()
        values = squares.mean(), squares.std() / draws**0.5, along.mean(), along.std() / draws**0.5, bias
        found.append(Spread(*(v.item() for v in values)))
    return found


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("rule_class", RULES)
def test_unbiased_with_the_variance_of_theory(rule_class, activation, loss):
    net = small_net((7, 6, 5, 3), activation, loss)
    x, y = batch(net)
    table = spread(rule_class(net, perturb_inactive=True), x, y)
    for row, (variance, gradient) in zip(table, predicted_variance(net, x, y), strict=True):
        assert row.variance == pytest.approx(variance / gradient, abs=5 * row.variance_se)
        assert row.projection == pytest.approx(1, abs=5 * row.projection_se)
        assert row.bias < 5 * math.sqrt(row.variance / 4000)


@pytest.mark.parametrize("sizes", [(9, 4, 3), (9, 16, 3), (9, 5, 5, 5, 3)])
def test_variance_over_width_and_depth_within_five_per_cent(sizes):
    net = small_net(sizes)
    x, y = batch(net, n=16)
    table = spread(ActivityForwardGradient(net, perturb_inactive=True), x, y, draws=10_000)
    theory = [variance / gradient for variance, gradient in predicted_variance(net, x, y)]
    assert [row.variance for row in table] == pytest.approx(theory, rel=0.05)


@pytest.mark.parametrize("wrong", [*MUTANTS.values(), SharedNoiseAndLoss], ids=[*MUTANTS, "shared noise, shared loss"])
def test_mutants_are_biased_or_noisier_than_theory(wrong):
    def off(rule_class):
        net = small_net((7, 6, 3))
        x, y = batch(net)
        table = spread(rule_class(net, perturbation_std=1e-2), x, y)
        theory = [variance / gradient for variance, gradient in predicted_variance(net, x, y)]
        by_variance = max(abs(row.variance / v - 1) for row, v in zip(table, theory, strict=True))
        by_mean = max(row.bias / math.sqrt(v / 4000) for row, v in zip(table, theory, strict=True))
        return by_variance > 0.5 or by_mean > 5

    assert not off(NodePerturbation)
    assert off(wrong)


@pytest.mark.parametrize("rule_class", RULES)
def test_silent_units_have_gradient_zero_and_their_share_of_the_variance_is_gone(rule_class):
    net = small_net((7, 12, 10, 3), "relu")
    x, y = batch(net, n=3)
    with torch.no_grad():
        net.biases[0][:4] = -50.0  # four units that never speak
    for tried in (True, False):
        rule = rule_class(net, perturb_inactive=tried)
        estimate = grads(rule.double(), x, y)
        assert (estimate[0][:4] == 0).all() == (not tried)
        assert (estimate[0][4:] != 0).any()
        table = spread(rule, x, y)
        theory = [variance / gradient for variance, gradient in predicted_variance(net, x, y, tried)]
        assert [row.variance for row in table] == pytest.approx(theory, rel=0.1)
    with_all, without = (predicted_variance(net, x, y, tried)[0][0] for tried in (True, False))
    assert without < 0.8 * with_all


@pytest.mark.parametrize("rule_class", RULES)
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_the_update_is_the_mean_of_the_single_draws(rule_class, activation):
    net = small_net(activation=activation)
    x, y = batch(net)
    together = grads(rule_class(net, seed=2, draws=9).double(), x, y)
    one_by_one = [each.mean(0) for each in estimates(rule_class(net, seed=2), x, y, 9)]
    ours = [torch.cat([together[l], together[net.depth + l][:, None]], 1) for l in range(net.depth)]
    assert largest_difference(ours, one_by_one) < (1e-9 if rule_class is NodePerturbation else EXACT)


def test_the_cosine_of_many_draws_is_the_closed_form():
    net = small_net((9, 8, 4))
    x, y = batch(net)
    variance, gradient = predicted_variance(net, x, y)[0]
    each = estimates(ActivityForwardGradient(net), x, y, 12_800)[0].flatten(1)
    truth = torch.cat([true_gradient(net, x, y)[0], true_gradient(net, x, y)[2][:, None]], 1).flatten()
    for draws in (4, 16, 64):
        means = each.view(-1, draws, each.shape[1]).mean(1)
        assert means.var(0).sum().item() == pytest.approx(variance / draws, rel=0.1)
        typical = (means @ truth).mean() / (means.pow(2).sum(1).mean().sqrt() * truth.norm())
        assert typical.item() == pytest.approx(1 / math.sqrt(1 + variance / gradient / draws), rel=0.04)


def test_units_beat_weights_by_the_number_of_inputs_in_one_layer():
    net = small_net((40, 5), loss="squared_error")
    x, y = batch(net, n=1, targets="values")
    p, q = 41, 5  # the bias is one more input
    units = spread(ActivityForwardGradient(net), x, y)[0].variance
    g = torch.cat([t.flatten() for t in true_gradient(net, x, y)])
    psi = torch.randn(4000, len(g), generator=torch.Generator().manual_seed(0), dtype=g.dtype)
    weights = ((psi @ g)[:, None] * psi - g).pow(2).sum(1).mean() / g.pow(2).sum()
    assert units == pytest.approx(q + 1, rel=0.1)
    assert weights.item() == pytest.approx(p * q + 1, rel=0.1)
    assert weights.item() / units == pytest.approx((p * q + 1) / (q + 1), rel=0.15)


def test_noise_and_loss_shared_by_the_batch_give_the_product_of_the_means():
    net = small_net((9, 6), loss="squared_error")
    x, y = batch(net, n=5, targets="values")
    delta = (net(x) - y).detach()
    means, truth = torch.outer(delta.mean(0), x.mean(0)), true_gradient(net, x, y)[0]
    wrong = grads(SharedNoiseAndLoss(net, draws=20_000).double(), x, y)[0]
    right = grads(NodePerturbation(net, draws=20_000).double(), x, y)[0]
    assert cosine(wrong.flatten(), means.flatten()) > 0.999
    assert cosine(wrong.flatten(), truth.flatten()) < 0.9 < cosine(right.flatten(), truth.flatten())
    singular = torch.linalg.svdvals(wrong)
    assert singular[1] < 1e-9 * singular[0]
