"""The science of Kolen–Pollack. Each fact is a function that a wrong rule must fail."""

import pytest
import torch
from helpers import ACTIVATIONS, LOSSES, batch, clusters, grads, largest_difference, small_net
from helpers.hidden_angle import hidden_angle
from helpers.kolen_pollack import gaps, wrong

import course_utils as cu
from course_utils.metrics import cosine, true_gradient
from course_utils.rules import FeedbackAlignment, KolenPollack
from course_utils.studies.kolen_pollack import moving_run

EXACT = 1e-12
# Square hidden layers, so that a transposed matrix still fits; the rest of the sizes are odd and different.
SIZES = {1: (7, 3), 2: (7, 5, 3), 3: (7, 5, 5, 3), 4: (7, 6, 6, 5, 3)}


def distance_to_backprop(
    rule_class, sizes=SIZES[3], activation="tanh", loss="cross_entropy", targets="labels", steps=0
):
    """Largest difference to autograd with B := W, after that many steps."""
    net = small_net(sizes, activation, loss)
    rule, (x, y) = rule_class(net, decay=0.01).double(), batch(net, targets=targets)
    for l in range(1, net.depth):
        rule.feedback_weights[l] = net.weights[l]
    optimizer = torch.optim.SGD(rule.parameters(), lr=0.05, momentum=0.9)
    for _ in range(steps):
        rule.step(x, y, optimizer)
    return largest_difference(grads(rule, x, y), true_gradient(net, x, y))


@pytest.mark.parametrize("targets", ["labels", "values"])
@pytest.mark.parametrize("depth", SIZES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_with_b_equal_to_w_it_is_autograd(activation, loss, depth, targets):
    assert distance_to_backprop(KolenPollack, SIZES[depth], activation, loss, targets) < EXACT


def test_with_b_equal_to_w_it_stays_autograd():
    assert distance_to_backprop(KolenPollack, steps=30) < EXACT
    for name in ("minus", "half the rate", "other batch", "fixed feedback", "unequal decay"):
        assert distance_to_backprop(wrong(name), steps=30) > 1e-5, name


@pytest.mark.parametrize("name", ["transposed", "sign", "no derivative", "sum"])
def test_mutants_are_not_backprop(name):
    assert distance_to_backprop(wrong(name)) > 1e-3


@pytest.mark.parametrize("depth", SIZES)
@pytest.mark.parametrize("loss", LOSSES)
def test_output_layer_is_always_exact(loss, depth):
    net = small_net(SIZES[depth], loss=loss)
    x, y = batch(net)
    ours, true = grads(KolenPollack(net, seed=3).double(), x, y), true_gradient(net, x, y)
    last = [depth - 1, 2 * depth - 1]
    assert largest_difference([ours[i] for i in last], [true[i] for i in last]) < EXACT
    if depth > 1:
        assert (ours[0] - true[0]).abs().max() > 1e-3


def test_feedback_gets_the_gradient_of_its_weights_bit_for_bit_and_accumulates_apart():
    net = small_net()
    rule, (x, y) = KolenPollack(net).double(), batch(net)
    rule.backward(x, y)
    rule.backward(x, 2 - y)  # a second batch on top, as PyTorch accumulates
    for l in range(1, net.depth):
        assert torch.equal(rule.feedback_weights[l].grad, net.weights[l].grad)
    once = grads(KolenPollack(small_net()).double(), x, y)
    again = grads(KolenPollack(small_net()).double(), x, 2 - y)
    total = [p.grad for p in net.parameters()]
    assert largest_difference(total, [a + b for a, b in zip(once, again, strict=True)]) < EXACT


@pytest.mark.parametrize("decay", [0.01, 0.04])
def test_at_rest_the_gradient_balances_the_decay(decay):
    def miss(rule_class):
        net, lr = small_net(SIZES[2], seed=1), 0.3
        rule, (x, y) = cu.FrozenHidden(rule_class(net, decay=decay).double()), batch(net, n=11)  # so that it arrives
        opt = torch.optim.SGD(rule.parameters(), lr=lr)
        for _ in range(1800):
            rule.step(x, y, opt)
        gradient, w = grads(rule, x, y)[1], net.weights[1].detach()
        pull = -decay / (lr * (1 - decay)) * w
        return ((gradient - pull).norm() / pull.norm()).item()

    assert miss(KolenPollack) < 1e-6
    assert miss(wrong("decay times lr")) > 0.1


def test_only_weights_with_feedback_decay():
    net = small_net(SIZES[3])
    rule = KolenPollack(net, decay=0.25).double()
    before = {name: value.clone() for name, value in rule.state_dict().items()}
    rule.step(*batch(net), torch.optim.SGD(rule.parameters(), lr=0.0))
    for name, value in rule.state_dict().items():
        decays = name in ("net.weights.1", "net.weights.2") or name.startswith("feedback_weights")
        assert torch.equal(value, 0.75 * before[name] if decays else before[name]), name


def test_all_of_it_may_not_be_lost():
    for decay in (1, 1.5):
        with pytest.raises(ValueError, match="decay is .* at least 0 and below 1"):
            KolenPollack(small_net(), decay=decay)


def test_the_frozen_control_keeps_the_feedback_beside_hidden_layers_and_teaches_the_last():
    net = small_net(SIZES[4])
    rule = KolenPollack(net, decay=0.1).double()
    before = [None if b is None else b.detach().clone() for b in rule.feedback_weights]
    cu.FrozenHidden(rule).step(*batch(net), torch.optim.SGD(rule.parameters(), lr=0.1))
    moved = [not torch.equal(rule.feedback_weights[l], before[l]) for l in range(1, net.depth)]
    assert moved == [False, False, True]


def test_decay_may_move_while_training_runs():
    def train(knobs):
        rule = KolenPollack(cu.MLP([12, 9, 4]), decay=0.3)
        (start,) = gaps(rule)
        cu.train(rule, clusters(n=200), epochs=1, lr=0.05, batch_size=20, knobs=knobs, progress=False)
        return (gaps(rule)[0].norm() / start.norm()).item()

    assert train({"decay": 0.1}) == pytest.approx(0.9**10, rel=1e-4)
    assert train({"decay": [(0, 0.1), (80, 0.0)]}) == pytest.approx(0.9**4, rel=1e-4)


def test_a_run_whose_decay_moves_is_told_by_its_name():
    def end(decay):
        run = moving_run(f"KolenPollack(decay={decay})", [784, 8, 10], 0.1, 2, dataset="digits", epochs=2)
        return run.val_accuracy.iloc[-1], set(run.rule)

    moved, names = end([[0, 0.3], [640, 0.0]])
    assert names == {"KolenPollack(decay=[[0, 0.3], [640, 0.0]])"}
    assert end([[0, 0.3], [10_000, 0.0]])[0] == end(0.3)[0] != moved


def test_feedback_is_trained_independent_of_the_weights_and_as_large():
    net = cu.MLP([300, 200, 150], seed=4)
    rule = KolenPollack(net, seed=4)  # the same seed as the network's
    b = rule.feedback_weights[1].detach()
    assert rule.feedback_weights[0] is None and any(rule.feedback_weights[1] is p for p in rule.parameters())
    assert abs(cosine(b.flatten(), net.weights[1].detach().flatten())) < 4 / b.numel() ** 0.5
    assert (b.std() / net.weights[1].std()).item() == pytest.approx(1, rel=0.02)


def test_hidden_angle_falls_below_that_of_feedback_alignment():
    for seed in range(3):
        net = {"seed": seed}
        ours = hidden_angle(KolenPollack(cu.MLP([784, 32, 10], **net), seed=seed, decay=0.01))
        assert ours < 10 and ours < hidden_angle(FeedbackAlignment(cu.MLP([784, 32, 10], **net), seed=seed)) - 20
