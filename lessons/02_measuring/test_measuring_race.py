"""The classroom race of lesson 02: its unfair factor, its contestants, and the step on a bowl that judges them."""

import math
import re
from pathlib import Path

import jupytext
import pytest
import torch
from helpers import AutogradRule, batch, grads, largest_difference, small_net

import course_utils as cu
from course_utils.metrics import gradient_statistics, true_gradient
from course_utils.rules import Backprop

LESSON = Path(__file__).with_name("lesson.md")


def lesson_classes(*names):
    """Classes of the lesson by name, from the cells that define them."""
    namespace = {"cu": cu, "torch": torch, "math": math, "data": None}
    cells = [c.source for c in jupytext.read(LESSON).cells if c.cell_type == "code"]
    for name in names:
        (cell,) = [c for c in cells if re.search(rf"^class {name}\b", c, re.M)]
        tops = re.split(r"^(?=\S)", cell, flags=re.M)
        exec("".join(t for t in tops if re.match(r"class|def ", t)), namespace)
    return [namespace[name] for name in names]


@pytest.mark.parametrize("size", [1, 4, 13])
def test_the_summed_gradient_is_exactly_the_batch_size_times_the_mean(size):
    (summed,) = lesson_classes("SummedBackprop")
    net = small_net(activation="sigmoid", loss="squared_error")
    x, y = batch(net, n=size)
    ours, mean = grads(summed(net), x, y), grads(Backprop(net), x, y)
    assert all(torch.equal(a, size * b) for a, b in zip(ours, mean, strict=True))
    row = gradient_statistics(summed(net), x, y, draws=20).iloc[-1]
    assert row.projection == pytest.approx(size, rel=1e-12) and row.cosine == pytest.approx(1, abs=1e-12)
    assert row.bias == pytest.approx(size - 1, abs=1e-12)


def test_the_classroom_network_has_the_gradient_that_backprop_computes():
    (network,) = lesson_classes("ClassroomMLP")
    net = network([7, 6, 5, 3], activation="sigmoid", loss="squared_error", seed=0).double()
    x, y = batch(net)
    assert largest_difference(grads(Backprop(net), x, y), true_gradient(net, x, y)) < 1e-14
    assert ((0 < net(x)) & (net(x) < 1)).all()


def test_a_shaker_that_divides_by_sigma_once_is_found_out():
    network, shaker = lesson_classes("ClassroomMLP", "WeightShaker")
    net = network([5, 4, 3], activation="sigmoid", loss="squared_error", seed=0)
    rule = shaker(net, seed=1)
    rule.sigma = 0.01

    class Wrong(AutogradRule):
        def backward(self, x, y):
            loss = rule.backward(x, y)
            for p in self.net.parameters():
                p.grad = p.grad * rule.sigma
            return loss

    x, y = batch(net)
    assert gradient_statistics(Wrong(net), x, y, draws=1_000).projection.iloc[-1] < 0.5


@pytest.mark.parametrize("name, draws", [("WeightShaker", 2_000), ("NodeShaker", 1_000)])
def test_the_shakers_are_unbiased_for_small_noise(name, draws):
    network, shaker = lesson_classes("ClassroomMLP", name)
    torch.set_default_dtype(torch.float64)  # the lesson's shakes are drawn in the default type
    try:
        net = network([5, 4, 3], activation="sigmoid", loss="squared_error", seed=0).double()
        x, y = batch(net)
        rule = shaker(net, seed=1)
        rule.sigma = 1e-3
        frame = gradient_statistics(rule, x, y, draws=draws)
    finally:
        torch.set_default_dtype(torch.float32)
    for row in frame.itertuples():
        assert row.projection == pytest.approx(1, abs=4 * row.projection_se)
    d = sum(p.numel() for p in net.parameters())
    if name == "WeightShaker":  # E‖ĝ − g‖² = (d + 1)‖g‖²
        assert frame.variance.iloc[-1] == pytest.approx(d + 1, abs=4 * frame.variance_se.iloc[-1])
    else:
        assert frame.variance.iloc[-1] < d / 2


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
