"""The training loop: order, noise, interruption, divergence, refusals."""

import math
from dataclasses import replace

import pytest
import torch
from helpers import small_net
from helpers.small_training import DATA, N, new_rule, same_weights, train

import course_utils as cu
from course_utils.rules import Backprop, FeedbackAlignment
from course_utils.settings import Settings
from course_utils.training import steps


def test_every_epoch_sees_every_image_once_in_another_order():
    rule, seen = new_rule(), []
    original = rule.step
    rule.step = lambda x, y, optimizer: seen.append(x.clone()) or original(x, y, optimizer)
    before = DATA.x_train.clone()
    train(rule, input_noise=0.0)
    first, second = torch.cat(seen[:13]), torch.cat(seen[13:])

    def in_order(x):
        return x[x[:, 0].argsort()]

    assert torch.equal(in_order(first), in_order(DATA.x_train)) and torch.equal(in_order(second), in_order(first))
    assert not torch.equal(first, second)
    assert torch.equal(DATA.x_train, before)


def test_evaluate_counts_right_answers_whatever_the_batch():
    rule = new_rule()
    expected = (rule.predict(DATA.x_test).argmax(1) == DATA.y_test).double().mean().item()
    assert cu.evaluate(rule, DATA.x_test, DATA.y_test) == expected
    assert cu.evaluate(rule, DATA.x_test, DATA.y_test, batch_size=7) == expected


@pytest.mark.parametrize("where", ["step", "evaluation"])
def test_interrupting_returns_the_history_so_far(where, capsys):
    rule, calls = new_rule(), []
    original = getattr(rule, "step" if where == "step" else "predict")

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return original(*arguments)

    setattr(rule, "step" if where == "step" else "predict", interrupted)
    _, history = train(rule, epochs=4, activity_noise=0.1)
    assert history.status == "stopped" and "stopped after" in history.message
    assert "stopped after" in capsys.readouterr().out
    assert list(history.frame.samples)[-1] == history.samples > 0
    if where == "step":
        assert list(history.frame.samples) == [0, 80]
    assert rule.net.activity_noise == 0


def test_closing_the_generator_stops_the_run():
    rule = new_rule()
    runner = steps(rule, DATA, Settings(epochs=5, lr=0.1, batch_size=16))
    for history in runner:
        if history.steps == 5:
            break
    runner.close()
    assert history.status == "stopped" and list(history.frame.samples) == [0, 80]


@pytest.mark.parametrize("activation", ["relu", "linear"])
def test_divergence_is_told_in_words_and_raises_nothing(activation, capsys):
    rule = Backprop(cu.MLP([12, 9, 4], activation=activation, loss="squared_error", seed=0))
    _, history = train(rule, lr=1e6, epochs=20)
    assert history.status == "diverged" and history.steps < 20 * 13
    assert "smaller learning rate" in history.message and "diverged" in capsys.readouterr().out
    assert history.frame.samples.iloc[-1] == history.samples


BAD = {
    "epochs": [0, -1, math.nan, math.inf, None, "5", True],
    "lr": [
        -0.1,
        math.nan,
        math.inf,
        "fast",
        [],
        [(10, 0.1)],
        [(0, -0.1)],
        [(0, math.nan)],
        [(0, None)],
        [0.1, 0.2],
        [(0, 0.1, 1)],
        [(0, 0.1), (50, 0.2), (20, 0.3)],
        [(0, 0.1), (math.nan, 0.2)],
    ],
    "input_noise": [-0.1, math.nan, None, "little", [(5, 0.1)]],
    "activity_noise": [-0.1, math.inf, None, [(0, 0.1), (10, -0.1)]],
    "batch_size": [0, -1, N + 1, 16.0, None],
    "optimizer": ["sdg", None, 3, torch.optim.SGD],
    "schedule": ["cosine", None, 3j, [], [(1, 0.5)], [(0, -1.0)], [0.5]],
    "momentum": [-0.1, 1, math.nan, None],
    "eval_every": [0, -5, math.nan, "often"],
    "probe_every": [-5, math.nan, None],
    "seed": [-1, 0.5, None],
    "stop_after": [0, -1, math.nan],
}


@pytest.mark.parametrize("name, value", [(name, value) for name, values in BAD.items() for value in values])
def test_bad_arguments_are_refused_by_name(name, value):
    rule = new_rule()
    before = new_rule()
    with pytest.raises(ValueError, match=f"{name} is "):
        train(rule, **{name: value})
    assert same_weights(rule, before)


BAD_DATA = {
    "labels out of range": ({"y_train": DATA.y_train + 1}, "y holds labels from 1 to 4"),
    "negative labels": ({"y_train": DATA.y_train - 1}, "y holds labels from -1 to 2"),
    "int32 labels": ({"y_train": DATA.y_train.int()}, "y holds torch.int32"),
    "too few labels": ({"y_train": DATA.y_train[:-1]}, "y has shape"),
    "wrong width": ({"x_train": torch.zeros(N, 13)}, r"x has shape \(203, 13\)"),
    "wrong width in validation": ({"x_val": torch.zeros(41, 13)}, r"x has shape \(41, 13\)"),
    "NaN": ({"x_train": torch.full((N, 12), math.nan)}, "x holds NaN"),
    "float64": ({"x_train": DATA.x_train.double()}, "x holds torch.float64"),
    "whole numbers": ({"x_train": torch.zeros(N, 12, dtype=torch.uint8)}, "x holds torch.uint8"),
}


@pytest.mark.parametrize("what", BAD_DATA)
def test_bad_data_are_refused_by_name(what):
    changed, message = BAD_DATA[what]
    with pytest.raises(ValueError, match=message):
        train(data=replace(DATA, **changed))


@pytest.mark.parametrize(
    "settings", [{"optimizer": "sgd"}, {"optimizer": "adam", "lr": 0.01}, {"input_noise": 0.3}, {"activity_noise": 0.3}]
)
def test_same_seed_is_bit_equal_and_another_seed_differs(settings):
    (one, first), (again, second), (other, _) = (train(**settings), train(**settings), train(**settings, seed=1))
    assert same_weights(one, again) and not same_weights(one, other)
    without_time = first.frame.drop(columns="seconds")
    assert without_time.equals(second.frame.drop(columns="seconds"))


def test_training_leaves_torchs_own_generator_alone():
    state = torch.get_rng_state()
    train(input_noise=0.2, activity_noise=0.2)
    assert torch.equal(state, torch.get_rng_state())


def test_built_in_optimisers_are_torchs():
    for name, make in {
        "sgd": lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9),
        "adam": lambda p: torch.optim.Adam(p, lr=0.02),
    }.items():
        by_name, _ = train(optimizer=name, lr=0.02, momentum=0.9)
        rule = new_rule()
        instance = make(rule.parameters())
        train(rule, optimizer=instance, lr=None)
        for a, b in zip(by_name.parameters(), rule.parameters(), strict=True):
            assert torch.allclose(a, b, atol=1e-5)
        assert instance.param_groups[0]["lr"] == 0.02  # ready for a second run
        assert not same_weights(rule, new_rule())


def test_optimiser_instance_keeps_the_lr_of_each_of_its_groups():
    rule = new_rule()
    groups = [{"params": list(rule.net.weights), "lr": 0.05}, {"params": list(rule.net.biases), "lr": 0.0}]
    biases = [b.detach().clone() for b in rule.net.biases]
    train(rule, optimizer=torch.optim.SGD(groups), lr=None)
    assert all(torch.equal(a, b) for a, b in zip(biases, rule.net.biases, strict=True))


@pytest.mark.parametrize("noise", ["input_noise", "activity_noise"])
def test_noise_changes_training_but_not_evaluation(noise):
    (quiet, _), (noisy, history) = train(), train(**{noise: 0.3})
    assert not same_weights(quiet, noisy)
    assert noisy.net.activity_noise == 0
    assert history.frame.val_accuracy.iloc[-1] == cu.evaluate(noisy, DATA.x_val, DATA.y_val)
    late, _ = train(**{noise: [(0, 0.0), (N, 0.3)]})
    early, _ = train(**{noise: 0.0})
    assert same_weights(quiet, early) and not same_weights(quiet, late)


def test_activity_noise_is_off_during_evaluation_within_a_run():
    rule, seen = new_rule(), []
    original = rule.predict
    rule.predict = lambda x: seen.append(rule.net.activity_noise) or original(x)
    train(rule, activity_noise=0.5, eval_every=20)
    assert len(seen) > 10 and set(seen) == {0.0}


def test_activity_noise_does_not_outlive_a_rule_that_fails():
    rule = new_rule()
    rule.step = lambda *_: 1 / 0
    with pytest.raises(ZeroDivisionError):
        train(rule, activity_noise=0.5)
    assert rule.net.activity_noise == 0


def test_a_second_run_goes_on_from_the_first():
    rule, first = train(lr=0.05)
    _, second = train(rule, lr=0.05)
    assert second.frame.val_loss[0] == pytest.approx(first.frame.val_loss.iloc[-1])


def test_double_precision_trains():
    data = replace(DATA, **{f"x_{part}": getattr(DATA, f"x_{part}").double() for part in ("train", "val", "test")})
    rule = FeedbackAlignment(small_net((12, 9, 4)))
    _, history = train(rule, data=data, input_noise=0.1, activity_noise=0.1)
    assert history.status == "done" and rule.net.weights[0].dtype == torch.float64


def test_progress_bar_shows_the_accuracy(capsys):
    train(progress=True)
    shown = capsys.readouterr()
    assert "Backprop" in shown.err and "val " in shown.err
