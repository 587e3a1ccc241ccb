"""The rivals of the race, the largest rate of not waiting, and what the lesson says of its stored runs."""

import pytest
import torch
from helpers import batch, largest_difference, small_net
from helpers.settling_while_learning import SIZES

import course_utils as cu
from course_utils.data import load_dataset
from course_utils.rules import Backprop, IncrementalPredictiveCoding, LearnedFeedbackPC, PredictiveCoding
from course_utils.rules.incremental_predictive_coding import SettlingWhileLearning
from course_utils.studies import incremental_predictive_coding as study

LR = 0.05


def stepped(rule_class, steps=1, **knobs):
    """The weights after so many steps of plain gradient descent on one batch."""
    net = small_net(SIZES[3])
    rule, (x, y) = rule_class(net, **knobs).double(), batch(net)
    optimizer = torch.optim.SGD(rule.parameters(), lr=LR)
    for _ in range(steps):
        rule.step(x, y, optimizer)
    return [p.detach() for p in net.parameters()]


def test_eight_steps_are_eight_steps_of_backprop():
    assert largest_difference(stepped(study.EightSteps), stepped(Backprop, 8)) == 0
    assert largest_difference(stepped(study.EightSteps), stepped(Backprop, 7)) > 1e-4


def test_states_put_back_are_lesson_15_four_times_and_differ_from_states_kept_after_the_first_move_alone():
    put_back = stepped(study.PutBack, inference_steps=2)
    assert largest_difference(put_back, stepped(PredictiveCoding, 4, inference_steps=2)) == 0
    assert largest_difference(put_back, stepped(IncrementalPredictiveCoding, wait=2)) > 1e-4
    two = {"inference_steps": 2}
    kept = stepped(IncrementalPredictiveCoding, wait=2, **two)
    assert largest_difference(stepped(PredictiveCoding, **two), kept) == 0


def test_fixed_feedback_starts_as_learned_feedback_does_and_never_changes():
    net = small_net(SIZES[3])
    rule = study.FixedFeedback(net).double()
    before = [b.detach().clone() for b in list(rule.feedback_weights)[1:]]
    optimizer = torch.optim.SGD(rule.parameters(), lr=LR)
    for _ in range(3):
        rule.step(*batch(net), optimizer)
    assert all(map(torch.equal, before, list(rule.feedback_weights)[1:]))
    assert largest_difference(before, list(LearnedFeedbackPC(small_net(SIZES[3])).double().feedback_weights)[1:]) == 0


def test_old_errors_change_nothing_until_the_weights_move():
    for knobs, apart in (({"inference_steps": 2, "wait": 2}, False), ({"wait": 2}, True)):
        old, new = (stepped(r, **knobs) for r in (study.ActsOnOldErrors, IncrementalPredictiveCoding))
        assert (largest_difference(old, new) > 1e-6) == apart


@pytest.mark.parametrize("lr, grows", [(0.99, False), (1.01, True)])
def test_an_error_of_the_first_layer_shrinks_by_8_at_every_sweep_and_move(lr, grows):
    """By (1 − γ)(1 − ηλ), with one image λ = ‖x‖² + 1; at (8) it stands still."""
    gamma, net = 0.2, small_net(SIZES[2], "linear", "squared_error")
    net.weights[1].data.zero_()  # nothing from above
    x, y = torch.linspace(-1, 1, net.sizes[0])[None].double(), torch.zeros(1, net.sizes[-1]).double()
    size = x.pow(2).sum().item() + 1
    lr *= (1 + 1 / (1 - gamma)) / size
    rule = IncrementalPredictiveCoding(net, inference_rate=gamma).double()
    optimizer = torch.optim.SGD([net.weights[0], net.biases[0]], lr=lr)
    s = SettlingWhileLearning(rule, x, y)
    s.v[1] += 1.0
    s.compare()
    for _ in range(5):
        before = s.e[1].clone()
        optimizer.zero_grad()
        s.sweep()
        rule.teach(s, 0)
        optimizer.step()
        s.renew()
        assert (s.e[1] - (1 - gamma) * (1 - lr * size) * before).abs().max() < 1e-12
    assert (s.e[1].abs().max() > 1) == grows


def test_a_run_of_the_race_is_its_last_row_and_says_how_it_was_trained():
    begin = {"sizes": [784, 5, 10], "lr": 0.01, "seed": 0, "dataset": "digits", "epochs": 1, "momentum": 0.0}
    row = study.race("EightSteps", **begin, centred=True, test=True)
    assert list(row.columns) == cu.runs.SCHEMA and len(row) == 1 and row.samples.item() == 1297
    assert row.dataset.item() == "digits centred, sgd, constant" and row.test_accuracy.notna().all()
    plain = study.race("EightSteps", **begin, test=True, schedule="one_cycle")
    assert plain.dataset.item() == "digits, sgd, one_cycle" and plain.val_accuracy.item() != row.val_accuracy.item()
    assert load_dataset("digits").x_train.min() == 0  # the images themselves are as they were
