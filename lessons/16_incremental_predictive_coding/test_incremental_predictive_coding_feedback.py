"""Incremental predictive coding by learned feedback: the law of B, and that W is not read. Wrong feedback must fail."""

import math

import pytest
import torch
from helpers import batch, largest_difference, mutant, small_net
from helpers.kolen_pollack import gaps
from helpers.settling_while_learning import SIZES

import course_utils as cu
from course_utils.metrics import alignment_angle
from course_utils.rules import IncrementalPredictiveCoding, LearnedFeedbackPC

EXACT = 1e-12
LEARNS = "b.grad = w.grad.clone()"
MADE = "FeedbackWeights([None, *map(nn.Parameter, net.random_feedback(seed)[1:])])"
WRONG = {  # what is wrong: (in the rule's source, instead of it)
    "half the rate": (LEARNS, LEARNS + " / 2"),
    "fixed feedback": (LEARNS, "pass"),
    "unequal decay": ("for w in (self.net.weights[l], self.feedback_weights[l]):", "for w in (self.net.weights[l],):"),
    "a view of W": (MADE, "FeedbackWeights([None, *list(net.weights)[1:]])"),
}


def wrong(name):
    return mutant(LearnedFeedbackPC, *WRONG[name])


OPTIMIZERS = {
    "sgd": (torch.optim.SGD, {"lr": 0.1}),
    "momentum": (torch.optim.SGD, {"lr": 0.03, "momentum": 0.9}),
    "adam": (torch.optim.Adam, {"lr": 0.01}),
}


def broken_law(rule_class, optimizer="momentum", decay=0.02, wait=1, fused=False):
    """Largest deviation of W − B from (1 − λ)ᵗ (W − B)₀, t counting the moves; and the start's size."""
    net = small_net(SIZES[4])
    rule = rule_class(net, inference_steps=6, wait=wait, decay=decay).double()
    make, settings = OPTIMIZERS[optimizer]
    opt, start, worst = make(rule.parameters(), **settings, fused=fused), gaps(rule), 0.0
    moves = math.ceil(6 / wait)
    for t in range(1, 9):
        rule.step(*batch(net, n=9, seed=t), opt)
        law = [(1 - decay) ** (moves * t) * d for d in start]
        worst = max(worst, largest_difference(gaps(rule), law))
    return worst


@pytest.mark.parametrize("wait", [1, 4])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("decay", [0.0, 1e-3, 0.05])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_difference_of_weights_and_feedback_follows_the_law(optimizer, decay, fused, wait):
    assert broken_law(LearnedFeedbackPC, optimizer, decay, wait, fused) < EXACT


@pytest.mark.parametrize("name", ["half the rate", "fixed feedback", "unequal decay"])
def test_mutants_break_the_law(name):
    assert broken_law(wrong(name)) > 1e-3


def shares_memory(rule):
    pointers = {p.data_ptr() for p in rule.net.parameters()}
    return any(rule.feedback_weights[l].data_ptr() in pointers for l in range(1, rule.net.depth))


def test_feedback_is_apart_from_the_weights():
    """The flaw of an earlier implementation: feedback that was a view of W, so that "its" learning moved W."""
    rule, alias = LearnedFeedbackPC(small_net()), wrong("a view of W")(small_net())
    assert not shares_memory(rule) and shares_memory(alias)
    for r, apart in ((rule, True), (alias, False)):
        before = r.net.weights[1].detach().clone()
        with torch.no_grad():
            r.feedback_weights[1].add_(1)
        assert torch.equal(r.net.weights[1], before) == apart
    rule.feedback_weights[1] = rule.net.weights[1]  # assigning copies
    assert not shares_memory(rule)
    assert rule.feedback_weights[0] is None


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("wait", [1, 3])
def test_with_b_equal_to_w_it_is_transported_feedback_and_stays_so(depth, wait):
    def trained(rule_class, **more):
        net = small_net(SIZES[depth])
        rule = rule_class(net, wait=wait, **more).double()
        if hasattr(rule, "feedback_weights"):
            for l in range(1, depth):
                rule.feedback_weights[l] = net.weights[l]
        opt = torch.optim.SGD(rule.parameters(), lr=0.05, momentum=0.9)
        for t in range(6):
            rule.step(*batch(net, n=9, seed=t), opt)
        return [p.detach() for p in net.parameters()]

    transported = trained(IncrementalPredictiveCoding)
    assert largest_difference(trained(LearnedFeedbackPC, decay=0.0), transported) < EXACT
    assert largest_difference(trained(wrong("half the rate"), decay=0.0), transported) > 1e-5


def test_w_is_not_read_on_the_way_down():
    """The first sweep's message: the same B, another W_2, the same output error, the same states."""

    def moved(change, rule_class=LearnedFeedbackPC):
        net = small_net(SIZES[2], activation="linear")
        rule, (x, y) = rule_class(net).double(), batch(net)
        s = rule.settling(rule, x, y)
        before = s.v[1].clone()
        with torch.no_grad():
            net.weights[1].add_(change)
        s.sweep()
        return s.v[1] - before

    assert torch.equal(moved(0.0), moved(0.5))
    alias = wrong("a view of W")
    assert not torch.equal(moved(0.0, alias), moved(0.5, alias))


def test_feedback_accumulates_as_pytorch_does():
    net = small_net(SIZES[3])
    rule, (x, y) = LearnedFeedbackPC(net, wait=3).double(), batch(net)
    rule.backward(x, y)
    rule.backward(x, 2 - y)
    for l in range(1, net.depth):
        assert torch.equal(rule.feedback_weights[l].grad, net.weights[l].grad)


def test_learned_feedback_turns_towards_the_weights():
    def angle(rule):
        return alignment_angle(rule.net.weights[2].detach(), rule.feedback_weights[2].detach())

    rule, data = LearnedFeedbackPC(cu.MLP([784, 24, 20, 10]), state_noise=0.01), cu.load_dataset("digits", limit=400)
    before = angle(rule)
    cu.train(rule, data, epochs=6, lr=1e-3, optimizer="adam", batch_size=32, progress=False)
    assert before > 70 and angle(rule) < before - 20


def test_the_frozen_control_keeps_the_feedback_beside_hidden_layers_and_teaches_the_last():
    net = small_net(SIZES[4])
    rule = LearnedFeedbackPC(net, decay=0.1).double()
    before = [None if b is None else b.detach().clone() for b in rule.feedback_weights]
    cu.FrozenHidden(rule).step(*batch(net), torch.optim.SGD(rule.parameters(), lr=0.1))
    assert [not torch.equal(rule.feedback_weights[l], before[l]) for l in range(1, net.depth)] == [False, False, True]
