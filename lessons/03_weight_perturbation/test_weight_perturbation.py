"""Weight perturbation and the forward gradient: right on average, where mutants are not; frozen, noisy, in training."""

import math

import pytest
import torch
from helpers import ACTIVATIONS, LOSSES, batch, clusters, flat, grads, largest_difference, mutant, small_net

import course_utils as cu
from course_utils.metrics import true_gradient
from course_utils.rules import WeightForwardGradient, WeightPerturbation, weight_perturbation

EXACT = 1e-12
MODES = ["antithetic", "one_sided"]
NOISES = ["gaussian", "rademacher"]
SIZES = {1: (7, 3), 2: (7, 5, 3), 3: (7, 6, 5, 3)}


MUTANTS = {"wrong power of σ": ("/ (2 * std)", "/ (2 * std**2)"), "σ for 2σ": ("/ (2 * std)", "/ std")}


def rules_of(net, **settings):
    std = {"antithetic": 1e-4, "one_sided": 1e-6}
    made = [WeightPerturbation(net, perturbation_std=std[mode], mode=mode, **settings) for mode in MODES]
    return [*made, WeightForwardGradient(net, **settings)]


def miss(rule, x, y, draws):
    """|mean of the draws − g| / |g|, in units of its standard deviation √((d + 1) / draws)."""
    rule.draws = draws
    estimate, truth = flat(grads(rule.double(), x, y)), flat(true_gradient(rule.net, x, y))
    return ((estimate - truth).norm() / truth.norm()).item() / math.sqrt((len(truth) + 1) / draws)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_right_on_average_for_every_activation_loss_and_noise(activation, loss, noise):
    net = small_net(SIZES[3], activation, loss)
    x, y = batch(net, targets="values")
    for rule in rules_of(net, noise=noise):
        assert miss(rule, x, y, draws=2_000) < 1.5  # a length of d numbers: its own scatter is 1/√(2d)


@pytest.mark.parametrize("depth", SIZES)
@pytest.mark.parametrize("targets", ["labels", "values"])
def test_right_on_average_at_every_depth(depth, targets):
    net = small_net(SIZES[depth])
    x, y = batch(net, targets=targets)
    for rule in rules_of(net):
        assert miss(rule, x, y, draws=4_000) < 1.5


@pytest.mark.parametrize("wrong", MUTANTS.values(), ids=MUTANTS)
def test_mutants_are_not_right_on_average(wrong):
    net = small_net()
    x, y = batch(net)
    assert miss(WeightPerturbation(net, perturbation_std=1e-2), x, y, 4_000) < 1.5
    assert miss(mutant(WeightPerturbation, *wrong)(net, perturbation_std=1e-2), x, y, 4_000) > 4


def test_noise_shared_between_weights_is_biased(monkeypatch):
    net = small_net()
    x, y = batch(net)
    drawn = weight_perturbation.random_directions

    def shared(moved, draws, noise, generator):
        one = drawn([torch.zeros((), dtype=moved[0].dtype)], draws, noise, generator)[0]
        return [one.view(-1, *[1] * p.ndim).expand(draws, *p.shape) for p in moved]

    monkeypatch.setattr(weight_perturbation, "random_directions", shared)
    assert miss(WeightForwardGradient(net), x, y, 4_000) > 4


def test_same_seed_same_directions_for_the_forward_gradient():
    net = small_net()
    x, y = batch(net)
    for noise in NOISES:
        finite = WeightPerturbation(net, 3, perturbation_std=1e-5, draws=4, noise=noise).double()
        exact = WeightForwardGradient(net, 3, draws=4, noise=noise).double()
        assert largest_difference(grads(finite, x, y), grads(exact, x, y)) < 1e-7


@pytest.mark.parametrize("rule_class", [WeightPerturbation, WeightForwardGradient])
def test_draws_in_parts_are_the_mean_of_single_draws(monkeypatch, rule_class):
    net = small_net()
    x, y = batch(net)
    monkeypatch.setattr(weight_perturbation, "AT_ONCE", 1)
    parts = grads(rule_class(net, seed=1, draws=3).double(), x, y)
    one = rule_class(net, seed=1).double()
    singles = [grads(one, x, y) for _ in range(3)]
    assert largest_difference(parts, [sum(g) / 3 for g in zip(*singles, strict=True)]) < EXACT


@pytest.mark.parametrize("rule_class", [WeightPerturbation, WeightForwardGradient])
def test_the_loss_returned_is_the_loss_before_the_step(rule_class):
    net = small_net()
    x, y = batch(net)
    loss = rule_class(net, draws=2).double().backward(x, y)
    assert loss.ndim == 0 and loss.item() == pytest.approx(net.loss(net(x), y).item(), abs=EXACT)


def test_frozen_hidden_jiggles_the_readout_alone():
    net = small_net()
    x, y = batch(net)
    truth = true_gradient(net, x, y)
    last = [net.depth - 1, 2 * net.depth - 1]
    readout = flat([truth[i] for i in last])
    for made in (WeightPerturbation(net, draws=4_000), WeightForwardGradient(net, draws=4_000)):
        found = grads(cu.FrozenHidden(made).double(), x, y)
        assert [i for i, g in enumerate(found) if g is not None] == last
        error = (flat([found[i] for i in last]) - readout).norm() / readout.norm()
        assert error < 1.5 * math.sqrt((len(readout) + 1) / 4_000)  # the hidden weights' noise is off


@pytest.mark.parametrize("rule_class", [WeightPerturbation, WeightForwardGradient])
def test_all_passes_of_a_step_meet_the_same_activity_noise(rule_class):
    net = small_net()
    x, y = batch(net)
    net.activity_noise, net.noise_seed = 0.5, 7
    noisy = torch.autograd.grad(net.loss(net(x), y), list(net.parameters()))
    estimate = flat(grads(rule_class(net, draws=4_000).double(), x, y))
    net.activity_noise = 0.0
    assert (estimate - flat(noisy)).norm() / flat(noisy).norm() < 1.5 * math.sqrt((len(estimate) + 1) / 4_000)


def test_weights_on_pixels_that_are_always_dark_walk_at_random():
    net = cu.MLP([6, 3], seed=1).double()
    x, y = batch(net, 30)
    x[:, :2] = 0
    rule, lr = WeightPerturbation(net, noise="rademacher").double(), 0.01
    start, squares = net.weights[0][:, :2].detach().clone(), 0.0
    optimizer = torch.optim.SGD(rule.parameters(), lr=lr)
    for _ in range(400):
        rule.step(x, y, optimizer)
        squares += lr**2 * net.weights[0].grad[:, :2].pow(2).sum().item()
    walked = (net.weights[0][:, :2] - start).norm().item()
    assert walked == pytest.approx(squares**0.5, rel=4 / (2 * 6) ** 0.5)  # six independent walks
    assert true_gradient(net, x, y)[0][:, :2].abs().max() == 0


@pytest.mark.parametrize(("knob", "bad"), [("perturbation_std", 0), ("draws", 0), ("draws", 1.5), ("draws", True)])
def test_the_smallest_jiggle_is_above_0_and_there_is_at_least_one_draw(knob, bad):
    with pytest.raises(ValueError, match=f"{knob} is"):
        WeightPerturbation(small_net(), **{knob: bad})


def test_the_exact_slope_has_neither_the_size_of_the_jiggle_nor_its_two_sides_as_a_knob():
    assert set(WeightForwardGradient.knobs) == {"draws", "noise"}
    with pytest.raises(TypeError, match="no knob perturbation_std"):
        WeightForwardGradient(small_net(), perturbation_std=1e-3)


def test_learning_really_happens_and_not_without_a_baseline():
    accuracy = {}
    for mode in ("antithetic", "no_baseline"):
        rule = WeightPerturbation(cu.MLP([12, 8, 4]), draws=10, mode=mode)
        data = clusters()
        cu.train(rule, data, epochs=40, lr=0.03, batch_size=32, optimizer="adam", progress=False)
        accuracy[mode] = cu.evaluate(rule, data.x_test, data.y_test)
    assert accuracy["antithetic"] > 0.9 and accuracy["no_baseline"] < 0.6


def test_knobs_act_while_training_runs():
    data = clusters()
    rule = WeightPerturbation(cu.MLP([12, 8, 4]))
    cu.train(
        rule,
        data,
        epochs=1,
        lr=1e-3,
        batch_size=32,
        progress=False,
        knobs={"draws": [(0, 1), (64, 5)], "perturbation_std": 0.01},
    )
    assert rule.draws == 5 and rule.perturbation_std == 0.01
