"""What the three rules of direct feedback equal: exact facts, and rules made wrong on purpose that must miss them."""

from functools import partial

import pytest
import torch
from helpers import ACTIVATIONS, LOSSES, batch, grads, largest_difference, mutant, small_net

from course_utils.metrics import true_gradient
from course_utils.rules import DirectFeedbackAlignment, DirectRandomTargetProjection, ErrorSignDFA, FeedbackAlignment

EXACT = 1e-12
RULES = [DirectFeedbackAlignment, ErrorSignDFA, DirectRandomTargetProjection]
SIZES = {1: (7, 3), 2: (7, 5, 3), 3: (7, 5, 5, 3), 4: (7, 6, 6, 5, 3)}
ALIKE = (7, 6, 6, 6, 3)  # where another layer's feedback still fits
SENT = "self.feedback_weights[l + 1]"
MUTANTS = {
    "sign": ("(message @", "-(message @"),
    "no derivative": (" * self.net.derivative(h[l + 1])", ""),
    "sum over the batch": (" / len(x)", ""),
    "outputs exchanged": (SENT, f"{SENT}.roll(1, 0)"),
    "another layer's feedback": (SENT, "self.feedback_weights[self.net.depth - 1 - l]"),
}


def wrong_rule(name, message_of=DirectFeedbackAlignment):
    """Direct feedback alignment with one thing wrong, sending what `message_of` sends."""
    made = mutant(DirectFeedbackAlignment, *MUTANTS[name])
    return type(name, (made,), {"message": message_of.message})


def hidden(net, tensors):
    """Of a list that runs as net.parameters(): the hidden layers' weights and biases."""
    return [*tensors[: net.depth - 1], *tensors[net.depth : -1]]


def readout(net, tensors):
    return [tensors[net.depth - 1], tensors[-1]]


def centred(rule):
    """The same rule, its feedback made to sum to zero over the outputs."""
    for l in range(1, rule.net.depth):
        rule.feedback_weights[l] = rule.feedback_weights[l] - rule.feedback_weights[l].mean(0)
    return rule


# ------------------------------------------------------------------ relations to rules that are known


def distance_to_feedback_alignment(
    rule_class, sizes=SIZES[2], activation="tanh", loss="cross_entropy", targets="labels"
):
    net = small_net(sizes, activation, loss)
    x, y = batch(net, targets=targets)
    chain, direct = FeedbackAlignment(net, seed=1).double(), rule_class(net, seed=1).double()
    for l in range(1, net.depth):
        if direct.feedback_weights[l].shape == chain.feedback_weights[l].shape:
            direct.feedback_weights[l] = chain.feedback_weights[l]
    return largest_difference(grads(chain, x, y), grads(direct, x, y))


@pytest.mark.parametrize("targets", ["labels", "values"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_with_one_hidden_layer_it_is_feedback_alignment(activation, loss, targets):
    assert distance_to_feedback_alignment(DirectFeedbackAlignment, SIZES[2], activation, loss, targets) < EXACT


def test_with_two_hidden_layers_it_is_not():
    assert distance_to_feedback_alignment(DirectFeedbackAlignment, SIZES[3]) > 1e-3


@pytest.mark.parametrize("wrong", ["sign", "no derivative", "sum over the batch", "outputs exchanged"])
def test_mutants_are_not_feedback_alignment(wrong):
    assert distance_to_feedback_alignment(wrong_rule(wrong)) > 1e-3


def distance_to_backprop(rule_class, depth=3, loss="cross_entropy"):
    """A linear network, and each feedback the product of the forward weights it skips."""
    net = small_net(SIZES[depth], "linear", loss)
    rule, (x, y) = rule_class(net, seed=1).double(), batch(net)
    product = net.weights[-1].detach()
    for l in reversed(range(1, depth)):
        rule.feedback_weights[l] = product
        product = product @ net.weights[l - 1].detach()
    return largest_difference(grads(rule, x, y), true_gradient(net, x, y))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("depth", SIZES)
def test_in_a_linear_network_with_feedback_the_product_of_the_weights_it_is_autograd(depth, loss):
    assert distance_to_backprop(DirectFeedbackAlignment, depth, loss) < EXACT


@pytest.mark.parametrize("wrong", ["sign", "sum over the batch", "outputs exchanged", "another layer's feedback"])
def test_mutants_are_not_autograd(wrong):
    assert distance_to_backprop(wrong_rule(wrong)) > 1e-3
    assert distance_to_backprop(ErrorSignDFA) > 1e-3


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("depth", SIZES)
@pytest.mark.parametrize("rule_class", RULES)
def test_the_readout_gets_the_true_gradient(rule_class, depth, loss):
    net = small_net(SIZES[depth], loss=loss)
    x, y = batch(net)
    ours, true = grads(rule_class(net, seed=3).double(), x, y), true_gradient(net, x, y)
    assert largest_difference(readout(net, ours), readout(net, true)) < EXACT
    if depth > 1:
        assert largest_difference(hidden(net, ours), hidden(net, true)) > 1e-3


# ------------------------------------------------------------------ the sign is the label


def test_under_a_softmax_the_sign_of_the_error_is_the_label_and_a_constant():
    net = small_net()
    x, y = batch(net, n=50)
    one_hot = torch.nn.functional.one_hot(y, 3).double()
    assert torch.equal(torch.sign(net.output_error(net(x), y)), 1 - 2 * one_hot)
    squared = small_net(loss="squared_error")
    assert not torch.equal(torch.sign(squared.output_error(squared(x), y)), 1 - 2 * one_hot)


def hidden_distance(one, factor, other, prepare=centred, loss="cross_entropy", seed=0):
    """Largest difference of the hidden estimates of `one` and of `factor` times those of `other`."""
    net = small_net(loss=loss, seed=seed)
    x, y = batch(net)
    ours, theirs = (hidden(net, grads(prepare(r(net, seed=5).double()), x, y)) for r in (one, other))
    return largest_difference(ours, [factor * t for t in theirs])


def test_with_centred_feedback_sign_dfa_is_twice_target_projection():
    distance = partial(hidden_distance, ErrorSignDFA, 2, DirectRandomTargetProjection)
    assert distance() < EXACT
    assert distance(prepare=lambda rule: rule) > 1e-3  # the constant is not nothing
    assert distance(loss="squared_error") > 1e-3
    assert hidden_distance(wrong_rule("sign", ErrorSignDFA), 2, DirectRandomTargetProjection) > 1e-3


def change_by_centring(rule_class, loss="cross_entropy"):
    net = small_net(loss=loss)
    x, y = batch(net)
    plain, without = (grads(f(rule_class(net, seed=5).double()), x, y) for f in (lambda rule: rule, centred))
    return largest_difference(plain, without)


def test_the_error_of_a_softmax_does_not_see_the_mean_of_the_feedback_but_sign_and_label_do():
    assert change_by_centring(DirectFeedbackAlignment) < EXACT
    assert change_by_centring(DirectFeedbackAlignment, "squared_error") > 1e-3
    assert change_by_centring(ErrorSignDFA) > 1e-3
    assert change_by_centring(DirectRandomTargetProjection) > 1e-3


# ------------------------------------------------------------------ the label alone


def change_with_the_layers_above(rule_class, l, seed=0):
    """How much the estimates of layers up to l (counted from 0) change when all weights above are replaced."""
    net = small_net(SIZES[4], seed=seed)
    x, y = batch(net)
    rule = rule_class(net, seed=5).double()
    before = grads(rule, x, y)
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for p in [*net.weights[l + 1 :], *net.biases[l + 1 :]]:
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype))
    after = grads(rule, x, y)
    kept = [*range(l + 1), *range(net.depth, net.depth + l + 1)]
    return largest_difference([before[i] for i in kept], [after[i] for i in kept])


@pytest.mark.parametrize("l", [0, 1, 2])
def test_a_hidden_layer_of_target_projection_knows_nothing_of_what_is_above_it(l):
    assert change_with_the_layers_above(DirectRandomTargetProjection, l) == 0
    assert change_with_the_layers_above(DirectFeedbackAlignment, l) > 1e-3
    assert change_with_the_layers_above(FeedbackAlignment, l) > 1e-3


def distance_to_the_layers_own_objective(rule_class, activation="tanh", sizes=SIZES[4]):
    """Largest difference to autograd's gradient of −⟨y* B_l · h_l⟩ by layer l's own weights, over the hidden layers."""
    net = small_net(sizes, activation)
    x, y = batch(net)
    rule = rule_class(net, seed=5).double()
    ours, h = grads(rule, x, y), net.activations(x)
    gaps = []
    for l in range(net.depth - 1):
        own = net._f(torch.nn.functional.linear(h[l].detach(), net.weights[l], net.biases[l]))
        objective = -(rule.feedback_weights[l + 1][y] * own).sum(1).mean()
        theirs = torch.autograd.grad(objective, [net.weights[l], net.biases[l]])
        gaps.append(largest_difference([ours[l], ours[net.depth + l]], theirs))
    return max(gaps)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_target_projection_follows_the_gradient_of_each_layers_own_objective(activation):
    assert distance_to_the_layers_own_objective(DirectRandomTargetProjection, activation) < EXACT


@pytest.mark.parametrize("wrong", MUTANTS)
def test_mutants_follow_another(wrong):
    right, made = DirectRandomTargetProjection, wrong_rule(wrong, DirectRandomTargetProjection)
    assert distance_to_the_layers_own_objective(right, sizes=ALIKE) < EXACT
    assert distance_to_the_layers_own_objective(made, sizes=ALIKE) > 1e-3


def test_target_projection_takes_target_values_too():
    net = small_net(loss="squared_error")
    x, y = batch(net)
    rule = DirectRandomTargetProjection(net).double()
    one_hot = torch.nn.functional.one_hot(y, 3).double()
    assert largest_difference(grads(rule, x, y), grads(rule, x, one_hot)) < EXACT
    assert largest_difference(grads(rule, x, y), grads(rule, x, 2 * one_hot)) > 1e-3


def test_where_the_error_is_zero_only_sign_and_label_go_on():
    net = small_net(loss="squared_error")
    x, _ = batch(net)
    y = net(x).detach()
    for rule_class, silent in (
        (DirectFeedbackAlignment, True),
        (ErrorSignDFA, True),
        (DirectRandomTargetProjection, False),
    ):
        estimates = hidden(net, grads(rule_class(net).double(), x, y))
        assert all((g == 0).all() for g in estimates) == silent
