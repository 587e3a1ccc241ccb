"""The science of EvolutionStrategy: lesson 03's mean, the smoothed loss's gradient, ranks, mutations of low rank."""

import math
from statistics import NormalDist

import pytest
import torch
from helpers import ACTIVATIONS, LOSSES, batch, flat, grads, largest_difference, mutant, small_net

import course_utils as cu
from course_utils.metrics import gradient_statistics, true_gradient
from course_utils.rules import EvolutionStrategy, WeightPerturbation, evolution

EXACT = 1e-12
LAYER = (6, 5)  # one layer: p = 7 with the bias, q = 5
GAUSSIAN = NormalDist().pdf


def with_module(monkeypatch, name, *change):
    """EvolutionStrategy's module with one of its functions replaced by a mutant of it."""
    monkeypatch.setattr(evolution, name, mutant(getattr(evolution, name), *change))


def from_lesson_03(rule_class, loss="cross_entropy", targets="labels", frozen=False, noise=0.0):
    """Largest difference of K pairs from K draws of lesson 03 that go the same ways, at the same σ."""
    net = small_net(loss=loss)
    x, y = batch(net, targets=targets)
    net.activity_noise, net.noise_seed = noise, 3
    pair = rule_class(net, seed=1, draws=5, rank=0), WeightPerturbation(net, seed=1, draws=5, perturbation_std=0.01)
    if frozen:
        pair = [cu.FrozenHidden(rule) for rule in pair]
    found = [[g for g in grads(rule.double(), x, y) if g is not None] for rule in pair]
    return largest_difference(*found)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("targets", ["labels", "values"])
def test_pairs_are_the_mean_of_draws_of_lesson_03(loss, targets):
    assert from_lesson_03(EvolutionStrategy, loss, targets) < EXACT
    assert from_lesson_03(EvolutionStrategy, loss, targets, frozen=True) < EXACT
    assert from_lesson_03(EvolutionStrategy, loss, targets, noise=0.5) < EXACT


def test_other_credits_are_not():
    good = "(plus - minus) / (2 * self.perturbation_std * self.draws)"
    for wrong in (good.replace("2 * ", ""), good.replace("plus - minus", "minus - plus"), good.replace("- minus", "")):
        assert from_lesson_03(mutant(EvolutionStrategy, good, wrong)) > 1e-3


# ---------------------------------------------------------------- mutations of low rank


def from_whole_mutants(rank, activation="tanh", sizes=(7, 6, 5, 3), fitness="loss"):
    """Largest difference of the fitnesses from those of networks whose weights really are w ± σ A B."""
    net = small_net(sizes, activation)
    x, y = batch(net)
    rule = EvolutionStrategy(net, draws=4, rank=rank, perturbation_std=0.3, fitness=fitness).double()
    psi = evolution.mutations(list(net.weights), list(net.biases), 4, rank, rule.generator)
    found, expected = rule.fitnesses(x, y, x.T, psi), []
    for step in (0.3, -0.3):
        whole = [step * (a if b is None else a @ b) for a, b in psi]
        weights = [w + move[..., :-1] for w, move in zip(net.weights, whole, strict=True)]
        biases = [bias + move[..., -1] for bias, move in zip(net.biases, whole, strict=True)]
        for out in net.activations(x, weights, biases)[-1]:
            expected.append((out.argmax(1) != y).double().mean() if fitness == "errors" else net.loss(out, y))
    return (found.flatten() - torch.stack(expected)).abs().max().item()


@pytest.mark.parametrize("rank", [0, 1, 3])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_no_mutant_is_made_and_its_fitness_is_exact(rank, activation):
    with torch.no_grad():
        assert from_whole_mutants(rank, activation) < EXACT
        assert from_whole_mutants(rank, activation, (7, 3)) < EXACT
        assert from_whole_mutants(rank, activation, fitness="errors") < EXACT


@pytest.mark.parametrize("change", [(" + b[..., -1:]", ""), ("b[..., :-1] @ h", "0.5 * b[..., :-1] @ h")])
def test_a_mutant_of_another_kind_is_noticed(monkeypatch, change):
    with_module(monkeypatch, "along", *change)
    with torch.no_grad():
        assert from_whole_mutants(1) > 1e-3


def test_draws_in_parts_are_the_same(monkeypatch):
    net = small_net()
    x, y = batch(net)
    for settings in ({}, {"rank": 0}, {"rank": 2, "shaping": "ranked"}):
        whole = grads(EvolutionStrategy(net, draws=7, **settings).double(), x, y)
        monkeypatch.setattr(evolution, "AT_ONCE", 3 * len(x) * 6)
        assert largest_difference(whole, grads(EvolutionStrategy(net, draws=7, **settings).double(), x, y)) < EXACT
        monkeypatch.undo()


def noise_of(rank, draws=1_500):
    """(projection's distance from 1, variance's from theory) in standard errors; one layer, tiny σ, one pair."""
    net = small_net(LAYER)
    x, y = batch(net)
    rule = EvolutionStrategy(net, seed=4, perturbation_std=1e-5, draws=1, rank=rank).double()
    row = gradient_statistics(rule, x, y, draws=draws).iloc[-1]
    p, q = LAYER[0] + 1, LAYER[1]
    theory = p * q + 1 + (2 * p + 2 * q + 2) / rank if rank else p * q + 1
    return abs(row.projection - 1) / row.projection_se, abs(row.variance - theory) / row.variance_se


@pytest.mark.parametrize("rank", [0, 1, 2, 4])
def test_every_rank_is_unbiased_and_as_noisy_as_theory_says(rank):
    assert max(noise_of(rank)) < 4


def test_without_the_root_of_the_rank_it_is_biased(monkeypatch):
    with_module(monkeypatch, "mutations", " / math.sqrt(rank)", "")
    assert noise_of(2)[0] > 8  # twice as long
    assert max(noise_of(1)) < 4


# ---------------------------------------------------------------- a wide mutation smooths


def product_bell(z):
    """What the product of two Gaussians puts in the place of their density φ(z)."""
    return (z.abs() * torch.special.modified_bessel_k1(z.abs()) / math.pi).item()


def smoothed(rule_class, rank=0, bell=GAUSSIAN, std=0.7, draws=200_000):
    """Largest z of the estimate against the closed form for errors of a linear network with two classes."""
    net = small_net((3, 2))
    x, y = batch(net, n=5)
    found = flat(grads(rule_class(net, perturbation_std=std, draws=draws, rank=rank, fitness="errors").double(), x, y))
    inputs = torch.cat([x, torch.ones(5, 1).double()], 1)
    sign = 1.0 - 2 * y  # class 0 is right where output 0 leads
    lead = sign * (net(x)[:, 0] - net(x)[:, 1]).detach()
    length = inputs.norm(dim=1) * math.sqrt(2)  # of a, the change of the lead with all weights
    density = torch.tensor([bell(z) for z in lead / (std * length)])
    one = (-density * sign / (std * length))[:, None] * inputs / 5  # −φ(z) a / (σ‖a‖), the half for class 0
    total = one.sum(0)
    expected = torch.cat([total[:-1], -total[:-1], torch.stack([total[-1], -total[-1]])])
    return (found - expected).abs().max().item() * 2 * std * math.sqrt(draws)  # a pair's is at most |ψ| / 2σ


def test_where_no_gradient_exists_it_climbs_the_smoothed_step():
    assert smoothed(EvolutionStrategy) < 4.5  # of eight numbers, each within its largest possible error
    wrong = mutant(
        EvolutionStrategy, "/ (2 * self.perturbation_std * self.draws)", "/ (self.perturbation_std * self.draws)"
    )
    assert smoothed(wrong) > 10
    assert smoothed(EvolutionStrategy, 1, product_bell) < 4.5  # at rank 1 another smoothing, not the Gaussian's
    assert smoothed(EvolutionStrategy, 1) > 10


def test_a_mutation_that_flips_no_answer_teaches_nothing():
    net = small_net()
    x, y = batch(net)
    for shaping in ("raw", "ranked"):
        rule = EvolutionStrategy(net, perturbation_std=1e-12, fitness="errors", shaping=shaping).double()
        assert all((g == 0).all() for g in grads(rule, x, y))


def bias_of_smoothing(rule_class, std=0.5, draws=40_000, repeats=5):
    """(z against ∇L + σ²/2 ∇tr H, z against ∇L): L of a linear network of two layers is of fourth degree."""
    net = small_net((3, 2, 2), activation="linear", loss="squared_error")
    x, y = batch(net, targets="values")
    parameters = [p.detach() for p in net.parameters()]
    shapes, counts = [p.shape for p in parameters], [p.numel() for p in parameters]

    def loss(w):
        parts = [part.view(shape) for part, shape in zip(w.split(counts), shapes, strict=True)]
        return net.loss(net.activations(x, parts[:2], parts[2:])[-1], y)

    w = flat(parameters).requires_grad_()
    hessian = torch.autograd.functional.hessian(loss, w, create_graph=True)
    curved = torch.autograd.grad(hessian.trace(), w)[0]
    plain = flat(true_gradient(net, x, y))
    rule = rule_class(net, seed=2, perturbation_std=std, draws=draws // repeats, rank=0).double()
    found = torch.stack([flat(grads(rule, x, y)) for _ in range(5 * repeats)])
    error = found.std(0) / math.sqrt(len(found))
    return [((found.mean(0) - truth).abs() / error).max().item() for truth in (plain + std**2 / 2 * curved, plain)]


def test_the_bias_of_a_wide_mutation_is_half_its_variance_times_the_gradient_of_the_curvature():
    smoothed, plain = bias_of_smoothing(EvolutionStrategy)
    assert smoothed < 4.5 and plain > 15  # the largest of 14 numbers, from 25 repeats
    assert bias_of_smoothing(mutant(EvolutionStrategy, "2 * self.perturbation_std", "self.perturbation_std"))[0] > 15


# ---------------------------------------------------------------- ranks


def test_equal_losses_share_the_mean_of_their_places():
    ranks = evolution.centred_ranks(torch.tensor([3.0, 1.0, 3.0, 2.0, 9.0]).double())
    assert ranks.tolist() == [0.125, -0.5, 0.125, -0.25, 0.5]
    assert (evolution.centred_ranks(torch.ones(6)) == 0).all()


class Relabelled(EvolutionStrategy):
    """Its fitnesses are seen through `change`."""

    change = staticmethod(lambda losses: losses)

    def fitnesses(self, *given):
        return self.change(super().fitnesses(*given))


@pytest.mark.parametrize("change", [lambda losses: 1000 * losses, torch.log, lambda losses: losses**3 - 5])
def test_ranks_are_blind_to_every_change_that_keeps_the_order(change):
    net = small_net()
    x, y = batch(net)
    apart = {}
    for shaping in ("raw", "ranked"):
        seen = type("Seen", (Relabelled,), {"change": staticmethod(change)})
        pair = [rule(net, shaping=shaping, perturbation_std=0.1).double() for rule in (EvolutionStrategy, seen)]
        apart[shaping] = largest_difference(*(grads(rule, x, y) for rule in pair))
    assert apart["ranked"] == 0 and apart["raw"] > 1e-3


def length_of_ranks(rule_class, pairs, repeats=1_500):
    """By how many standard errors projection and the rest miss κ_n / ‖g‖ and 0, at a σ where the loss is straight."""
    net = small_net(LAYER)
    x, y = batch(net)
    rule = rule_class(net, seed=1, perturbation_std=1e-6, draws=pairs, rank=0, shaping="ranked").double()
    row = gradient_statistics(rule, x, y, draws=repeats).iloc[-1]
    n = 2 * pairs
    kappa = ((n - 2) / (2 * math.sqrt(math.pi)) + 1 / math.sqrt(2 * math.pi)) / (n - 1)
    length = flat(true_gradient(net, x, y)).norm().item()
    return (row.projection - kappa / length) / row.projection_se, row.cosine_of_mean


@pytest.mark.parametrize("pairs", [2, 5, 20])
def test_ranks_keep_the_direction_and_throw_the_length_away(pairs):
    miss, cosine = length_of_ranks(EvolutionStrategy, pairs)
    assert abs(miss) < 4 and cosine > 0.9


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("centred_ranks(fitnesses.flatten()).view(2, -1)", "(fitnesses - fitnesses.mean(0)).sign() / 2"),  # in the pair
        ("return (plus - minus) / (2 * self.draws)", "return (plus - minus) / self.draws"),
    ],
)
def test_other_ranks_have_another_length(old, new):
    assert abs(length_of_ranks(mutant(EvolutionStrategy, old, new), 5)[0]) > 8


def test_the_loss_returned_is_the_loss_before_the_step_whatever_is_judged():
    net = small_net()
    x, y = batch(net)
    for fitness in ("loss", "errors"):
        loss = EvolutionStrategy(net, fitness=fitness).double().backward(x, y)
        assert loss.ndim == 0 and loss.item() == pytest.approx(net.loss(net(x), y).item(), abs=EXACT)
