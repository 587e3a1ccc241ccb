"""Which predictive coding is backprop, and how much of it arrives. A wrong rule must fail each fact."""

import math

import pytest
from helpers import ACTIVATIONS, LOSSES, batch, grads, largest_difference, small_net
from helpers.settling import SIZES, SWEEPS, wrong

from course_utils.metrics import true_gradient
from course_utils.rules import ZIL, FixedPrediction, PredictiveCoding
from course_utils.rules.predictive_coding import SettlingAroundForward

EXACT = 1e-12


def distance_to_backprop(
    rule_class, sizes=SIZES[4], activation="tanh", loss="cross_entropy", targets="labels", **given
):
    net = small_net(sizes, activation, loss)
    x, y = batch(net, targets=targets)
    return largest_difference(grads(rule_class(net, **given).double(), x, y), true_gradient(net, x, y))


@pytest.mark.parametrize("targets", ["labels", "values"])
@pytest.mark.parametrize("depth", SIZES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_fixed_prediction_and_zil_are_backprop(activation, loss, depth, targets):
    case = SIZES[depth], activation, loss, targets
    knobs = {"inference_rate": 1.0, "inference_steps": depth - 1}
    assert distance_to_backprop(FixedPrediction, *case, **knobs) < EXACT
    assert distance_to_backprop(FixedPrediction, *case, **knobs | {"inference_steps": depth + 3}) < EXACT  # and stays
    assert distance_to_backprop(ZIL, *case) < EXACT


def test_what_is_not_backprop():
    knobs = {"inference_rate": 1.0, "inference_steps": 3}
    assert distance_to_backprop(FixedPrediction, **knobs | {"inference_steps": 2}) > 1e-3  # one sweep short
    assert distance_to_backprop(PredictiveCoding, **knobs) > 1e-3
    assert distance_to_backprop(PredictiveCoding, inference_rate=0.2, inference_steps=300) > 1e-3
    for name in SWEEPS.keys() - {"no own error", "one after the other"}:  # γ = 1: a first arrival does not feel these
        assert distance_to_backprop(wrong(name, ZIL)) > 1e-3, name


def test_the_output_weight_does_not_change_the_scale_of_the_gradient():
    for rule_class, knobs in ((FixedPrediction, {"inference_rate": 1.0}), (ZIL, {})):
        net = small_net(SIZES[3])
        rule, (x, y) = rule_class(net, **knobs).double(), batch(net)
        rule.output_weight = 0.01
        assert largest_difference(grads(rule, x, y), true_gradient(net, x, y)) < EXACT


def at_least(k, n, p):
    """P[Binomial(n, p) ≥ k]."""
    return sum(math.comb(n, j) * p**j * (1 - p) ** (n - j) for j in range(k, n + 1))


def off_the_binomial(rule_class, steps, rate, sizes=SIZES[5]):
    """Largest difference to each layer's backprop gradient times its binomial tail, in units of the gradient."""
    net = small_net(sizes)
    x, y = batch(net)
    ours = grads(rule_class(net, inference_steps=steps, inference_rate=rate).double(), x, y)
    true = true_gradient(net, x, y)
    shares = [at_least(net.depth - l, steps, rate) for l in range(1, net.depth + 1)] * 2
    return max(
        ((g - share * t).abs().max() / t.abs().max()).item() for g, t, share in zip(ours, true, shares, strict=True)
    )


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9, 1.0, 1.5])
@pytest.mark.parametrize("steps", [0, 1, 3, 4, 20])
def test_fixed_prediction_gives_each_layer_its_binomial_share_of_backprop(steps, rate):
    assert off_the_binomial(FixedPrediction, steps, rate) < EXACT * max(1, abs(1 - 2 * rate)) ** steps * 4


def test_the_binomial_law_is_not_that_of_other_sweeps():
    class Upwards(SettlingAroundForward):
        def sweep(self):  # from the top down: an error crosses all layers in one sweep
            for l in reversed(range(1, self.net.depth)):
                told = (self.e[l + 1] @ self.net.weights[l].detach()) * self.net.derivative(self.h[l])
                self.e[l].lerp_(told, self.rule.inference_rate)

    upwards = type("Wrong", (FixedPrediction,), {"settling": Upwards})
    assert off_the_binomial(FixedPrediction, 6, 0.3) < EXACT
    assert off_the_binomial(upwards, 6, 0.3) > 1e-2
    assert off_the_binomial(PredictiveCoding, 6, 0.3) > 1e-2  # strict: only nearly


@pytest.mark.parametrize("steps", [5, 20])
def test_for_small_rates_the_share_is_a_power_of_the_rate(steps):
    for k in range(5):
        for rate in (1e-3, 1e-5):
            assert at_least(k, steps, rate) == pytest.approx(math.comb(steps, k) * rate**k, rel=steps * rate)


def test_strict_with_few_small_steps_is_backprop_with_the_same_shares_to_first_order_in_the_rate():
    net = small_net(SIZES[5])
    x, y = batch(net)

    def off(rate):
        ours = grads(PredictiveCoding(net, inference_steps=20, inference_rate=rate).double(), x, y)
        shares = [at_least(net.depth - l, 20, rate) for l in range(1, net.depth + 1)]
        pairs = zip(ours[: net.depth], true_gradient(net, x, y)[: net.depth], shares, strict=True)
        return max(((g - share * t).norm() / (share * t).norm()).item() for g, t, share in pairs)

    # Not smaller: the first layer's share is then lost in the rounding of its states.
    assert off(4e-3) / off(4e-4) == pytest.approx(10, rel=0.15)  # so it vanishes with the rate
