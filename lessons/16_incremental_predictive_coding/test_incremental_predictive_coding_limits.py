"""Incremental predictive coding beside lesson 15 and backprop, and what precision does. A wrong rule must fail."""

import math

import pytest
import torch
from helpers import ACTIVATIONS, LOSSES, batch, grads, largest_difference, small_net
from helpers.settling_while_learning import PRECISION, SIZES, wrong

from course_utils.metrics import true_gradient
from course_utils.rules import IncrementalPredictiveCoding, PredictiveCoding

EXACT = 1e-12


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("make", ["sgd", "adam"])
def test_who_waits_until_the_end_is_predictive_coding_bit_for_bit(loss, make):
    def trained(rule_class, **more):
        net = small_net(SIZES[4], loss=loss)
        rule = rule_class(net, inference_steps=6, inference_rate=0.2, output_weight=0.5, **more).double()
        kinds = {"sgd": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}), "adam": (torch.optim.Adam, {"lr": 0.01})}
        optimizer = kinds[make][0](rule.parameters(), **kinds[make][1])
        losses = [rule.step(*batch(net, n=5, seed=t), optimizer) for t in range(8)]
        return [*losses, *net.parameters()]

    waiting, lesson_15 = trained(IncrementalPredictiveCoding, wait=6), trained(PredictiveCoding)
    assert all(torch.equal(a, b) for a, b in zip(waiting, lesson_15, strict=True))
    for wait in (1, 3, 5):
        assert largest_difference(trained(IncrementalPredictiveCoding, wait=wait), lesson_15) > 1e-3


def test_at_learning_rate_0_the_states_are_those_of_lesson_15_bit_for_bit():
    def states(rule_class, lr=0.0):
        net = small_net(SIZES[4])
        rule, (x, y) = rule_class(net, inference_steps=9, inference_rate=0.2).double(), batch(net)
        kept = []

        class Kept(rule.settling):
            def __init__(self, *given):
                super().__init__(*given)
                kept.append(self)

        rule.settling = Kept
        rule.step(x, y, torch.optim.SGD(rule.parameters(), lr=lr))
        return kept[0].v + kept[0].e[1:]

    assert all(map(torch.equal, states(IncrementalPredictiveCoding), states(PredictiveCoding)))
    moved = [
        largest_difference(states(IncrementalPredictiveCoding, lr), states(PredictiveCoding)) for lr in (1e-4, 2e-4)
    ]
    assert moved[1] / moved[0] == pytest.approx(2, rel=0.01)  # and the difference is of the first order in lr


def distance_to_gamma_backprop(rule_class, activation, loss, rate):
    net = small_net(SIZES[2], activation, loss)
    x, y = batch(net, n=6)
    ours = grads(rule_class(net, inference_steps=1, inference_rate=rate, output_weight=0.6).double(), x, y)
    true = true_gradient(net, x, y)
    return max((ours[i] - rate * true[i]).abs().max().item() for i in (0, 2))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_after_one_sweep_the_last_hidden_layer_has_gamma_times_backprop(activation, loss):
    assert distance_to_gamma_backprop(IncrementalPredictiveCoding, activation, loss, rate=0.3) < EXACT
    for name in ("sum", "averaged twice", "sign"):
        assert distance_to_gamma_backprop(wrong(name), activation, loss, rate=0.3) > 1e-4


def test_only_ratios_of_precisions_count():
    """All precisions and c times k, γ by k: the same step."""

    def moved(k, rate):
        net = small_net(SIZES[4])
        rule = IncrementalPredictiveCoding(
            net, inference_rate=rate, output_weight=0.7 * k, precision=[k * p for p in PRECISION]
        ).double()
        rule.step(*batch(net), torch.optim.SGD(rule.parameters(), lr=0.1))
        return [p.detach() for p in net.parameters()]

    assert largest_difference(moved(1, 0.2), moved(8, 0.2 / 8)) < EXACT
    assert largest_difference(moved(1, 0.2), moved(8, 0.2)) > 1e-3


@pytest.mark.parametrize("loss", LOSSES)
def test_at_rest_the_weighted_errors_obey_backprop_s_recursion_whatever_the_precisions(loss):
    net = small_net(SIZES[4], loss=loss)
    rule = IncrementalPredictiveCoding(net, inference_steps=6000, inference_rate=0.1, precision=PRECISION).double()
    s = rule.infer(*batch(net))
    for l in range(1, net.depth):
        told = (s.e[l + 1] @ net.weights[l]) * net.derivative(s.h[l])
        assert (s.e[l] - told).abs().max() < 1e-10
        assert s.e[l].abs().max() > 1e-4


def test_stiff_states_tend_to_backprop():
    """With Π → ∞ the settled states stay at the feed-forward pass, and the estimate tends to the gradient as 1/Π."""

    def error(p):
        net = small_net(SIZES[3])
        rule = IncrementalPredictiveCoding(
            net, inference_steps=600, inference_rate=0.2 / p, wait=600, precision=p
        ).double()
        x, y = batch(net)
        return largest_difference(grads(rule, x, y), true_gradient(net, x, y))

    errors = [error(p) for p in (1.0, 50.0, 100.0, 200.0)]
    assert errors[0] > 10 * errors[1]
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.1) and errors[2] / errors[3] == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("value", [0, -1.0, math.inf, "high", [1.0], [1.0, 0.0]])
def test_precision_is_a_number_or_one_for_each_hidden_layer(value):
    with pytest.raises(ValueError, match="precision is"):
        IncrementalPredictiveCoding(small_net(), precision=value)
    rule = IncrementalPredictiveCoding(small_net(), precision=[2.0, 3.0])
    with pytest.raises(ValueError, match="precision is"):
        rule.precision = value
    assert rule.precisions == [2.0, 3.0] and IncrementalPredictiveCoding(small_net()).precisions == [1.0, 1.0]
