"""How noisy weight perturbation is: variance, cosine and the error of a finite jiggle, against their closed forms."""

import math

import pytest
import torch
from helpers import batch, flat, grads, mutant, small_net

from course_utils.metrics import true_gradient
from course_utils.rules import WeightForwardGradient, WeightPerturbation, weight_perturbation

NOISES = ["gaussian", "rademacher"]


def directions(net, draws, noise="gaussian", seed=0):
    generator = torch.Generator().manual_seed(seed)
    return weight_perturbation.random_directions([*net.weights, *net.biases], draws, noise, generator)


def each_estimate(rule, x, y, draws, noise="gaussian", seed=0):
    """(draws, d): single-draw estimates, all from one batched product."""
    psi = directions(rule.net, draws, noise, seed)
    slopes = rule.double().slopes(x, y, psi)[0].detach()
    return slopes[:, None] * torch.cat([v.flatten(1) for v in psi], 1)


@pytest.mark.parametrize("noise", NOISES)
def test_variance_is_d_plus_or_minus_one_squared_gradients(noise):
    net = small_net((4, 3, 3))
    x, y = batch(net)
    truth, n = flat(true_gradient(net, x, y)), 40_000
    expected = len(truth) + (1 if noise == "gaussian" else -1)
    pair = WeightPerturbation(net, perturbation_std=1e-4)
    one_sided = WeightPerturbation(net, perturbation_std=1e-6, mode="one_sided")
    for rule in (pair, one_sided, WeightForwardGradient(net)):
        variance = (each_estimate(rule, x, y, n, noise) - truth).pow(2).sum(1).mean() / truth.pow(2).sum()
        assert variance.item() == pytest.approx(expected, rel=0.05)
    wrong = mutant(WeightPerturbation, "/ (2 * std)", "/ std")(net, perturbation_std=1e-4)
    variance = (each_estimate(wrong, x, y, n, noise) - truth).pow(2).sum(1).mean() / truth.pow(2).sum()
    assert variance.item() != pytest.approx(expected, rel=0.3)


def test_variance_falls_as_one_over_the_draws():
    net = small_net((4, 3, 3))
    x, y = batch(net)
    rule, truth = WeightPerturbation(net, draws=10).double(), flat(true_gradient(net, x, y))
    d = len(truth)
    variance = sum((flat(grads(rule, x, y)) - truth).pow(2).sum() for _ in range(600)) / 600 / truth.pow(2).sum()
    assert variance.item() == pytest.approx((d + 1) / 10, rel=4 * math.sqrt(2 * 3 / 600 / 10 + 2 / 600 / d))


def gamma_ratio(d):
    return math.exp(math.lgamma(d / 2) - math.lgamma((d + 1) / 2)) / math.sqrt(math.pi)


@pytest.mark.parametrize("sizes", [(4, 3, 3), (9, 7, 4)])
def test_cosine_of_one_draw_is_a_ratio_of_gamma_functions(sizes):
    net = small_net(sizes)
    x, y = batch(net)
    truth, n = flat(true_gradient(net, x, y)), 20_000
    cosines = torch.cosine_similarity(each_estimate(WeightForwardGradient(net), x, y, n), truth[None])
    assert (cosines > 0).all()  # every single draw points downhill
    assert cosines.mean().item() == pytest.approx(gamma_ratio(len(truth)), rel=0.02)
    assert cosines.pow(2).mean().item() == pytest.approx(1 / len(truth), rel=0.05)


@pytest.mark.parametrize("draws", [16, 64, 256])
def test_root_mean_square_cosine_of_many_draws(draws):
    net = small_net((9, 7, 4))
    x, y = batch(net)
    truth, repeats = flat(true_gradient(net, x, y)), 20_000 // draws
    singles = each_estimate(WeightForwardGradient(net), x, y, draws * repeats, seed=3)
    estimates = singles.view(repeats, draws, -1).mean(1)
    rms = torch.cosine_similarity(estimates, truth[None]).pow(2).mean().sqrt().item()
    theory = 1 / math.sqrt(1 + (len(truth) + 1) / draws)
    assert rms == pytest.approx(theory, rel=0.03)


def quadratic():
    net = small_net((5, 5), "linear", "squared_error")
    x, y = batch(net, 20, targets="values")
    inputs = torch.cat([x, torch.ones(20, 1, dtype=x.dtype)], 1)
    block = inputs.T @ inputs / 20
    hessian = torch.block_diag(*[block] * 5)  # of the rows of [W, b]
    g = true_gradient(net, x, y)
    rows = torch.cat([g[0], g[1][:, None]], 1).flatten()
    return net, x, y, hessian, rows


def variance_on_quadratic(mode, std):
    net, x, y, hessian, g = quadratic()
    d, loss, g2 = len(g), net.loss(net(x), y).item(), g @ g
    curved = std**2 / 4 * (d + 4) * (hessian.trace() ** 2 + 2 * (hessian @ hessian).trace()) / g2
    theory = {
        "antithetic": d + 1,
        "one_sided": d + 1 + curved,
        "no_baseline": d + 1 + curved + (d * loss**2 / std**2 + (d + 2) * loss * hessian.trace()) / g2,
    }[mode]
    rule = WeightPerturbation(net, perturbation_std=std, mode=mode)
    with torch.no_grad():
        estimates = each_estimate(rule, x, y, 20_000)
    truth = flat(true_gradient(net, x, y))
    return ((estimates - truth).pow(2).sum(1).mean() / g2).item(), float(theory)


@pytest.mark.parametrize("std", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("mode", ["antithetic", "one_sided", "no_baseline"])
def test_variance_on_a_quadratic_in_closed_form(mode, std):
    measured, theory = variance_on_quadratic(mode, std)
    assert measured == pytest.approx(theory, rel=0.08)


def test_antithetic_variance_does_not_depend_on_the_jiggle_and_the_others_do():
    def spread(mode):
        measured = [variance_on_quadratic(mode, std)[0] for std in (0.01, 1.0)]
        return max(measured) / min(measured)

    assert spread("antithetic") == pytest.approx(1, abs=1e-9)
    assert spread("one_sided") > 3
    assert spread("no_baseline") > 30  # the forgotten baseline


def test_mean_change_of_the_loss_after_one_step():
    net, x, y, hessian, g = quadratic()
    truth, eta, draws = flat(true_gradient(net, x, y)), 0.02, 3
    order = torch.cat([torch.cat([torch.arange(i * 6, i * 6 + 5) for i in range(5)]), torch.arange(5) * 6 + 5])
    hessian = hessian[order][:, order]  # to weights, then biases
    assert torch.allclose(g[order], truth)
    steps = eta * each_estimate(WeightPerturbation(net), x, y, 60_000).view(-1, draws, len(truth)).mean(1)
    change = -steps @ truth + 0.5 * torch.einsum("ni,ij,nj->n", steps, hessian, steps)
    g2, curved = truth @ truth, truth @ hessian @ truth
    theory = -eta * g2 + eta**2 / (2 * draws) * (g2 * hessian.trace() + (draws + 1) * curved)
    assert abs(change.mean() - theory) < 4 * change.std() / len(change) ** 0.5


def slope_error(mode, std):
    net = small_net()
    x, y = batch(net)
    psi = directions(net, 200)
    exact = WeightForwardGradient(net).double().slopes(x, y, psi)[0].detach()
    with torch.no_grad():
        slopes = WeightPerturbation(net, perturbation_std=std, mode=mode).double().slopes(x, y, psi)[0]
    return (slopes - exact).norm().item() / exact.norm().item()


def test_error_of_the_slope_grows_with_the_square_of_the_jiggle_or_with_the_jiggle():
    assert slope_error("antithetic", 1e-2) / slope_error("antithetic", 1e-3) == pytest.approx(100, rel=0.05)
    assert slope_error("one_sided", 1e-2) / slope_error("one_sided", 1e-3) == pytest.approx(10, rel=0.05)
    assert slope_error("antithetic", 1e-12) > 10 * slope_error("antithetic", 1e-5)  # rounding
    assert slope_error("no_baseline", 1e-3) > 1


def test_data_noise_is_multiplied_by_the_jiggle():
    net = small_net((4, 3, 3))
    x, y = batch(net, 60)
    truth = flat(true_gradient(net, x, y))
    singles = torch.stack([flat(true_gradient(net, x[i : i + 1], y[i : i + 1])) for i in range(60)])
    v = ((singles - truth).pow(2).sum(1).mean() / truth.pow(2).sum()).item()
    draws = torch.cat(
        [each_estimate(WeightPerturbation(net), x[i : i + 1], y[i : i + 1], 600, "rademacher", i) for i in range(60)]
    )
    measured = ((draws - truth).pow(2).sum(1).mean() / truth.pow(2).sum()).item()
    assert measured == pytest.approx((1 + v) * (len(truth) - 1) + v, rel=0.06)
    assert measured > 1.5 * (len(truth) - 1 + v)


@pytest.mark.parametrize("noise", NOISES)
def test_directions_have_mean_zero_variance_one_and_know_nothing_of_each_other(noise):
    net = small_net()
    psi = torch.cat([v.flatten(1) for v in directions(net, 20_000, noise)], 1)
    assert psi.mean(0).abs().max() < 5 / 20_000**0.5
    covariance = psi.T @ psi / len(psi)
    assert (covariance - torch.eye(len(covariance))).abs().max() < 5 * 2**0.5 / 20_000**0.5
    assert noise == "gaussian" or set(psi.unique().tolist()) == {-1.0, 1.0}
