"""The science of PEPITA. Each fact is a function that a wrong rule must fail."""

import pytest
import torch
from helpers import ACTIVATIONS, LOSSES, batch, grads, largest_difference, mutant, small_net
from torch.nn.functional import one_hot

from course_utils.metrics import cosine, true_gradient
from course_utils.rules import Pepita

EXACT = 1e-12
# Square hidden layers, so that a transposed matrix still fits; the rest of the sizes are odd and different.
SIZES = {1: (7, 3), 2: (7, 5, 3), 3: (7, 5, 5, 3), 4: (7, 6, 6, 5, 3)}
F_OF = {  # the activations, written out once more
    "relu": lambda a: a * (a > 0),
    "tanh": torch.tanh,
    "sigmoid": lambda a: 1 / (1 + torch.exp(-a)),
    "hard_sigmoid": lambda a: a * (a > 0) * (a < 1) + (a >= 1),
    "linear": lambda a: a,
}


NUDGED, ERROR = "first = torch.addmm(first, error,", "(error if l == net.depth - 1 else"
MUTANTS = {  # {name: (in the source, instead of it)}
    "sign": ("feedback = self.feedback_scale", "feedback = -self.feedback_scale"),
    "swapped": ("h[l + 1] - second[l + 1]", "second[l + 1] - h[l + 1]"),
    "only the error": (NUDGED, "first = torch.addmm(net.biases[0], error,"),
    "error of pass 2": ("difference = (error", "difference = (net.output_error(second[-1], y)"),
    "with derivative": (ERROR, f"{ERROR} net.derivative(h[l + 1]) *"),
    "inputs of pass 1": ("difference.T @ second[l]", "difference.T @ h[l]"),
    "bias in F": (
        NUDGED,
        f"x = x + self.feedback_scale; first = torch.addmm(net.biases[0], x, net.weights[0].T); {NUDGED}",
    ),
    "sum": (" / len(x)", ""),
    "other mask": ("first, gains)  # (2)", "first, self.gains(x))  # (2)"),
    "no mask in pass 2": ("first, gains)  # (2)", "first, None)  # (2)"),
}


def wrong_rule(name):
    """PEPITA with one thing wrong."""
    return mutant(Pepita, *MUTANTS[name])


def as_published(net, feedback, x, y, gains=None):
    """The rule one example, one layer at a time, as the paper's algorithm has it; means over the batch."""
    f, total = F_OF[net.activation_name], [torch.zeros_like(p) for p in net.parameters()]

    def pass_through(h, n):
        activities = [h]
        for l in range(net.depth):
            a = net.weights[l] @ activities[-1] + net.biases[l]
            h = a if l == net.depth - 1 else f(a)
            activities.append(h if gains is None or l == net.depth - 1 else h * gains[l][n])
        return activities

    for n in range(len(x)):
        h = pass_through(x[n], n)
        target = one_hot(y[n], net.sizes[-1]) if y.dtype == torch.int64 else y[n]
        error = (torch.softmax(h[-1], 0) if net.loss_name == "cross_entropy" else h[-1]) - target
        second = pass_through(x[n] + feedback @ error, n)
        for l in range(net.depth):
            difference = error if l == net.depth - 1 else h[l + 1] - second[l + 1]
            total[l] += torch.outer(difference, second[l]) / len(x)
            total[net.depth + l] += difference / len(x)
    return [t.detach() for t in total]


def distance_to_published(
    rule_class, sizes=SIZES[3], activation="tanh", loss="cross_entropy", targets="labels", dropout=0.0, scale=0.7
):
    net = small_net(sizes, activation, loss)
    rule, (x, y) = rule_class(net, feedback_scale=scale, dropout=dropout).double(), batch(net, targets=targets)
    gains = None
    if dropout:
        state = rule.generator.get_state()
        gains = rule.gains(x)
        rule.generator.set_state(state)
    return largest_difference(grads(rule, x, y), as_published(net, scale * rule.feedback, x, y, gains))


@pytest.mark.parametrize("targets", ["labels", "values"])
@pytest.mark.parametrize("depth", SIZES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_it_is_the_published_algorithm(activation, loss, depth, targets):
    assert distance_to_published(Pepita, SIZES[depth], activation, loss, targets) < EXACT


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_both_passes_wear_the_same_mask(activation, depth):
    assert distance_to_published(Pepita, SIZES[depth], activation, dropout=0.5) < EXACT


@pytest.mark.parametrize("wrong", list(MUTANTS)[:-2])
def test_mutants_are_not_the_published_algorithm(wrong):
    assert distance_to_published(wrong_rule(wrong)) > 1e-3


@pytest.mark.parametrize("wrong", ["other mask", "no mask in pass 2"])
def test_mutants_with_another_mask_are_not(wrong):
    assert distance_to_published(wrong_rule(wrong), dropout=0.5) > 1e-2


def feedback_alignment(net, x, y, back):
    """Gradients of the message e B for a network with one hidden layer, B (outputs, hidden)."""
    h = net.activations(x)
    error = net.output_error(h[-1], y) / len(x)
    delta = (error @ back) * net.derivative(h[1])
    return [t.detach() for t in (delta.T @ x, error.T @ h[1], delta.sum(0), error.sum(0))]


def apart_from_feedback_alignment(rule_class, scale, activation="tanh", loss="cross_entropy"):
    """(cosine, relative distance) of the hidden weights' update to feedback alignment's with B = −(W₁F)ᵀ."""
    net = small_net((31, 17, 5), activation, loss)
    rule, (x, y) = rule_class(net, feedback_scale=scale, dropout=0.0).double(), batch(net, n=13)
    theirs = feedback_alignment(net, x, y, -(net.weights[0].detach() @ (scale * rule.feedback)).T)
    ours = grads(rule, x, y)
    distance = max(((a - b).norm() / b.norm()).item() for a, b in zip(ours, theirs, strict=True))
    return cosine(ours[0].flatten(), theirs[0].flatten()), distance


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "linear", "relu"])
def test_it_tends_to_feedback_alignment_through_minus_w1_f(activation, loss):
    assert apart_from_feedback_alignment(Pepita, 1e-4, activation, loss)[0] > 0.9999
    (cosine_far, far), (_, near) = (apart_from_feedback_alignment(Pepita, s, activation, loss) for s in (1.0, 1e-5))
    assert near < 1e-3 < far and cosine_far < 0.999


def test_what_is_left_shrinks_in_proportion_to_f():
    far, near = (apart_from_feedback_alignment(Pepita, s)[1] for s in (2e-4, 1e-4))
    assert far / near == pytest.approx(2, rel=0.01)  # first order in F


@pytest.mark.parametrize("wrong", ["sign", "swapped", "only the error", "with derivative", "bias in F"])
def test_mutants_do_not_tend_to_it(wrong):
    assert apart_from_feedback_alignment(wrong_rule(wrong), 1e-4)[0] < 0.99


def slope_miss(rule_class, depth=4, scale=1e-6):
    """Relative distance of the bias gradients of all hidden layers to −J_l F e, J_l the Jacobian of h_l in x."""
    net = small_net(SIZES[depth])
    rule, (x, y) = rule_class(net, feedback_scale=scale, dropout=0.0).double(), batch(net)
    error = net.output_error(net(x), y).detach()
    hidden = lambda x: tuple(net.activations(x)[1:-1])  # noqa: E731
    _, slopes = torch.autograd.functional.jvp(hidden, x, error @ (scale * rule.feedback).T)
    ours = grads(rule, x, y)[depth:-1]
    return max(((a + s.mean(0)).norm() / s.mean(0).norm()).item() for a, s in zip(ours, slopes, strict=True))


def test_in_every_hidden_layer_it_is_a_slope_forward_along_f_e():
    assert slope_miss(Pepita) < 1e-4
    for wrong in ("sign", "swapped", "with derivative", "bias in F"):
        assert slope_miss(wrong_rule(wrong)) > 1e-2, wrong


def test_in_a_linear_network_the_message_is_exact_at_any_scale():
    def miss(rule_class, scale):
        net = small_net(SIZES[2], "linear")
        rule, (x, y) = rule_class(net, feedback_scale=scale, dropout=0.0).double(), batch(net)
        theirs = feedback_alignment(net, x, y, -(net.weights[0].detach() @ (scale * rule.feedback)).T)
        ours = grads(rule, x, y)
        return max((ours[i] - theirs[i]).abs().max().item() for i in (2, 3))  # biases: the message alone

    for scale in (1e-3, 0.05, 1.0, 30.0):
        assert miss(Pepita, scale) < EXACT * max(1, scale)
    assert miss(wrong_rule("sign"), 1.0) > 1e-2 and miss(wrong_rule("bias in F"), 1.0) > 1e-2


def test_without_feedback_it_is_the_frozen_control():
    net = small_net()
    rule, (x, y) = Pepita(net, feedback_scale=0.0, dropout=0.3).double(), batch(net)
    ours = grads(rule, x, y)
    assert all(ours[i].abs().max() == 0 for i in (0, 1, 3, 4)) and ours[2].abs().max() > 1e-3
    net.activity_noise, net.noise_seed = 0.5, 7  # both passes meet the same noise, so nothing differs
    assert all(grads(rule, x, y)[i].abs().max() == 0 for i in (0, 1, 3, 4))


def self_feeding_miss(rule_class):
    """On a dark image, in a linear network, W₁F must change by +η W₁F ⟨e eᵀ⟩ FᵀF."""
    net = small_net(SIZES[2], "linear")
    rule, (x, y) = rule_class(net, feedback_scale=0.7, dropout=0.0).double(), batch(net)
    x = torch.zeros_like(x)
    w1, f, e = net.weights[0].detach(), 0.7 * rule.feedback, net.output_error(net(x), y).detach()
    return (grads(rule, x, y)[0] @ f + w1 @ f @ (e.T @ e / len(x)) @ (f.T @ f)).abs().max().item()


def test_w1_f_feeds_itself_with_the_square_of_f():
    assert self_feeding_miss(Pepita) < EXACT
    for wrong in ("swapped", "sum", "inputs of pass 1"):
        assert self_feeding_miss(wrong_rule(wrong)) > 1e-3, wrong


def test_the_output_layer_tends_to_the_true_gradient():
    def miss(scale):
        net = small_net()
        rule, (x, y) = Pepita(net, feedback_scale=scale, dropout=0.0).double(), batch(net)
        ours, true = grads(rule, x, y), true_gradient(net, x, y)
        assert (ours[5] - true[5]).abs().max() < EXACT  # its bias sees e alone
        return ((ours[2] - true[2]).norm() / true[2].norm()).item()

    assert miss(1e-6) < 1e-5 and miss(1.0) > 1e-2
