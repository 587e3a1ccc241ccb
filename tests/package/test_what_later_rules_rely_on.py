"""What rules of other kinds ask of the package: noise and steps of their own, computed inputs, other objectives."""

import math
from dataclasses import replace

import pytest
import torch
from helpers import clusters

import course_utils as cu
from course_utils.rules import Backprop

DATA = clusters()
SIZES = [DATA.x_train.shape[1], 9, 4]


def net(**changes):
    return cu.MLP(SIZES, seed=0, **changes)


def run(rule, **settings):
    return cu.train(rule, DATA, progress=False, **{"epochs": 1, "batch_size": 16, "lr": 0.05, **settings})


class ManySteps(Backprop):
    """The optimiser moves several times in one step, and nothing is left in .grad."""

    calls = 0

    def step(self, x, y, optimizer):
        self.calls += 1
        for _ in range(4):
            loss = super().step(x, y, optimizer)
        optimizer.zero_grad()
        return loss


def test_a_rule_s_noise_repeats_neither_the_weights_nor_the_noise_of_training():
    rule = Backprop(net(), seed=0)
    w = rule.net.weights[0]
    drawn = torch.randn(w.shape, generator=rule.generator)
    assert abs(cu.metrics.cosine(drawn.flatten(), w.detach().flatten())) < 0.5


def test_all_passes_of_one_step_meet_the_same_activity_noise_and_another_step_another():
    seen = []

    class TwoPasses(Backprop):
        def backward(self, x, y):
            zero = [torch.zeros(len(x), n) for n in SIZES[1:]]
            seen.append((self.net(x), self.net.activations(x, edit=lambda l, a: a + zero[l])[-1]))
            return super().backward(x, y)

    run(TwoPasses(net()), activity_noise=0.5, lr=0.0)
    assert all(torch.equal(clean, perturbed) for clean, perturbed in seen)
    x = DATA.x_train[:16]
    network = net()
    network.activity_noise, outputs = 0.5, []
    for network.noise_seed in (1, 2):
        outputs.append(network(x))
    assert not torch.equal(*outputs)


def test_an_edit_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="edit gave shape"):
        net().activations(DATA.x_train[:4], edit=lambda l, a: a[:, :1])


def test_probes_read_the_first_estimate_of_a_step_that_moves_often():
    frame = run(ManySteps(net()), probe_every=16).frame
    assert (frame[["angle_1", "angle_2"]].dropna() < 0.1).all(axis=None)
    rule = Backprop(net())
    optimizer = torch.optim.SGD(rule.parameters(), lr=0.05, momentum=0.9, nesterov=True, foreach=True)
    assert (run(rule, optimizer=optimizer, probe_every=16).frame.angle_1.dropna() < 0.1).all()


def test_the_frozen_control_takes_the_rule_s_own_step_and_its_hidden_layers_stay():
    inner = ManySteps(net())
    before = inner.net.weights[0].detach().clone(), inner.net.weights[1].detach().clone()
    history = run(cu.FrozenHidden(inner))
    assert inner.calls == history.steps
    assert torch.equal(inner.net.weights[0], before[0]) and not torch.equal(inner.net.weights[1], before[1])


def test_the_derivative_of_relu_is_0_for_a_relaxed_activity_below_0():
    assert net().derivative(torch.tensor([-1.0, 0.0, 2.0])).tolist() == [0, 0, 1]


def test_a_second_pass_on_numbers_that_are_not_finite_ends_the_run_as_diverged():
    class BlowsUp(Backprop):
        def backward(self, x, y):
            self.net(x * math.inf)
            return super().backward(x, y)

    assert run(BlowsUp(net())).status == "diverged"


@pytest.mark.parametrize("returned", [None, 0.3, torch.zeros(4)])
def test_a_step_that_returns_no_loss_is_told_so(returned):
    class Silent(Backprop):
        def backward(self, x, y):
            super().backward(x, y)
            return returned

    with pytest.raises(ValueError, match="return the loss"):
        run(Silent(net()))


def test_an_optimiser_that_misses_parameters_is_refused():
    rule = Backprop(net())
    with pytest.raises(ValueError, match="misses parameters"):
        run(rule, optimizer=torch.optim.SGD(rule.net.weights, lr=0.1))


def test_an_objective_of_another_name_has_no_validation_loss():
    class Goodness(Backprop):
        loss_name = "goodness"

    assert run(Goodness(net())).frame.val_loss.isna().all()


def test_labels_that_are_no_classes_are_refused():
    data = replace(DATA, y_train=DATA.y_train.double())
    with pytest.raises(ValueError, match="class labels"):
        cu.train(Backprop(net()), data, progress=False)
