"""What becomes of the feedback: never taught, taught to reconstruct or to transpose; and what the difference does."""

import pytest
import torch
from helpers import LOSSES, batch, grads, largest_difference, small_net
from helpers.target_propagation import back, biased, wrong

from course_utils.metrics import cosine, true_gradient
from course_utils.rules import DifferenceTargetPropagation, FeedbackAlignment, LocalDRL
from course_utils.studies.target_propagation import NeverTaughtDRL, NoDifference

EXACT = 1e-12


# ------------------------------------------------------------------ never taught: feedback alignment


def distance_to_feedback_alignment(rule_class, activation="linear", loss="cross_entropy", target_step=0.1):
    """Largest difference of the estimates to lesson 06's, with the same B; the readout's own weights where no B is."""
    net = small_net((7, 6, 6, 5, 3), activation, loss)
    rule, alignment = biased(rule_class(net, target_step=target_step)), FeedbackAlignment(net).double()
    for l in range(1, net.depth):
        b = rule.feedback_weights[l]
        alignment.feedback_weights[l] = net.weights[l] if b is None else b
    x, y = batch(net, n=6)
    return largest_difference(grads(rule, x, y), grads(alignment, x, y))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("rule_class", [DifferenceTargetPropagation, LocalDRL])
def test_in_a_linear_network_it_is_feedback_alignment_with_what_b_is_now(rule_class, loss):
    assert distance_to_feedback_alignment(rule_class, loss=loss) < EXACT
    assert distance_to_feedback_alignment(NoDifference, loss=loss) > 1e-2
    for name in ("sign", "sum over the batch", "step not divided out"):
        assert distance_to_feedback_alignment(wrong(name, rule_class), loss=loss) > 1e-3
    assert distance_to_feedback_alignment(rule_class, "tanh", loss) > 1e-2  # there its f′ is the inverse's own


def distance_to_the_limit(target_step, rule_class=DifferenceTargetPropagation):
    """Relative distance of all estimates to what small steps tend to: the message times B and the inverse's own f′."""
    net = small_net((7, 6, 6, 5, 3))
    rule, (x, y) = biased(rule_class(net, target_step=target_step)), batch(net, n=6)
    h = [state.detach() for state in net.activations(x)]
    message, limit = net.output_error(h[-1], y), []
    for l in reversed(range(net.depth)):
        error = message if l == net.depth - 1 else message * net.derivative(h[l + 1])
        limit.insert(0, error.T @ h[l] / len(x))
        if l in rule.inverted:
            message = (message @ rule.feedback_weights[l]) * net.derivative(back(rule, l, h[l + 1]))
        elif l > 0:
            message = message @ net.weights[l]
    ours = grads(rule, x, y)[: net.depth]
    flat = [torch.cat([g.flatten() for g in found]) for found in (ours, limit)]
    return ((flat[0] - flat[1]).norm() / flat[1].norm()).item()


def test_small_steps_make_it_a_linear_message_to_first_order():
    errors = {step: distance_to_the_limit(step) for step in (1e-1, 1e-2, 1e-3)}
    assert errors[1e-2] / errors[1e-3] == pytest.approx(10, rel=0.05) and errors[1e-3] < 1e-3
    assert distance_to_the_limit(1e-3, NoDifference) > 1
    assert distance_to_the_limit(1e-3, wrong("difference turned round")) > 1


# ------------------------------------------------------------------ what the difference does


def sizes_of_shifts(rule_class, target_step):
    """|t − h| / |h| of the two lower hidden layers, whose inverses are random."""
    net = small_net((7, 6, 6, 5, 3))
    rule, (x, y) = rule_class(net, target_step=target_step).double(), batch(net, n=6)
    h = [state.detach() for state in net.activations(x)]
    shifts = rule.shifts(h, net.output_error(h[-1], y))
    return [(shifts[l].norm() / h[l].norm()).item() for l in (1, 2)]


def test_with_the_difference_a_target_is_as_near_as_asked_and_without_it_never():
    near, nearer = (sizes_of_shifts(DifferenceTargetPropagation, step) for step in (1e-3, 1e-4))
    assert all(a / b == pytest.approx(10, rel=0.01) and a < 1e-3 for a, b in zip(near, nearer, strict=True))
    for rule_class in (NoDifference, wrong("no difference")):
        assert min(sizes_of_shifts(rule_class, 1e-4)) > 0.5


# ------------------------------------------------------------------ reconstructing is not transposing


def taught(rule_class, steps=250):
    """Cosine of each B to its W, and of all hidden layers' update to backprop's, when only the feedback has learned."""
    net = small_net((5, 8, 8, 8, 5))
    with torch.no_grad():
        for w in net.weights:
            w.mul_(0.6)
    rule, (x, y) = rule_class(net, target_step=1e-3, jitter=0.1).double(), batch(net, n=60)
    optimizer = torch.optim.Adam(rule.feedback_parameters(), lr=0.02)
    for _ in range(steps):
        rule.step(x, y, optimizer)
        net.zero_grad()
    ours, true = (
        torch.cat([g.flatten() for g in found[:3]]) for found in (grads(rule, x, y), true_gradient(net, x, y))
    )
    return [cosine(rule.feedback_weights[l], net.weights[l]) for l in (1, 2)], cosine(ours, true)


def test_feedback_that_learns_to_transpose_becomes_the_transpose_and_feedback_that_reconstructs_does_not():
    weights, update = taught(LocalDRL)
    assert min(weights) > 0.95 and update > 0.95
    reconstructing, _ = taught(DifferenceTargetPropagation)
    assert max(reconstructing) < 0.8
    assert min(taught(wrong("sign of the first term"))[0]) < -0.9
    assert max(taught(NeverTaughtDRL)[0]) < 0.5


def test_without_its_second_term_the_feedback_grows_for_ever():
    def size(rule_class):
        net = small_net((5, 8, 8, 5), activation="linear")
        rule, (x, y) = rule_class(net).double(), batch(net, n=100)
        optimizer = torch.optim.SGD(rule.feedback_parameters(), lr=0.5)
        for _ in range(300):
            rule.step(x, y, optimizer)
            net.zero_grad()
        return rule.feedback_weights[1].norm().item() / net.weights[1].norm().item()

    assert size(LocalDRL) == pytest.approx(1, abs=0.1)
    assert size(wrong("only the first term")) > 10


def slope_at(matrix_of, rule_class, draws=600):
    """By how many standard errors the mean lesson of B differs from 0, in a linear network where B is matrix_of(W)."""
    net = small_net((7, 4, 4, 3), activation="linear")
    rule, (x, y) = rule_class(net, seed=2).double(), batch(net, n=5)
    rule.feedback_weights[1] = matrix_of(net.weights[1].detach())
    rule.feedback_biases[1] = net.biases[0].detach() - net.biases[1].detach() @ rule.feedback_weights[1]
    found = []
    for _ in range(draws):
        rule.zero_grad()
        rule.backward(x, y)
        found.append(rule.feedback_weights[1].grad)
    found = torch.stack(found)
    return (found.mean(0).abs() / (found.std(0) / draws**0.5).clamp(min=1e-12)).max().item()


def test_the_transpose_is_where_transposing_comes_to_rest_and_the_inverse_where_reconstructing_does():
    def inverse(w):
        return torch.linalg.inv(w).T

    def itself(w):
        return w

    assert slope_at(itself, LocalDRL) < 4.5  # of 16 numbers
    assert slope_at(inverse, LocalDRL) > 10
    assert slope_at(itself, wrong("sign of the first term")) > 10
