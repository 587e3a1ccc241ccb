"""The blend: its ends, its mean, and bias and variance that follow from those of its parts."""

import math

import pytest
import torch
from helpers import batch, flat, grads, largest_difference, mutant, small_net
from helpers.hybrids import draws_of, same, trained

import course_utils as cu
from course_utils.metrics import true_gradient
from course_utils.rules import Blend, FeedbackAlignment, NodePerturbation
from course_utils.rules.hybrids import Parts

EXACT = 1e-12
UNWEIGHTED = mutant(Blend, "share * g", "0.5 * g")
TURNED_ROUND = mutant(Blend, "(1 - self.blend, self.blend)", "(self.blend, 1 - self.blend)")
SAME_DRAWS = mutant(Parts, "part.generator = self.generator", "part.generator = torch.Generator().manual_seed(5)")
ONE_NOISE = type("OneNoise", (SAME_DRAWS, Blend), {})


@pytest.mark.parametrize("first", ["WeightPerturbation", "NodePerturbation", "PredictiveCoding"])
def test_at_its_ends_the_blend_is_its_parts_bit_for_bit_all_through_training(first):
    ends = [trained(Blend(small_net(), seed=3, blend=blend, first=first).double()) for blend in (0.0, 1.0)]
    parts = cu.rules.ALL[first], FeedbackAlignment
    assert all(same(e, trained(part(small_net(), seed=3).double())) for e, part in zip(ends, parts, strict=True))
    assert not same(*ends)


def off_the_mixture(blend_class, share=0.3):
    """Largest distance of .grad from (1 − β) ĝ₁ + β ĝ₂, relative to the parts' own noise drawn again."""
    net = small_net()
    x, y = batch(net)
    first, second = (grads(c(net, seed=2).double(), x, y) for c in (NodePerturbation, FeedbackAlignment))
    ours = grads(blend_class(net, seed=2, blend=share, first="NodePerturbation").double(), x, y)
    return largest_difference(ours, [(1 - share) * a + share * b for a, b in zip(first, second, strict=True)])


def test_the_blend_is_the_weighted_mean_of_its_parts():
    assert off_the_mixture(Blend) < EXACT
    for wrong in (UNWEIGHTED, TURNED_ROUND):
        assert off_the_mixture(wrong) > 1e-3


def test_grad_accumulates_in_a_blend():
    net = small_net()
    rule, (x, y) = Blend(net, first="PredictiveCoding").double(), batch(net)
    once = grads(rule, x, y)
    rule.backward(x, y)
    assert largest_difference([p.grad for p in net.parameters()], [2 * g for g in once]) < EXACT


def standard_errors_off(blend_class, first, second, share, draws=800):
    """How far bias and variance of a blend are from (2) and (3), in standard errors of the measurement."""
    net = small_net()
    x, y = batch(net, n=6)
    g = flat(true_gradient(net, x, y))
    d = len(g)
    biases, variances = [], []
    for name in (first, second):
        fixed = name == "FeedbackAlignment"
        biases.append(flat(grads(cu.rules.ALL[name](net, seed=2).double(), x, y)) - g if fixed else torch.zeros(d))
        variances.append(0.0 if fixed else d + 1.0)  # lesson 03
    rule = blend_class(net, seed=2, blend=share, first=first, second=second).double()
    for part in rule.parts:
        part.perturbation_std = 1e-4  # in float64: its own bias, of order σ², is far below what is looked for
    variance = ((1 - share) ** 2 * variances[0] + share**2 * variances[1]) * g.dot(g)  # (3)
    seen = draws_of(rule, x, y, draws)
    expected = g + (1 - share) * biases[0] + share * biases[1]  # (2)
    squares = (seen - expected).square().sum(1)
    bias = (seen.mean(0) - expected).norm() / (variance / draws).sqrt()  # of the mean of so many draws
    return bias, (squares.mean() - variance).abs() / (squares.std() / math.sqrt(draws))


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_bias_and_variance_of_a_blend_follow_from_those_of_its_parts(share):
    bias, variance = standard_errors_off(Blend, "WeightPerturbation", "FeedbackAlignment", share)
    assert bias < 1.5 and variance < 4  # the length of a mean's error in d dimensions scatters by 1/√d around 1
    bias, variance = standard_errors_off(TURNED_ROUND, "WeightPerturbation", "FeedbackAlignment", 0.9)
    assert bias > 4 and variance > 10


def test_two_noisy_parts_have_noises_of_their_own():
    names = "WeightPerturbation", "WeightPerturbation"
    _, variance = standard_errors_off(Blend, *names, 0.5)
    assert variance < 4
    _, variance = standard_errors_off(ONE_NOISE, *names, 0.5)
    assert variance > 6


def error_of(share, b1, b2, v1, v2):
    return ((1 - share) * b1 + share * b2).square().sum() + (1 - share) ** 2 * v1 + share**2 * v2


def test_the_closed_form_of_the_best_blend_is_where_the_error_is_least():
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        b1, b2 = torch.randn(2, 7, generator=generator, dtype=torch.float64)
        v1, v2 = torch.rand(2, generator=generator, dtype=torch.float64)
        best = (b1.dot(b1) - b1.dot(b2) + v1) / ((b1 - b2).square().sum() + v1 + v2)  # (4)
        at = error_of(best, b1, b2, v1, v2)
        assert all(at < error_of(best + step, b1, b2, v1, v2) for step in (-0.01, 0.01))
