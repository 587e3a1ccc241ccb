"""Sign symmetry before it has learned: angles and lengths in closed form, which wrong rules miss."""

import math

import pytest
import torch
from helpers import batch, grads, small_net
from helpers.sign_symmetry import wrong

import course_utils as cu
from course_utils.metrics import cosine
from course_utils.rules import SignSymmetry
from course_utils.rules.sign_symmetry import MAGNITUDES

CLOSED_FORM = {  # cos(W, B) before learning: (init, magnitude) → E|w| E m / √(E w² E m²)
    ("gaussian", "uniform"): math.sqrt(2 / math.pi),
    ("gaussian", "fixed_magnitude"): 2 / math.pi,
    ("gaussian", "batch_magnitude"): 2 / math.pi,
    ("uniform", "uniform"): math.sqrt(3) / 2,
    ("uniform", "fixed_magnitude"): 3 / 4,
    ("uniform", "batch_magnitude"): 3 / 4,
}
STANDARD_ERROR = 1 / 300  # of a cosine of 300² independent pairs, at most: (1 − ρ²)/√n


def cosine_at_the_start(rule_class, init, magnitude, flipped=0.0, width=300):
    """cos(W, B) of a square layer before any step."""
    net = cu.MLP([5, width, width, 4], seed=1, init=init)
    rule = rule_class(net, seed=2, magnitude=magnitude, flipped=flipped)
    return cosine(net.weights[1].detach().flatten(), rule.feedback_weights[1].flatten())


@pytest.mark.parametrize(("init", "magnitude"), CLOSED_FORM)
def test_cosines_at_the_start(init, magnitude):
    expected = CLOSED_FORM[init, magnitude]
    assert abs(cosine_at_the_start(SignSymmetry, init, magnitude) - expected) < 4 * STANDARD_ERROR
    for name in ("no sign", "weights", "sign of the error", "signed magnitudes"):
        assert abs(cosine_at_the_start(wrong(name), init, magnitude) - expected) > 10 * STANDARD_ERROR, name


def test_cosines_in_numbers():
    assert {round(CLOSED_FORM["gaussian", m], 3) for m in MAGNITUDES} == {0.798, 0.637}
    assert {round(CLOSED_FORM["uniform", m], 3) for m in MAGNITUDES} == {0.866, 0.75}


@pytest.mark.parametrize("flipped", [0.0, 0.1, 0.25, 0.5, 0.9, 1.0])
@pytest.mark.parametrize(("init", "magnitude"), CLOSED_FORM)
def test_wrong_signs_multiply_the_cosine_by_1_minus_2p(init, magnitude, flipped):
    expected = (1 - 2 * flipped) * CLOSED_FORM[init, magnitude]
    assert abs(cosine_at_the_start(SignSymmetry, init, magnitude, flipped) - expected) < 4 * STANDARD_ERROR
    if flipped:
        miss = abs(cosine_at_the_start(wrong("half flips"), init, magnitude, flipped) - expected)
        assert miss > 10 * STANDARD_ERROR


@pytest.mark.parametrize("init", ["gaussian", "uniform"])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_feedback_is_as_long_as_the_weights(magnitude, activation, init):
    def ratio(rule_class):
        net = cu.MLP([5, 300, 200, 4], activation, init=init, seed=1)
        return (rule_class(net, magnitude=magnitude).feedback_weights[1].norm() / net.weights[1].norm()).item()

    # ‖·‖² over n entries scatters by √(kurtosis − 1)/√n ≤ √2/√n, the norm by half of that, the ratio by √2 of both
    assert ratio(SignSymmetry) == pytest.approx(1, abs=4 / math.sqrt(300 * 200))
    assert abs(ratio(wrong("scale")) - 1) > 0.4


def test_uniform_magnitudes_are_exactly_the_first_standard_deviation():
    for activation, gain in (("relu", 2), ("tanh", 1), ("sigmoid", 1)):
        for init in ("gaussian", "uniform"):
            net = cu.MLP([7, 6, 5, 3], activation, init=init)
            for l, b in enumerate(SignSymmetry(net).feedback_weights):
                assert b is None or (b.abs() - math.sqrt(gain / net.sizes[l])).abs().max() < 1e-7


def messages(rule, x, y):
    """The message every layer hears, (batch, units) each; [0] for the first hidden layer."""
    net = rule.net
    h = net.activations(x)
    delta, heard = net.output_error(h[-1], y) / len(x), []
    for l in reversed(range(1, net.depth)):
        delta = (delta @ rule.feedback_weights[l]) * net.derivative(h[l])
        heard.insert(0, delta)
    return heard


@torch.no_grad()
def test_angles_multiply_from_layer_to_layer():
    """cos of the message k layers down is ρᵏ, here (1 − 2p)ρ to the power of k, up to the scatter of the width."""
    sizes, width = [20, *[400] * 4, 400], 400

    def worst(rule_class, flipped):
        net = cu.MLP(sizes, "linear", loss="squared_error", seed=3)
        x = torch.randn(50, 20, generator=torch.Generator().manual_seed(1))
        y = torch.randn(50, 400, generator=torch.Generator().manual_seed(2))
        ours, true = rule_class(net, flipped=flipped), wrong("weights")(net)
        rho, misses = (1 - 2 * flipped) * math.sqrt(2 / math.pi), []
        pairs = list(zip(messages(ours, x, y), messages(true, x, y), strict=True))[::-1]
        for k, (a, b) in enumerate(pairs, start=1):
            misses.append(abs(cosine(a.flatten(), b.flatten()) - rho**k) * math.sqrt(width / k))
        return max(misses)

    for flipped in (0.0, 0.2):
        assert worst(SignSymmetry, flipped) < 4  # standard deviations of 1/√width a layer, at most
        assert worst(wrong("no sign"), flipped) > 8


def test_a_scale_of_c_multiplies_the_message_by_c_a_layer():
    """Exactly: δ_l is linear in each of the matrices above it."""

    def worst(power):
        net = small_net((7, 6, 6, 5, 3))
        rule, (x, y) = SignSymmetry(net).double(), batch(net)
        plain = grads(rule, x, y)[: net.depth]
        for l in range(1, net.depth):
            rule.magnitudes[l] = 3 * rule.magnitudes[l]
        scaled = grads(rule, x, y)[: net.depth]
        return max(
            (b - 3.0 ** power(net.depth - 1 - l) * a).abs().max().item()
            for l, (a, b) in enumerate(zip(plain, scaled, strict=True))
        )

    assert worst(lambda below: below) < 1e-11
    assert worst(lambda below: 1) > 1e-3


def test_magnitudes_and_flips_know_nothing_of_the_weights_whatever_the_seed():
    net = cu.MLP([30, 200, 150, 4], seed=4)
    for seed in (4, 5):  # 4: the network's own
        rule = SignSymmetry(net, seed=seed, magnitude="fixed_magnitude")
        size, w = rule.magnitudes[1] - rule.magnitudes[1].mean(), net.weights[1].detach().abs()
        luck = rule.thresholds[1] - 0.5
        for a, b in ((size, w - w.mean()), (luck, net.weights[1].detach()), (luck, size)):
            assert abs(cosine(a.flatten(), b.flatten())) < 4 / b.numel() ** 0.5
