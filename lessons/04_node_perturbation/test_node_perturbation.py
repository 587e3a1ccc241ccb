"""The science of NodePerturbation and ActivityForwardGradient. Each fact is a function that a wrong rule must fail."""

import math
from collections import namedtuple

import pytest
import torch
from helpers import ACTIVATIONS, LOSSES, batch, clusters, grads, largest_difference, small_net

import course_utils as cu
from course_utils.metrics import alignment_angle, cosine, true_gradient
from course_utils.rules import ActivityForwardGradient, NodePerturbation
from course_utils.rules import node_perturbation as module

EXACT = 1e-12
Spread = namedtuple("Spread", "variance variance_se projection projection_se bias")
RULES = [NodePerturbation, ActivityForwardGradient]


class Mutant(NodePerturbation):
    """Node perturbation with one thing wrong."""

    wrong = ""

    def slope(self, x, y, first, h, loss, noise):
        if self.wrong == "shared noise, shared loss":
            for xi in noise:
                xi.copy_(xi[:, :1].clone().expand_as(xi))
        std = self.perturbation_std
        if self.wrong == "no baseline":
            return module.losses(self.net, x, y, first, [std * xi for xi in noise]) / std
        slope = super().slope(x, y, first, h, loss, noise)
        if self.wrong == "shared noise, shared loss":
            return slope.mean(1, keepdim=True).expand_as(slope)
        if self.wrong == "summed loss":
            return slope.sum(1, keepdim=True).expand_as(slope)
        return slope * {"divided by σ": std, "divided by σ³": 1 / std, "sign": -1}.get(self.wrong, 1)


def mutant(name):
    return type(f"Mutant_{name}", (Mutant,), {"wrong": name})


def predicted_variance(net, x, y, perturb_inactive=True):
    """Var_l of one try (weights and biases) and ‖gradient‖², a pair a layer, from autograd's δ alone."""
    zeros = [torch.zeros(len(x), n, dtype=x.dtype, requires_grad=True) for n in net.sizes[1:]]
    h = net.activations(x, noise=zeros)
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
    slope = rule.slope(x, y, first, h, net.loss(h[-1], y, "none"), noise)
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


@pytest.mark.parametrize(
    "wrong", ["no baseline", "shared noise, shared loss", "summed loss", "divided by σ", "divided by σ³", "sign"]
)
def test_mutants_are_biased_or_noisier_than_theory(wrong):
    def off(rule_class):
        net = small_net((7, 6, 3))
        x, y = batch(net)
        table = spread(rule_class(net, perturbation_std=1e-2), x, y)
        theory = [variance / gradient for variance, gradient in predicted_variance(net, x, y)]
        by_variance = max(abs(row.variance / v - 1) for row, v in zip(table, theory, strict=True))
        by_mean = max(row.bias / math.sqrt(v / 4000) for row, v in zip(table, theory, strict=True))
        return by_variance > 0.5 or by_mean > 5

    assert not off(mutant(""))
    assert off(mutant(wrong))


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


@pytest.mark.parametrize("draws", [1, 7])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_tangent_pass_is_torch_s_jvp(activation, draws):
    net = small_net((7, 6, 5, 3), activation)
    x, y = batch(net)
    rule = ActivityForwardGradient(net, seed=4, draws=draws, perturb_inactive=True).double()
    with torch.no_grad():
        h = net.activations(x)
        noise = module.draw_noise(rule, h, draws)
        ours = rule.slope(x, y, None, h, None, noise)

    def loss_under(*shift):
        return net.loss(net.activations(x, noise=list(shift))[-1], y, "none")

    zeros = tuple(torch.zeros_like(a) for a in h[1:])
    for k in range(draws):
        _, slope = torch.func.jvp(loss_under, zeros, tuple(xi[k] for xi in noise))
        assert torch.allclose(ours[k], slope, rtol=0, atol=EXACT)


def distance_to_limit(std, mode, rule_class=NodePerturbation):
    net = small_net()
    x, y = batch(net)
    finite = rule_class(net, 3, std, draws=5, mode=mode).double()
    limit = ActivityForwardGradient(net, 3, draws=5).double()
    return largest_difference(grads(finite, x, y), grads(limit, x, y))


@pytest.mark.parametrize(("mode", "order"), [("one_sided", 1), ("antithetic", 2)])
def test_the_limit_of_small_noise_is_the_forward_gradient(mode, order):
    errors = [distance_to_limit(std, mode) for std in (4e-3, 2e-3, 1e-3)]
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(2**order, rel=0.1)


@pytest.mark.parametrize("wrong", ["no baseline", "divided by σ", "divided by σ³"])
def test_mutants_have_another_limit(wrong):
    errors = [distance_to_limit(std, "antithetic", mutant(wrong)) for std in (2e-3, 1e-3)]
    assert errors[1] > 0.9 * errors[0]


def test_on_a_quadratic_opposite_tries_are_the_limit_at_every_std():
    net = small_net((7, 5, 3), "linear", "squared_error")
    x, y = batch(net, targets="values")
    limit = grads(ActivityForwardGradient(net, 3).double(), x, y)
    for std in (0.01, 1.0, 30.0):
        finite = grads(NodePerturbation(net, 3, std).double(), x, y)
        assert largest_difference(finite, limit) < 1e-9 / std
        one_sided = grads(NodePerturbation(net, 3, std, mode="one_sided").double(), x, y)
        assert largest_difference(one_sided, limit) > 0.1 * std


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
    wrong = grads(mutant("shared noise, shared loss")(net, draws=20_000).double(), x, y)[0]
    right = grads(mutant("")(net, draws=20_000).double(), x, y)[0]
    assert cosine(wrong.flatten(), means.flatten()) > 0.999
    assert cosine(wrong.flatten(), truth.flatten()) < 0.9 < cosine(right.flatten(), truth.flatten())
    singular = torch.linalg.svdvals(wrong)
    assert singular[1] < 1e-9 * singular[0]


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
def test_the_loss_returned_is_the_clean_one_and_gradients_are_batch_means(rule_class):
    net = small_net()
    x, y = batch(net)
    rule = rule_class(net, draws=4000).double()
    assert torch.allclose(rule.backward(x, y), net.loss(net(x), y))
    twice = grads(rule, torch.cat([x, x]), torch.cat([y, y]))
    assert alignment_angle(twice, true_gradient(net, x, y)) < 10
    ratio = (
        torch.cat([g.flatten() for g in twice]).norm()
        / torch.cat([g.flatten() for g in true_gradient(net, x, y)]).norm()
    )
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
    x, _ = batch(net)
    noise = [torch.randn(3, len(x), n, dtype=x.dtype) for n in net.sizes[1:]]
    first = torch.nn.functional.linear(x, net.weights[0], net.biases[0])
    together = net.activations(x, noise=noise, first=first)
    for k in range(3):
        alone = net.activations(x, noise=[n[k] for n in noise])
        assert all(torch.allclose(t[k], a) for t, a in zip(together[1:], alone[1:], strict=True))
    for bad in (noise[0][:2], noise[0][..., :-1], noise[0][None]):
        with pytest.raises(ValueError, match="noise has shape"):
            net.activations(x, noise=[bad, *noise[1:]])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"perturbation_std": 0.0}, "perturbation_std"),
        ({"perturbation_std": -1e-3}, "perturbation_std"),
        ({"perturbation_std": math.nan}, "perturbation_std"),
        ({"perturbation_std": math.inf}, "perturbation_std"),
        ({"draws": 0}, "draws"),
        ({"draws": 2.0}, "draws"),
        ({"draws": True}, "draws"),
        ({"mode": "two_sided"}, "mode"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        NodePerturbation(small_net(), **arguments)
    if "draws" in arguments:
        with pytest.raises(ValueError, match=said):
            ActivityForwardGradient(small_net(), **arguments)


@pytest.mark.parametrize("rule_class", RULES)
def test_bad_batches_are_refused_in_words(rule_class):
    net = small_net()
    x, y = batch(net)
    for bad_x, bad_y, said in (
        (x[:, :-1], y, "x has shape"),
        (x[:0], y[:0], "empty"),
        (x * math.nan, y, "NaN"),
        (x, y + 3, "labels"),
        (x, y[:-1], "one label"),
    ):
        with pytest.raises(ValueError, match=said):
            rule_class(net).backward(bad_x.contiguous(), bad_y)


@pytest.mark.parametrize("rule_class", RULES)
def test_training_is_deterministic_and_the_state_goes_round(rule_class):
    data = clusters()

    def run(seed):
        rule = rule_class(cu.MLP([12, 9, 4], seed=seed), seed=seed, draws=3)
        cu.train(rule, data, epochs=2, lr=0.05, batch_size=16, seed=seed, progress=False)
        return rule.state_dict()

    one, again, other = run(0), run(0), run(1)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["net.weights.0"], other["net.weights.0"])
    fresh = rule_class(cu.MLP([12, 9, 4], seed=5))
    fresh.load_state_dict(one)
    assert torch.equal(fresh.net.weights[0], one["net.weights.0"])


def test_the_std_moves_while_training_runs():
    data = clusters()
    final = []
    for knobs in (None, {"perturbation_std": 1e-3}, {"perturbation_std": [(0, 1e-3), (100, 3.0)]}):
        rule = NodePerturbation(cu.MLP([12, 9, 4], activation="tanh"))
        cu.train(rule, data, epochs=1, lr=0.02, batch_size=16, knobs=knobs, progress=False)
        final.append(rule.net.weights[0].detach())
    assert torch.equal(final[0], final[1]) and not torch.equal(final[1], final[2])
    assert rule.perturbation_std == 3.0


@pytest.mark.parametrize("rule_class", RULES)
def test_learning_really_happens_in_the_hidden_layer(rule_class):
    data = cu.load_dataset("digits")
    accuracy = {}
    for name, wrap in {"taught": lambda r: r, "frozen": cu.FrozenHidden}.items():
        rule = wrap(rule_class(cu.MLP([784, 16, 10]), draws=10))
        cu.train(rule, data, epochs=8, lr=0.05, batch_size=32, progress=False)
        accuracy[name] = cu.evaluate(rule, data.x_test, data.y_test)
    assert accuracy["taught"] > accuracy["frozen"] + 0.1 and accuracy["taught"] > 0.85


def test_shuffled_labels_teach_nothing_about_the_test_set():
    from dataclasses import replace

    data = cu.load_dataset("digits")
    order = torch.randperm(len(data.y_train), generator=torch.Generator().manual_seed(0))
    rule = NodePerturbation(cu.MLP([784, 24, 10]), draws=5)
    shuffled = replace(data, y_train=data.y_train[order])
    cu.train(rule, shuffled, epochs=2, lr=0.05, batch_size=32, progress=False)
    chance, n = 0.1, len(data.y_test)
    assert cu.evaluate(rule, data.x_test, data.y_test) < chance + 4 * (chance * (1 - chance) / n) ** 0.5
