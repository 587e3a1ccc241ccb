"""The science of weight perturbation and the forward gradient. Each fact is one that a wrong rule must fail."""

import math

import pytest
import torch
from helpers import ACTIVATIONS, LOSSES, batch, clusters, grads, largest_difference, small_net

import course_utils as cu
from course_utils.metrics import cosine, true_gradient
from course_utils.rules import WeightForwardGradient, WeightPerturbation, weight_perturbation

EXACT = 1e-12
MODES = ["antithetic", "one_sided"]
NOISES = ["gaussian", "rademacher"]
SIZES = {1: (7, 3), 2: (7, 5, 3), 3: (7, 6, 5, 3)}


class Mutant(WeightPerturbation):
    """Weight perturbation with one thing wrong."""

    wrong = ""

    def slopes(self, x, y, psi):
        slopes, loss = super().slopes(x, y, psi)
        return slopes / {"wrong power of σ": self.perturbation_std, "σ for 2σ": 0.5}.get(self.wrong, 1.0), loss


def mutant(name):
    return type(f"Mutant_{name}", (Mutant,), {"wrong": name})


def flat(tensors):
    return torch.cat([t.flatten() for t in tensors])


def parameters(net):
    return [*net.weights, *net.biases]


def directions(net, draws, noise="gaussian", seed=0):
    return weight_perturbation.random_directions(parameters(net), draws, noise, torch.Generator().manual_seed(seed))


def each_estimate(rule, x, y, draws, noise="gaussian", seed=0):
    """(draws, d): single-draw estimates, all from one batched product."""
    psi = directions(rule.net, draws, noise, seed)
    slopes = rule.double().slopes(x, y, psi)[0].detach()
    return slopes[:, None] * torch.cat([v.flatten(1) for v in psi], 1)


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


@pytest.mark.parametrize("wrong", ["wrong power of σ", "σ for 2σ"])
def test_mutants_are_not_right_on_average(wrong):
    net = small_net()
    x, y = batch(net)
    assert miss(mutant("")(net, perturbation_std=1e-2), x, y, 4_000) < 1.5
    assert miss(mutant(wrong)(net, perturbation_std=1e-2), x, y, 4_000) > 4


def test_noise_shared_between_weights_is_biased(monkeypatch):
    net = small_net()
    x, y = batch(net)
    drawn = weight_perturbation.random_directions

    def shared(moved, draws, noise, generator):
        one = drawn([torch.zeros((), dtype=moved[0].dtype)], draws, noise, generator)[0]
        return [one.view(-1, *[1] * p.ndim).expand(draws, *p.shape) for p in moved]

    monkeypatch.setattr(weight_perturbation, "random_directions", shared)
    assert miss(WeightForwardGradient(net), x, y, 4_000) > 4


@pytest.mark.parametrize("noise", NOISES)
def test_variance_is_d_plus_or_minus_one_squared_gradients(noise):
    net = small_net((4, 3, 3))
    x, y = batch(net)
    truth, n = flat(true_gradient(net, x, y)), 40_000
    expected = len(truth) + (1 if noise == "gaussian" else -1)
    for rule in rules_of(net):
        variance = (each_estimate(rule, x, y, n, noise) - truth).pow(2).sum(1).mean() / truth.pow(2).sum()
        assert variance.item() == pytest.approx(expected, rel=0.05)
    wrong = mutant("σ for 2σ")(net, perturbation_std=1e-4)
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


def test_same_seed_same_directions_for_the_forward_gradient():
    net = small_net()
    x, y = batch(net)
    for noise in NOISES:
        finite = grads(WeightPerturbation(net, 3, 1e-5, draws=4, noise=noise).double(), x, y)
        assert largest_difference(finite, grads(WeightForwardGradient(net, 3, 4, noise).double(), x, y)) < 1e-7


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


@pytest.mark.parametrize(
    "settings",
    [
        {"perturbation_std": 0},
        {"perturbation_std": -1e-3},
        {"perturbation_std": float("nan")},
        {"draws": 0},
        {"draws": 1.5},
        {"mode": "two_sided"},
        {"noise": "uniform"},
    ],
)
def test_bad_settings_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        WeightPerturbation(small_net(), **settings)


def test_bad_input_is_refused():
    net = small_net()
    x, y = batch(net)
    for rule in (WeightPerturbation(net), WeightForwardGradient(net)):
        for wrong in ((x[:, 1:], y), (x[:0], y[:0]), (x, y + 9), (x * math.nan, y), (x, y[1:])):
            with pytest.raises(ValueError):
                rule.double().backward(*wrong)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("rule_class", [WeightPerturbation, WeightForwardGradient])
def test_training_is_deterministic_bit_for_bit(rule_class, noise):
    def run(seed):
        rule = rule_class(cu.MLP([12, 8, 4], seed=seed), seed=seed, draws=3, noise=noise)
        cu.train(rule, clusters(), epochs=2, lr=0.01, batch_size=32, seed=seed, progress=False)
        return rule

    one, again, other = (run(seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["net.weights.0"], other["net.weights.0"])
    fresh = rule_class(cu.MLP([12, 8, 4], seed=5))
    fresh.load_state_dict(one)
    assert torch.equal(fresh.net.weights[0], one["net.weights.0"])


def test_learning_really_happens_and_not_without_a_baseline():
    accuracy = {}
    for mode in ("antithetic", "no_baseline"):
        rule = WeightPerturbation(cu.MLP([12, 8, 4]), draws=10, mode=mode)
        data = clusters()
        cu.train(rule, data, epochs=40, lr=0.03, batch_size=32, optimizer="adam", progress=False)
        accuracy[mode] = cu.evaluate(rule, data.x_test, data.y_test)
    assert accuracy["antithetic"] > 0.9 and accuracy["no_baseline"] < 0.6


def test_shuffled_labels_teach_nothing_about_the_test_set():
    from dataclasses import replace

    data = clusters(n_val=400)
    order = torch.randperm(len(data.y_train), generator=torch.Generator().manual_seed(0))
    rule = WeightPerturbation(cu.MLP([12, 8, 4]), draws=10)
    cu.train(rule, replace(data, y_train=data.y_train[order]), epochs=20, lr=0.03, optimizer="adam", progress=False)
    chance, n = 0.25, len(data.y_test)
    assert cu.evaluate(rule, data.x_test, data.y_test) < chance + 6 * (chance * (1 - chance) / n) ** 0.5


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
    assert cosine(torch.ones(2), torch.ones(2)) == pytest.approx(1)
