"""The classroom race of lesson 02: its unfair factor, its contestants, and the step on a bowl that judges them."""

import math

import pytest
import torch
from helpers import AutogradRule, batch, grads, largest_difference, small_net

from course_utils.controls import FrozenHidden
from course_utils.metrics import gradient_statistics, true_gradient
from course_utils.rules import Backprop
from course_utils.runs import SCHEMA
from course_utils.studies.measuring import ClassroomMLP, NodeShaker, SummedBackprop, WeightShaker, classroom, race


def small_classroom(sizes=(5, 4, 3)):
    return ClassroomMLP(list(sizes), activation="sigmoid", loss="squared_error", seed=0)


@pytest.fixture
def in_double():
    """The shakers draw in the default type."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("size", [1, 4, 13])
def test_the_summed_gradient_is_exactly_the_batch_size_times_the_mean(size):
    net = small_net(activation="sigmoid", loss="squared_error")
    x, y = batch(net, n=size)
    ours, mean = grads(SummedBackprop(net), x, y), grads(Backprop(net), x, y)
    assert all(torch.equal(a, size * b) for a, b in zip(ours, mean, strict=True))
    row = gradient_statistics(SummedBackprop(net), x, y, draws=20).iloc[-1]
    assert row.projection == pytest.approx(size, rel=1e-12) and row.cosine == pytest.approx(1, abs=1e-12)
    assert row.bias == pytest.approx(size - 1, abs=1e-12)


def test_the_classroom_network_has_the_gradient_that_backprop_computes():
    net = small_classroom([7, 6, 5, 3]).double()
    x, y = batch(net)
    assert largest_difference(grads(Backprop(net), x, y), true_gradient(net, x, y)) < 1e-14
    assert ((0 < net(x)) & (net(x) < 1)).all()


def test_a_shaker_that_divides_by_sigma_once_is_found_out():
    net = small_classroom()
    rule = WeightShaker(net, seed=1)
    rule.sigma = 0.01

    class Wrong(AutogradRule):
        def backward(self, x, y):
            loss = rule.backward(x, y)
            for p in self.net.parameters():
                p.grad = p.grad * rule.sigma
            return loss

    x, y = batch(net)
    assert gradient_statistics(Wrong(net), x, y, draws=1_000).projection.iloc[-1] < 0.5


@pytest.mark.parametrize("shaker, draws", [(WeightShaker, 2_000), (NodeShaker, 1_000)])
def test_the_shakers_are_unbiased_for_small_noise(shaker, draws, in_double):
    net = small_classroom()
    x, y = batch(net)
    rule = shaker(net, seed=1)
    rule.sigma = 1e-3
    frame = gradient_statistics(rule, x, y, draws=draws)
    for row in frame.itertuples():
        assert row.projection == pytest.approx(1, abs=4 * row.projection_se)
    d = sum(p.numel() for p in net.parameters())
    if shaker is WeightShaker:  # E‖ĝ − g‖² = (d + 1)‖g‖²
        assert frame.variance.iloc[-1] == pytest.approx(d + 1, abs=4 * frame.variance_se.iloc[-1])
    else:
        assert frame.variance.iloc[-1] < d / 2


def test_the_control_that_shakes_output_units_alone_is_right_about_the_readout_and_less_noisy(in_double):
    """Else the control would carry the noise of shakes that teach nothing in it."""
    net = small_classroom()
    with torch.no_grad():
        net.weights[1] *= 8  # so that a hidden unit's shake counts
    x, y = batch(net)
    quiet, loud = NodeShaker(net, seed=1), NodeShaker(net, seed=1)
    quiet.sigma = loud.sigma = 1e-3
    rules = {"frozen": FrozenHidden(quiet), "whole": loud}
    rows = {n: gradient_statistics(r, x, y, draws=1_000).set_index("layer").loc["2"] for n, r in rules.items()}
    frozen, whole = rows["frozen"], rows["whole"]
    assert frozen.projection == pytest.approx(1, abs=4 * frozen.projection_se)
    assert frozen.variance + 4 * math.hypot(frozen.variance_se, whole.variance_se) < whole.variance
    rules["frozen"].backward(x, y)
    assert [p.grad is None for p in net.parameters()] == [True, False, True, False]  # W₁, W₂, b₁, b₂


def test_the_classroom_draws_every_weight_from_one_width():
    for sizes in ((784, 500, 10), (30, 20, 10)):
        net = classroom(sizes, seed=3)
        assert [w.std().item() for w in net.weights] == pytest.approx([0.1] * 2, rel=1e-5)
        assert not any(b.any() for b in net.biases)


@pytest.fixture(scope="module")
def raced():
    """One epoch on 1,200 small digits by several contestants: {(rule, lr): frame}."""
    contestants = [("SummedBackprop", 0.01), ("Backprop", 2.0), ("Backprop", 0.01), ("FrozenHidden(NodeShaker)", 0.2)]
    settings = {"dataset": "digits", "limit": 1_200, "epochs": 1, "test": True}
    return {(name, lr): race(name, [784, 20, 10], lr, 0, **settings) for name, lr in contestants}


def test_a_race_is_a_run_like_any_other(raced):
    for (name, lr), frame in raced.items():
        assert list(frame.columns) == SCHEMA
        assert set(frame.rule) == {name} and set(frame.lr) == {lr} and set(frame.sizes) == {"784-20-10"}
        assert frame.samples.tolist() == [0, 1_200] and frame.test_accuracy.notna().tolist() == [False, True]


def test_the_sum_at_one_rate_runs_as_the_mean_at_two_hundred_times_the_rate(raced):
    summed, mean = raced["SummedBackprop", 0.01], raced["Backprop", 2.0]
    assert summed.val_accuracy.tolist() == pytest.approx(mean.val_accuracy.tolist(), abs=0.011)  # two images of 200
    slow = raced["Backprop", 0.01]
    assert abs(slow.val_accuracy - mean.val_accuracy).iloc[-1] > 0.05


def test_one_step_on_a_bowl_is_the_parabola_and_its_best_leaves_one_minus_cosine_squared():
    generator = torch.Generator().manual_seed(0)
    d, v = 2_000, 3.0
    g = torch.ones(d, dtype=torch.float64) / math.sqrt(d)
    noisy = g + math.sqrt(v / d) * torch.randn(500, d, generator=generator, dtype=torch.float64)
    for lr in (0.1, 0.25, 0.6):
        left = (g - lr * noisy).pow(2).sum(1)
        expected = 1 - 2 * lr + lr**2 * (1 + v)
        assert left.mean().item() == pytest.approx(expected, abs=4 * left.std().item() / 500**0.5)
    best = 1 / (1 + v)
    assert 1 - 2 * best + best**2 * (1 + v) == pytest.approx(1 - 1 / (1 + v))  # cos² = 1/(1 + v)
