"""The science of incremental predictive coding. Each fact is a function that a wrong rule must fail."""

from itertools import pairwise

import pytest
import torch
from helpers import ACTIVATIONS, LOSSES, batch, clusters, grads, largest_difference, small_net
from helpers.settling_while_learning import PRECISION, SETTLINGS, SIZES, TEACHERS, wrong

import course_utils as cu
from course_utils.rules import IncrementalPredictiveCoding, LearnedFeedbackPC
from course_utils.rules.incremental_predictive_coding import SettlingByFeedback, SettlingWhileLearning

EXACT = 1e-12
RULES = [IncrementalPredictiveCoding, LearnedFeedbackPC]


def energy(net, states, x, y, precision, c):
    """F of states v_1 … v_{L−1}, straight from its definition: a sum over units, one mean over the batch."""
    below, total = x, 0.0
    for l in range(net.depth):
        mu = below @ net.weights[l].T + net.biases[l]
        if l == net.depth - 1:
            return total / len(x) + c * net.loss(mu, y)
        total = total + precision[l] / 2 * (states[l] - mu).pow(2).sum()
        below = net.nonlinearity(states[l])


def forward_states(net, x):
    states, h = [], x
    for l in range(net.depth - 1):
        states.append((h @ net.weights[l].T + net.biases[l]).detach())
        h = net.nonlinearity(states[-1])
    return states


def descend_states(net, states, x, y, precision, c, rate):
    states = [v.requires_grad_() for v in states]
    slopes = torch.autograd.grad(len(x) * energy(net, states, x, y, precision, c), states) if states else []
    return [(v - rate * g).detach() for v, g in zip(states, slopes, strict=True)]


def weight_slopes(net, states, x, y, precision, c):
    found = torch.autograd.grad(energy(net, states, x, y, precision, c) / c, list(net.parameters()), allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(net.parameters(), found, strict=True)]


def descent_by_autograd(net, x, y, steps, rate, wait, precision, c, lr):
    """States and weights after a step of plain gradient descent on F, first states, then weights."""
    states = forward_states(net, x)
    for t in range(1, steps + 1):
        states = descend_states(net, states, x, y, precision, c, rate)
        if t % wait == 0 or t == steps:
            slopes = weight_slopes(net, states, x, y, precision, c)
            with torch.no_grad():
                for p, g in zip(net.parameters(), slopes, strict=True):
                    p -= lr * g
    return [p.detach().clone() for p in net.parameters()]


def distance_to_autograd(
    rule_class,
    depth=4,
    activation="tanh",
    loss="cross_entropy",
    targets="labels",
    wait=1,
    precision=None,
    steps=5,
    lr=0.1,
):
    """Largest difference of all parameters, after a step, to plain descent by autograd on F."""
    net, twin = (small_net(SIZES[depth], activation, loss) for _ in range(2))
    x, y = batch(net, n=6, targets=targets)
    precision = PRECISION[: depth - 1] if precision is None else precision
    rule = rule_class(
        net, inference_steps=steps, inference_rate=0.15, output_weight=0.7, wait=wait, precision=precision
    ).double()
    rule.step(x, y, torch.optim.SGD(rule.parameters(), lr=lr))
    expected = descent_by_autograd(twin, x, y, steps, 0.15, wait, precision, 0.7, lr)
    return largest_difference([p.detach() for p in net.parameters()], expected)


@pytest.mark.parametrize("targets", ["labels", "values"])
@pytest.mark.parametrize("depth", SIZES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_step_is_descent_on_one_energy_in_states_and_weights_by_turns(activation, loss, depth, targets):
    assert distance_to_autograd(IncrementalPredictiveCoding, depth, activation, loss, targets) < EXACT


@pytest.mark.parametrize("wait", [1, 2, 3, 5, 9])
def test_whatever_the_wait(wait):
    assert distance_to_autograd(IncrementalPredictiveCoding, wait=wait) < EXACT


@pytest.mark.parametrize("name", [*TEACHERS, *SETTLINGS])
def test_mutants_do_not_descend_on_the_energy(name):
    assert distance_to_autograd(IncrementalPredictiveCoding, lr=1.0) < EXACT
    assert distance_to_autograd(wrong(name), lr=1.0) > 1e-3


@pytest.mark.parametrize("rule_class", RULES)
def test_backward_gives_the_estimate_of_the_first_move(rule_class):
    net = small_net(SIZES[4])
    rule, (x, y) = rule_class(net, wait=2).double(), batch(net)
    ours, seen = grads(rule, x, y), []
    optimizer = torch.optim.SGD(rule.parameters(), lr=0.1)
    optimizer.register_step_pre_hook(lambda *_: seen.append([p.grad for p in net.parameters()]))
    rule.step(x, y, optimizer)
    assert len(seen) == 4
    assert all(a is b is None or torch.equal(a, b) for a, b in zip(ours, seen[0], strict=True))


def test_an_error_comes_down_one_layer_a_sweep():
    net = small_net(SIZES[4])
    for wait, silent in ((1, 2), (2, 1), (3, 0), (8, 0)):
        found = grads(IncrementalPredictiveCoding(net, wait=wait).double(), *batch(net))
        silence = [g.abs().max().item() < EXACT for g in found[:4]]  # to rounding
        assert silence == [True] * silent + [False] * (4 - silent)


@pytest.mark.parametrize("rule_class", RULES)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_training_loop_s_own_optimisers_take_it(rule_class, optimizer):
    """They are fused, and refuse a parameter whose first gradient comes later than the others'."""
    rule = rule_class(cu.MLP([12, 9, 8, 7, 4]))
    history = cu.train(rule, clusters(n=60), epochs=1, lr=0.01, batch_size=20, optimizer=optimizer, progress=False)
    assert history.status == "done"


def falls(rule_class, lr, rate, steps=60):
    """The largest rise of F on the way, from half-step to half-step: states, weights, states, …"""
    net = small_net(SIZES[4])
    x, y = batch(net, n=9)
    rule, trace = rule_class(net, inference_steps=steps, inference_rate=rate, precision=PRECISION).double(), []

    class Watched(rule.settling):
        def compare(self):
            super().compare()
            trace.append(self.energy().item())

    rule.settling = Watched
    rule.step(x, y, torch.optim.SGD(rule.parameters(), lr=lr))
    assert len(trace) == 2 * steps - 1
    return max(b - a for a, b in pairwise(trace)), trace


def test_the_energy_falls_at_every_half_step():
    rise, trace = falls(IncrementalPredictiveCoding, lr=0.05, rate=0.05)
    assert rise < 0 and trace[-1] < 0.8 * trace[0]
    assert falls(wrong("sign"), lr=0.05, rate=0.05)[0] > 1e-3
    assert falls(IncrementalPredictiveCoding, lr=0.05, rate=3.0)[0] > 1e-3  # γ beyond 2 / the largest curvature


@pytest.mark.parametrize("rule_class", RULES)
def test_states_do_not_depend_on_the_batch(rule_class):
    net = small_net(SIZES[3])
    rule, (x, y) = rule_class(net, wait=4).double(), batch(net)
    alone, together = rule.infer(x[:1], y[:1]), rule.infer(x, y)
    assert largest_difference(alone.v[1:], [v[:1] for v in together.v[1:]]) < EXACT


def test_knobs_may_move_while_training_runs():
    rule = IncrementalPredictiveCoding(cu.MLP([12, 9, 4]))
    knobs = {"inference_steps": [(0, 4), (100, 2)], "wait": 2, "inference_rate": 0.1}
    history = cu.train(rule, clusters(n=200), epochs=1, lr=0.05, batch_size=20, knobs=knobs, progress=False)
    assert history.status == "done" and (rule.inference_steps, rule.wait) == (2, 2)


def test_activity_noise_of_training_stays_the_same_through_a_step():
    net = small_net(SIZES[3])
    rule, (x, y) = IncrementalPredictiveCoding(net).double(), batch(net)
    net.activity_noise, net.noise_seed, seen = 0.5, 3, []

    class Kept(rule.settling):
        def compare(self):
            super().compare()
            seen.append(self.offsets[0] - self.net.biases[0])

    rule.settling = Kept
    rule.step(x, y, torch.optim.SGD(rule.parameters(), lr=0.1))
    assert all((noise - seen[0]).abs().max() < EXACT for noise in seen) and seen[0].abs().max() > 0.1


def test_who_reads_settling_by_feedback_gets_the_same_energy():
    net = small_net(SIZES[3])
    x, y = batch(net)
    plain = IncrementalPredictiveCoding(net, precision=[2.0, 3.0], output_weight=0.4).double()
    states = forward_states(net, x)
    for settling in (SettlingWhileLearning, SettlingByFeedback):
        rule = (
            plain
            if settling is SettlingWhileLearning
            else LearnedFeedbackPC(net, precision=[2.0, 3.0], output_weight=0.4).double()
        )
        s = settling(rule, x, y)
        s.v[1].add_(0.1)
        s.compare()
        moved = [states[0] + 0.1, *states[1:]]
        assert s.energy().item() == pytest.approx(energy(net, moved, x, y, [2.0, 3.0], 0.4).item(), rel=1e-12)
