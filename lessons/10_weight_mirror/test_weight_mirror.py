"""The science of the weight mirror. Each fact is a function that a wrong mirror must fail."""

import pytest
import torch
from helpers import ACTIVATIONS, LOSSES, batch, clusters, grads, largest_difference, small_net, snapshot
from helpers.hidden_angle import hidden_angle

import course_utils as cu
from course_utils.metrics import cosine, true_gradient
from course_utils.rules import FeedbackAlignment, WeightMirror

EXACT = 1e-12
# Square hidden layers, so that a transposed matrix still fits; the rest of the sizes are odd and different.
SIZES = {1: (7, 3), 2: (7, 5, 3), 3: (7, 5, 5, 3), 4: (7, 6, 6, 5, 3)}


# ------------------------------------------------------------------ awake


def distance_to_backprop(rule, x, y):
    for l in range(1, rule.net.depth):
        rule.feedback_weights[l] = rule.net.weights[l]
    return largest_difference(grads(rule, x, y), true_gradient(rule.net, x, y))


@pytest.mark.parametrize("targets", ["labels", "values"])
@pytest.mark.parametrize("depth", SIZES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_with_b_equal_to_w_it_is_autograd(activation, loss, depth, targets):
    net = small_net(SIZES[depth], activation, loss)
    assert distance_to_backprop(WeightMirror(net).double(), *batch(net, targets=targets)) < EXACT


def test_a_transposed_feedback_is_not_backprop():
    class Transposed(WeightMirror):
        @torch.no_grad()
        def backward(self, x, y):
            self.feedback_weights[1] = self.feedback_weights[1].T.clone()
            return super().backward(x, y)

    net = small_net(SIZES[3])
    assert distance_to_backprop(Transposed(net).double(), *batch(net)) > 1e-3


def test_backward_alone_never_mirrors():
    def moved(rule_class):
        net = small_net()
        rule = rule_class(net).double()
        before = snapshot(rule)
        rule.backward(*batch(net))
        after = snapshot(rule)
        return {name for name in before if before[name] != after[name]}

    assert moved(WeightMirror) == {"grad"}

    class MirrorsInBackward(WeightMirror):
        def backward(self, x, y):
            self.mirror()
            return super().backward(x, y)

    assert moved(MirrorsInBackward) == {"grad", "generator", "state"}


def test_without_mirror_steps_it_is_feedback_alignment_bit_for_bit():
    def trained(rule):
        optimizer = torch.optim.SGD(rule.parameters(), lr=0.1, momentum=0.9)
        for t in range(20):
            rule.step(*batch(rule.net, n=9, seed=t), optimizer)
        return rule.state_dict()

    lesson_06 = trained(FeedbackAlignment(small_net(), seed=5))
    ours = trained(WeightMirror(small_net(), seed=5, mirror_steps=0))
    assert ours.keys() == lesson_06.keys()
    assert all(torch.equal(ours[name], lesson_06[name]) for name in ours)
    with_mirror = trained(WeightMirror(small_net(), seed=5, mirror_steps=1))
    assert not torch.equal(with_mirror["feedback_weights.1"], lesson_06["feedback_weights.1"])


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_a_step_is_one_of_feedback_alignment_and_then_so_many_mirrors(steps):
    calls = []

    class Counting(WeightMirror):
        def mirror(self):
            calls.append([w.detach().clone() for w in self.net.weights])
            return super().mirror()

    net = small_net()
    rule = Counting(net, mirror_steps=steps).double()
    rule.step(*batch(net), torch.optim.SGD(rule.parameters(), lr=0.1))
    assert len(calls) == steps
    # The mirror sees the weights after the update, and leaves them alone.
    assert all(torch.equal(seen, now) for weights in calls for seen, now in zip(weights, net.weights, strict=True))


def test_a_mirror_moves_the_feedback_and_nothing_else():
    net = small_net()
    rule = WeightMirror(net).double()
    rule.backward(*batch(net))
    before = snapshot(rule)
    rule.mirror()
    after = snapshot(rule)
    assert before["grad"] == after["grad"] and before["torch"] == after["torch"]
    changed = {name for name in before["state"] if before["state"][name] != after["state"][name]}
    assert changed == {"feedback_weights.1", "feedback_weights.2"}


# -------------------------------------------------------------- the rest


def test_knobs_may_move_while_training_runs():
    def left(knobs):
        rules = [WeightMirror(cu.MLP([12, 9, 4])) for _ in range(2)]
        rules[1].feedback_weights[1] = 5 * rules[1].feedback_weights[1]
        (start,) = [rules[1].feedback_weights[1] - rules[0].feedback_weights[1]]
        for rule in rules:  # lr 0, so that both see the same weights
            cu.train(rule, clusters(n=200), epochs=1, lr=0.0, batch_size=20, knobs=knobs, progress=False)
        return ((rules[1].feedback_weights[1] - rules[0].feedback_weights[1]).norm() / start.norm()).item()

    assert left({"decay": 0.1}) == pytest.approx(0.9**10, rel=1e-4)
    assert left({"decay": 0.1, "mirror_steps": 3}) == pytest.approx(0.9**30, rel=1e-4)
    assert left({"decay": [(0, 0.1), (80, 0.2)]}) == pytest.approx(0.9**4 * 0.8**6, rel=1e-4)
    assert left({"decay": 0.1, "mirror_steps": [(0, 2), (100, 0)]}) == pytest.approx(0.9**10, rel=1e-4)


@pytest.mark.parametrize("decay", [0, 1.01])
def test_nothing_and_more_than_all_cannot_be_replaced(decay):
    with pytest.raises(ValueError, match="decay is .* above 0, at most 1"):
        WeightMirror(small_net(), decay=decay)


def test_feedback_is_a_buffer_independent_of_the_weights_and_as_large():
    net = cu.MLP([300, 200, 150], seed=4)
    rule = WeightMirror(net, seed=4)  # the same seed as the network's
    b = rule.feedback_weights[1]
    assert rule.feedback_weights[0] is None and all(p is not b for p in rule.parameters())
    assert abs(cosine(b.flatten(), net.weights[1].detach().flatten())) < 4 / b.numel() ** 0.5
    assert (b.std() / net.weights[1].std()).item() == pytest.approx(1, rel=0.02)


def test_the_frozen_control_mirrors_too():
    inner = WeightMirror(small_net(SIZES[3]))
    rule = cu.FrozenHidden(inner)
    hidden, b = inner.net.weights[0].detach().clone(), inner.feedback_weights[1].clone()
    rule.step(*batch(inner.net), torch.optim.SGD(rule.parameters(), lr=0.1))
    assert torch.equal(hidden, inner.net.weights[0]) and not torch.equal(b, inner.feedback_weights[1])


def test_hidden_angle_falls_below_that_of_feedback_alignment():
    for seed in range(3):
        ours = hidden_angle(WeightMirror(cu.MLP([784, 32, 10], seed=seed), seed=seed))
        assert ours < 10 and ours < hidden_angle(FeedbackAlignment(cu.MLP([784, 32, 10], seed=seed), seed=seed)) - 20
