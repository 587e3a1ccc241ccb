"""The science of target propagation: the targets, exact inverses, and what the feedback learns from one batch."""

import pytest
import torch
from helpers import ACTIVATIONS, LOSSES, batch, grads, largest_difference, small_net
from helpers.target_propagation import (
    LESSONS,
    RULES,
    SIZES,
    TARGETS,
    TRANSPOSING,
    biased,
    feedback_gradients,
    invertible,
    local_gradients,
    random_matrices,
    reconstruct,
    transpose,
    wrong,
)  # fmt: skip

import course_utils as cu
from course_utils.metrics import true_gradient
from course_utils.rules import DifferenceTargetPropagation, LocalDRL

EXACT = 1e-12
SQUARE = (5, 5, 5, 5, 5)  # where a transposed matrix still fits


# ------------------------------------------------------------------ targets and the lesson that layers take from them


def distance_to_local_losses(rule_class, sizes=SIZES[4], activation="tanh", loss="cross_entropy", targets="labels"):
    """Largest difference of the estimates to autograd's gradients of the layers' own losses."""
    net = small_net(sizes, activation, loss)
    rule, (x, y) = biased(rule_class(net, target_step=0.3)), batch(net, n=6, targets=targets)
    return largest_difference(grads(rule, x, y), local_gradients(rule, x, y))


@pytest.mark.parametrize("targets", ["labels", "values"])
@pytest.mark.parametrize("depth", SIZES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("rule_class", RULES)
def test_every_layer_descends_on_its_distance_to_its_target(rule_class, activation, loss, depth, targets):
    assert distance_to_local_losses(rule_class, SIZES[depth], activation, loss, targets) < EXACT


@pytest.mark.parametrize("name", [*TARGETS, "feedback transposed", "no bias"])
def test_wrong_targets_are_told_from_right_ones(name):
    assert distance_to_local_losses(DifferenceTargetPropagation, SQUARE) < EXACT
    assert distance_to_local_losses(wrong(name), SQUARE) > 1e-3


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_with_one_hidden_layer_it_is_backprop(activation, loss):
    net = small_net((7, 6, 3), activation, loss)
    x, y = batch(net)
    assert largest_difference(grads(DifferenceTargetPropagation(net).double(), x, y), true_gradient(net, x, y)) < EXACT
    assert largest_difference(grads(wrong("sign")(net).double(), x, y), true_gradient(net, x, y)) > 1e-3


# ------------------------------------------------------------------ exact inverses


def misses(rule, difference=True):
    """How far the targets are from what exact inverses promise: (from the chain of inverses, from their aim)."""
    net, (x, y) = rule.net, batch(rule.net, n=6, targets="values")
    h = [state.detach() for state in net.activations(x)]
    shifts = rule.shifts(h, net.output_error(h[-1], y))
    chain, off = shifts[-2], []
    for l in reversed(range(1, net.depth - 1)):
        chain = chain @ torch.linalg.inv(net.weights[l].detach()).T
        off.append((shifts[l] - chain).abs().max().item())
    there = h[1] + shifts[1]
    for l in range(1, net.depth - 1):
        there = net.nonlinearity(there @ net.weights[l].detach().T + net.biases[l].detach())
    return max(off), (there - h[-2] - shifts[-2]).abs().max().item()


def test_exact_inverses_give_the_chain_of_inverses_and_move_the_top_to_its_target():
    matrices = random_matrices(3)
    rule = invertible(matrices)
    assert max(misses(rule)) < 1e-11  # the worst of these matrices has condition number 71
    for name in ("feedback transposed", "difference turned round"):
        bad = wrong(name)(rule.net).double()
        bad.load_state_dict(rule.state_dict())
        assert min(misses(bad)) > 1e-2
    # without the difference it is the same, where the inverse is exact
    plain = wrong("no difference")(rule.net).double()
    plain.load_state_dict(rule.state_dict())
    assert max(misses(plain)) < 1e-11
    plain.feedback_biases[1] = 0 * plain.feedback_biases[1]
    assert max(misses(plain)) > 1e-2


def distance_to_backprop(singular_values, rule_class=DifferenceTargetPropagation, loss="squared_error"):
    """Largest difference of the estimates to autograd's gradient: linear network, exact inverses."""
    source = invertible(random_matrices(3, singular_values=singular_values), loss=loss)
    rule = rule_class(source.net).double()
    rule.load_state_dict(source.state_dict())
    x, y = batch(rule.net, n=6)
    return largest_difference(grads(rule, x, y), true_gradient(rule.net, x, y))


@pytest.mark.parametrize("loss", LOSSES)
def test_orthogonal_weights_make_it_backprop_and_others_do_not(loss):
    assert distance_to_backprop([1.0] * 5, loss=loss) < EXACT
    assert distance_to_backprop([0.3, 0.5, 1.0, 1.7, 3.0], loss=loss) > 1e-2
    for name in ("sign", "sum over the batch", "step not divided out", "feedback transposed"):
        assert distance_to_backprop([1.0] * 5, wrong(name), loss) > 1e-3


def test_a_message_through_inverses_and_backprops_always_agree_and_by_how_much():
    """⟨u M⁻ᵀ, u M⟩ = |u|² for every message u: the two never point against each other."""
    rule = invertible(random_matrices(3, singular_values=[0.2, 0.5, 1.0, 2.0, 4.0]), loss="cross_entropy")
    net, (x, y) = rule.net, batch(rule.net, n=6)
    h = [state.detach().requires_grad_() for state in net.activations(x)]
    e = net.output_error(h[-1], y)
    shifts = rule.shifts(h, e)
    told = -shifts[1] / rule.target_step
    backprop = e.detach()
    for w in reversed([w.detach() for w in net.weights[1:]]):
        backprop = backprop @ w
    u = e.detach() @ net.weights[-1].detach()
    assert ((told * backprop).sum(1) - u.pow(2).sum(1)).abs().max() < 1e-10
    assert cu.metrics.cosine(told, backprop) < 0.9


# ------------------------------------------------------------------ what the feedback learns from one batch


def distance_to_lesson(rule_class, lesson, sizes=SIZES[4], activation="tanh"):
    """Largest difference of the feedback's `.grad` to autograd's, for the same noise."""
    net = small_net(sizes, activation)
    rule, (x, y) = biased(rule_class(net, seed=1, jitter=0.4)), batch(net, n=6)
    right = feedback_gradients(rule, x, lesson)
    rule.zero_grad()
    rule.backward(x, y)
    return largest_difference([p.grad for p in rule.feedback_parameters()], right)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("depth", (3, 4))
def test_the_feedback_descends_on_its_own_loss_by_autograd(depth, activation):
    assert distance_to_lesson(DifferenceTargetPropagation, reconstruct, SIZES[depth], activation) < EXACT
    assert distance_to_lesson(LocalDRL, transpose, SIZES[depth], activation) < 1e-11  # divided by s²


@pytest.mark.parametrize("name", [name for name in LESSONS if name not in ("feedback transposed", "no bias")])
def test_wrong_reconstruction_is_noticed(name):
    assert distance_to_lesson(wrong(name), reconstruct) > 1e-3


@pytest.mark.parametrize("name", TRANSPOSING)
def test_wrong_transposing_is_noticed(name):
    assert distance_to_lesson(wrong(name), transpose) > 1e-3


def test_what_is_trained_and_at_which_rate():
    net = small_net((7, 6, 5, 3))
    for rule_class, lessons, ratio in ((DifferenceTargetPropagation, [1], 1.0), (LocalDRL, [1, 2], 3.0)):
        rule = rule_class(net)
        assert [l for l in range(3) if rule.feedback_weights[l] is not None] == lessons
        assert all(rule.feedback_weights[l].shape == net.weights[l].shape for l in lessons)
        assert all(rule.feedback_biases[l].shape == net.biases[l - 1].shape for l in lessons)
        network, feedback = rule.parameter_groups(0.2)
        assert (network["lr"], feedback["lr"]) == (0.2, 0.2 * ratio)
        both = [*network["params"], *feedback["params"]]
        assert {id(p) for p in both} == {id(p) for p in rule.parameters()} and len(both) == len(list(rule.parameters()))
        readout = {id(net.weights[-1]), id(net.biases[-1])}
        assert {id(p) for p in rule.hidden_parameters()} == {id(p) for p in rule.parameters()} - readout
