"""The law of Kolen and Pollack: W − B fades as (1 − λ)ᵗ, whatever the changes are; unequal changes break it."""

import math

import pytest
import torch
from helpers import batch, largest_difference, small_net
from helpers.kolen_pollack import LAWLESS, gaps, wrong

import course_utils as cu
from course_utils.metrics import alignment_angle, cosine
from course_utils.rules import KolenPollack

EXACT = 1e-12
SIZES = {2: (7, 5, 3), 4: (7, 6, 6, 5, 3)}
OPTIMIZERS = {
    "sgd": (torch.optim.SGD, {"lr": 0.1}),
    "momentum": (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9}),
    "nesterov": (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
    "adam": (torch.optim.Adam, {"lr": 0.01}),
}


def broken_law(rule_class, optimizer="momentum", decay=0.02, steps=40, scale=1.0, fused=False, noise=False, **more):
    """Largest deviation of W − B from (1 − λ)ᵗ (W − B)₀ on the way."""
    net = small_net(SIZES[4])
    rule = rule_class(net, decay=decay).double()
    for l in range(1, net.depth):
        rule.feedback_weights[l] = scale * rule.feedback_weights[l]
    make, settings = OPTIMIZERS[optimizer]
    opt = make(rule.parameters(), **settings, fused=fused, **more)
    start, worst = gaps(rule), 0.0
    for t in range(1, steps + 1):
        x, y = batch(net, n=9, seed=t)
        if noise:  # any update sequence at all: the gradient need not come from anything learned
            x = 10 * x
        rule.step(x, y, opt)
        law = [(1 - decay) ** t * d for d in start]
        worst = max(worst, largest_difference(gaps(rule), law))
    return worst


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("decay", [0.0, 1e-3, 0.02, 0.5])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_difference_follows_the_law(optimizer, decay, fused):
    assert broken_law(KolenPollack, optimizer, decay, fused=fused) < EXACT


@pytest.mark.parametrize("change", [{"scale": 10.0}, {"noise": True}])
def test_the_law_asks_neither_for_equal_scale_nor_for_sensible_updates(change):
    assert broken_law(KolenPollack, **change) < EXACT


@pytest.mark.parametrize("name", LAWLESS)
def test_mutants_break_the_law(name):
    assert broken_law(wrong(name)) > 1e-3


def test_any_sequence_of_gradients_will_do():
    net = small_net(SIZES[2])
    rule, generator = KolenPollack(net, decay=0.01).double(), torch.Generator().manual_seed(5)

    class Noise(KolenPollack):
        def backward(self, x, y):
            w, b = self.net.weights[1], self.feedback_weights[1]
            w.grad = b.grad = torch.randn(w.shape, generator=generator, dtype=w.dtype)
            return self.net.loss(self.net(x), y).detach()

    rule.__class__ = Noise
    (start,), opt = gaps(rule), torch.optim.Adam(rule.parameters(), lr=0.1)
    for _ in range(60):
        rule.step(*batch(net), opt)
    assert (gaps(rule)[0] - 0.99**60 * start).abs().max() < EXACT


def test_without_decay_the_difference_never_changes_and_the_angle_falls_by_growth_alone():
    data = cu.load_dataset("digits")
    rule = KolenPollack(cu.MLP([784, 32, 10]), decay=0.0)
    (start,) = gaps(rule)
    before = alignment_angle(rule.net.weights[1].detach(), rule.feedback_weights[1].detach())
    cu.train(rule, data, epochs=8, lr=0.1, batch_size=32, progress=False)
    (end,) = gaps(rule)
    assert (end - start).abs().max() < 1e-5  # float32
    after = alignment_angle(rule.net.weights[1].detach(), rule.feedback_weights[1].detach())
    assert after < before - 20
    common = (rule.net.weights[1] + rule.feedback_weights[1]).detach().norm()
    assert after == pytest.approx(2 * math.degrees(math.atan(end.norm() / common)), abs=5)  # equal lengths: exact


def test_half_life():
    for decay in (1e-3, 0.02):
        half_life = math.log(2) / -math.log(1 - decay)
        assert half_life == pytest.approx(math.log(2) / decay, rel=decay)
        steps = round(half_life)
        net = small_net(SIZES[2])
        rule = KolenPollack(net, decay=decay).double()
        opt, (start,) = torch.optim.SGD(rule.parameters(), lr=0.1), gaps(rule)
        for _ in range(steps):
            rule.step(*batch(net), opt)
        assert (gaps(rule)[0].norm() / start.norm()).item() == pytest.approx((1 - decay) ** steps, rel=1e-9)
        assert abs((1 - decay) ** steps - 0.5) < decay


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_decay_does_not_depend_on_the_learning_rate(momentum):
    def left(lr, rule_class=KolenPollack):
        net = small_net(SIZES[2])
        rule = rule_class(net, decay=0.02).double()
        opt, (start,) = torch.optim.SGD(rule.parameters(), lr=lr, momentum=momentum), gaps(rule)
        for _ in range(20):
            rule.step(*batch(net), opt)
        return (gaps(rule)[0].norm() / start.norm()).item()

    assert left(0.001) == pytest.approx(left(0.1), rel=1e-9)
    assert left(0.001, wrong("decay times lr")) > left(0.1, wrong("decay times lr")) + 0.02


def l2_partners(rule, make, lr, weight_decay):
    """An optimiser whose weight decay takes hold of W and B of layer 2 alone."""
    partners = {"params": [rule.net.weights[1], rule.feedback_weights[1]], "weight_decay": weight_decay}
    others = {"params": [rule.net.weights[0], *rule.net.biases], "weight_decay": 0.0}
    return make([partners, others], lr=lr)


def shares_left(make, lr, weight_decay, steps=60):
    """What is left of each W_ij − B_ij, as a share of its start, with decay in the optimiser and none in step."""
    net = small_net(SIZES[2])
    rule = KolenPollack(net, decay=0.0).double()
    opt, (start,) = l2_partners(rule, make, lr, weight_decay), gaps(rule)
    for t in range(steps):
        rule.step(*batch(net, n=9, seed=t), opt)
    return gaps(rule)[0] / start


def test_l2_in_the_gradient_keeps_the_law_under_sgd_and_breaks_it_under_adam():
    law = (1 - 0.01) ** 60  # the same η · weight_decay for all
    assert (shares_left(torch.optim.SGD, 0.1, 0.1) - law).abs().max() < 1e-10
    assert (shares_left(torch.optim.AdamW, 0.01, 1.0) - law).abs().max() < 1e-10
    broken = shares_left(torch.optim.Adam, 0.01, 1.0)
    assert (broken - law).abs().max() > 0.1  # no common rate any more …
    assert broken.max() - broken.min() > 0.1  # … every synapse has one of its own


def test_feedback_that_learns_at_half_the_rate_becomes_half_of_the_weights():
    net = small_net(SIZES[2])
    rule = wrong("half the rate")(net, decay=0.05).double()
    opt = torch.optim.SGD(rule.parameters(), lr=0.1)

    def gap():
        return (rule.feedback_weights[1] - rule.net.weights[1] / 2).detach().clone()

    start = gap()
    for _ in range(200):
        rule.step(*batch(net, n=9), opt)
    assert (gap() - 0.95**200 * start).abs().max() < EXACT
    assert cosine(rule.feedback_weights[1].detach().flatten(), net.weights[1].detach().flatten()) > 0.999
