"""Feedback taught by perturbation: what it moves towards, and that the step is feedback alignment's."""

import math

import pytest
import torch
from helpers import batch, flat, grads, largest_difference, mutant, small_net, snapshot
from helpers.hybrids import same

from course_utils.metrics import alignment_angle, true_gradient
from course_utils.rules import FeedbackAlignment, PerturbationTaughtFeedback

EXACT = 1e-12
MUTANTS = {  # {name: (in the source, instead of it)}
    "no derivative": ("net.derivative(h[l])", "torch.ones_like(h[l])"),
    "one slope for the batch": ("(up - down) / (2 * std)", "((up - down) / (2 * std)).mean().expand(len(x))"),
    "backwards": ("b.sub_(", "b.add_("),
}


def lessons_of(rule_class, activation="tanh", draws=1000):
    """Rows of standard scores by which the mean change of each B misses (5) without its noise, and the z of a B = W."""
    net = small_net((7, 6, 5, 3), activation)
    x, y = batch(net, n=5)
    rule = rule_class(net, seed=2, perturbation_std=1e-4).double()
    h = net.activations(x)
    delta, expected = net.output_error(h[-1], y), {}
    right = delta
    for l in (2, 1):
        w, b, f = net.weights[l].detach(), rule.feedback_weights[l].clone(), net.derivative(h[l])
        size = delta.square().sum(1, keepdim=True)
        miss = ((delta @ b) * f - (right @ w) * f) * f  # what shaking finds is the true message, in the mean
        expected[l] = -0.5 * (delta / (size + size.mean())).T @ miss / len(x)
        delta, right = (delta @ b) * f, (right @ w) * f
    start = {l: rule.feedback_weights[l].clone() for l in (1, 2)}
    changes: dict = {1: [], 2: []}
    for _ in range(draws):
        for l in (1, 2):
            rule.feedback_weights[l] = start[l]
        rule.teach_feedback(x, y)
        for l in (1, 2):
            changes[l].append(rule.feedback_weights[l] - start[l])
    scores = []
    for l in (1, 2):
        seen = torch.stack(changes[l])
        scores.append((seen.mean(0) - expected[l]) / (seen.std(0) / math.sqrt(draws)).clamp(min=1e-9))
    return flat(scores).square().mean().sqrt().item()


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_feedback_moves_on_average_as_regression_on_the_true_message_would(activation):
    assert lessons_of(PerturbationTaughtFeedback, activation) < 1.5
    for wrong in MUTANTS.values():
        assert lessons_of(mutant(PerturbationTaughtFeedback, *wrong), activation) > 3


def message_angles(rule, x, y):
    """Angle of the message of each hidden layer to the true one, from the top down."""
    net = rule.net
    h = net.activations(x)
    told = right = net.output_error(h[-1], y)
    found = []
    for l in reversed(range(1, net.depth)):
        told = ((told @ rule.feedback_weights[l]) * net.derivative(h[l])).detach()
        right = ((right @ net.weights[l]) * net.derivative(h[l])).detach()
        found.append(alignment_angle(told, right))
    return found


def test_feedback_comes_to_do_what_the_transposed_weights_would():
    net = small_net((7, 13, 11, 5))
    x, y = batch(net, n=60)
    rule = PerturbationTaughtFeedback(net, seed=2, feedback_rate=0.2).double()
    before = message_angles(rule, x, y)
    for _ in range(1500):
        rule.teach_feedback(x, y)
    after = message_angles(rule, x, y)
    assert all(a < 25 < b for a, b in zip(after, before, strict=True)), (before, after)


def test_with_the_right_feedback_it_is_backprop_and_backward_never_teaches():
    net = small_net()
    rule, (x, y) = PerturbationTaughtFeedback(net, seed=2).double(), batch(net)
    before = snapshot(rule)
    assert same(grads(rule, x, y), grads(FeedbackAlignment(net, seed=2).double(), x, y))
    after = snapshot(rule)
    assert {name for name in before if before[name] != after[name]} <= {"grad"}
    for l in (1, 2):
        rule.feedback_weights[l] = net.weights[l]
    assert largest_difference(grads(rule, x, y), true_gradient(net, x, y)) < EXACT


def test_a_step_is_feedback_alignments_and_then_the_feedbacks():
    rule, plain = (c(small_net(), seed=3).double() for c in (PerturbationTaughtFeedback, FeedbackAlignment))
    x, y = batch(rule.net)
    for r in (rule, plain):
        r.step(x, y, torch.optim.SGD(r.parameters(), lr=0.1))
    assert same(list(rule.net.parameters()), list(plain.net.parameters()))
    assert not torch.equal(rule.feedback_weights[1], plain.feedback_weights[1])
