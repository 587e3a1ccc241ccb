"""Node perturbation's passes: their limit for small noise, which of them share what, and what mutants tend to."""

import math

import pytest
import torch
from helpers import ACTIVATIONS, batch, clusters, grads, largest_difference, mutant, small_net

import course_utils as cu
from course_utils.metrics import alignment_angle, true_gradient
from course_utils.rules import ActivityForwardGradient, NodePerturbation
from course_utils.rules import node_perturbation as module

EXACT = 1e-12
RULES = [NodePerturbation, ActivityForwardGradient]


@pytest.mark.parametrize("draws", [1, 7])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_tangent_pass_is_torch_s_jvp(activation, draws):
    net = small_net((7, 6, 5, 3), activation)
    x, y = batch(net)
    rule = ActivityForwardGradient(net, seed=4, draws=draws, perturb_inactive=True).double()
    with torch.no_grad():
        h = net.activations(x)
        noise = module.draw_noise(rule, h, draws)
        ours = rule.slope(y, None, h, None, noise)

    def loss_under(*shift):
        return net.loss(net.activations(x, edit=lambda l, a: a + shift[l])[-1], y, "none")

    zeros = tuple(torch.zeros_like(a) for a in h[1:])
    for k in range(draws):
        _, slope = torch.func.jvp(loss_under, zeros, tuple(xi[k] for xi in noise))
        assert torch.allclose(ours[k], slope, rtol=0, atol=EXACT)


def distance_to_limit(std, mode, rule_class=NodePerturbation):
    net = small_net()
    x, y = batch(net)
    finite = rule_class(net, 3, perturbation_std=std, draws=5, mode=mode).double()
    limit = ActivityForwardGradient(net, 3, draws=5).double()
    return largest_difference(grads(finite, x, y), grads(limit, x, y))


@pytest.mark.parametrize(("mode", "order"), [("one_sided", 1), ("antithetic", 2)])
def test_the_limit_of_small_noise_is_the_forward_gradient(mode, order):
    errors = [distance_to_limit(std, mode) for std in (4e-3, 2e-3, 1e-3)]
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(2**order, rel=0.1)


@pytest.mark.parametrize("wrong", ["up / std", "(up - down) / 2", "(up - down) / (2 * std**2)"])
def test_mutants_have_another_limit(wrong):
    wrong_rule = mutant(NodePerturbation, "(up - down) / (2 * std)", wrong)
    errors = [distance_to_limit(std, "antithetic", wrong_rule) for std in (2e-3, 1e-3)]
    assert errors[1] > 0.9 * errors[0]


def test_on_a_quadratic_opposite_tries_are_the_limit_at_every_std():
    net = small_net((7, 5, 3), "linear", "squared_error")
    x, y = batch(net, targets="values")
    limit = grads(ActivityForwardGradient(net, 3).double(), x, y)
    for std in (0.01, 1.0, 30.0):
        finite = grads(NodePerturbation(net, 3, perturbation_std=std).double(), x, y)
        assert largest_difference(finite, limit) < 1e-9 / std
        one_sided = grads(NodePerturbation(net, 3, perturbation_std=std, mode="one_sided").double(), x, y)
        assert largest_difference(one_sided, limit) > 0.1 * std


def test_noise_after_f_lacks_the_derivative_and_nothing_else():
    net = small_net((7, 6, 3))
    x, y = batch(net, n=3)
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        h = net.activations(x)[1]
        message = net.output_error(net(x), y) @ net.weights[1]
        xi = torch.randn(40_000, *h.shape, generator=g, dtype=h.dtype)

        def loss(sign):
            out = (h + sign * 1e-4 * xi).flatten(0, 1) @ net.weights[1].T + net.biases[1]
            return net.loss(out, y.repeat(len(xi)), "none").view(len(xi), -1)

        estimate = ((loss(1) - loss(-1)) / 2e-4).unsqueeze(2).mul(xi).mean(0)
    assert torch.allclose(estimate, message, atol=5 * (message.norm(dim=1).max().item() ** 2 * 2 / 40_000) ** 0.5)
    assert alignment_angle((estimate * net.derivative(h)).T @ x, true_gradient(net, x, y)[0] * 3) < 3


def test_portions_change_the_draws_but_not_what_they_estimate(monkeypatch):
    assert module.portions(10, module.NUMBERS // 4) == [4, 4, 2]
    assert module.portions(3, 10 * module.NUMBERS) == [1, 1, 1]
    net = small_net()
    x, y = batch(net)
    whole = grads(NodePerturbation(net, draws=5000).double(), x, y)
    monkeypatch.setattr(module, "NUMBERS", 14 * 4 * 100)
    parts = grads(NodePerturbation(net, draws=5000).double(), x, y)
    truth = true_gradient(net, x, y)
    assert not torch.equal(whole[0], parts[0])
    assert alignment_angle(whole, truth) < 10 and alignment_angle(parts, truth) < 10


@pytest.mark.parametrize("rule_class", RULES)
def test_the_loss_returned_is_the_clean_one(rule_class):
    net = small_net()
    x, y = batch(net)
    assert torch.allclose(rule_class(net, draws=5).double().backward(x, y), net.loss(net(x), y))


@pytest.mark.parametrize("rule_class", RULES)
def test_the_estimate_from_a_batch_given_twice_is_as_long_as_the_gradient(rule_class):
    net = small_net()
    x, y = batch(net)
    twice = grads(rule_class(net, draws=4000).double(), torch.cat([x, x]), torch.cat([y, y]))
    truth = true_gradient(net, x, y)
    assert alignment_angle(twice, truth) < 10
    ratio = torch.cat([g.flatten() for g in twice]).norm() / torch.cat([g.flatten() for g in truth]).norm()
    assert ratio.item() == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("rule_class", RULES)
@pytest.mark.parametrize("targets", ["labels", "values"])
def test_frozen_hidden_layers_are_neither_taught_nor_shaken(rule_class, targets):
    net = small_net()
    x, y = batch(net, targets=targets)
    frozen = cu.FrozenHidden(rule_class(net, draws=2000)).double()
    found = grads(frozen, x, y)
    assert [g is None for g in found] == [True, True, False, True, True, False]
    # without hidden noise the last layer's variance has no cross terms: (q + 1)‖δ‖² alone
    h, e = net.activations(x), net.output_error(net(x), y).detach()
    theory = ((h[-2].pow(2).sum(1) + 1) * 4 * e.pow(2).sum(1)).sum().item() / len(x) ** 2
    rule, total = rule_class(net), 0.0
    rule.perturb_hidden = False
    truth = true_gradient(net, x, y)
    for _ in range(1000):
        found = grads(rule, x, y)
        total += (found[2] - truth[2]).pow(2).sum().item() + (found[5] - truth[5]).pow(2).sum().item()
    assert total / 1000 == pytest.approx(theory, rel=0.15)


@pytest.mark.parametrize("rule_class", RULES)
def test_activity_noise_is_the_same_in_all_passes(rule_class):
    net = small_net((7, 6, 5, 3))
    x, y = batch(net)
    net.activity_noise, net.noise_seed = 0.7, 5
    found = grads(rule_class(net, draws=20_000).double(), x, y)
    loss = net.loss(net(x), y)  # the same activity noise: it hangs on noise_seed
    truth = torch.autograd.grad(loss, list(net.parameters()))
    assert alignment_angle(found, truth) < 6
    net.activity_noise = 0.0
    assert alignment_angle(truth, true_gradient(net, x, y)) > 6


def test_many_draws_in_one_pass_are_the_passes_one_by_one():
    net = small_net((7, 6, 5, 3))
    x, y = batch(net)
    noise = [torch.randn(3, len(x), n, dtype=x.dtype) for n in net.sizes[1:]]
    first = torch.nn.functional.linear(x, net.weights[0], net.biases[0])
    together = module.losses(net, y, first, noise)
    assert together.shape == (3, len(x))
    for k in range(3):
        alone = net.activations(x, edit=lambda l, a, k=k: a + noise[l][k])[-1]
        assert torch.allclose(together[k], net.loss(alone, y, "none"))


@pytest.mark.parametrize(
    ("knob", "bad"), [("perturbation_std", 0.0), ("perturbation_std", math.inf), ("draws", 0), ("draws", True)]
)
def test_the_smallest_shake_is_above_0_and_there_is_at_least_one_try(knob, bad):
    with pytest.raises(ValueError, match=f"{knob} is"):
        NodePerturbation(small_net(), **{knob: bad})


def test_the_std_moves_while_training_runs():
    data = clusters()
    final = []
    for knobs in (None, {"perturbation_std": 1e-3}, {"perturbation_std": [(0, 1e-3), (100, 3.0)]}):
        rule = NodePerturbation(cu.MLP([12, 9, 4], activation="tanh"))
        cu.train(rule, data, epochs=1, lr=0.02, batch_size=16, knobs=knobs, progress=False)
        final.append(rule.net.weights[0].detach())
    assert torch.equal(final[0], final[1]) and not torch.equal(final[1], final[2])
    assert rule.perturbation_std == 3.0
