"""The training loop: schedules, history, noise, interruption, divergence, refusals, repeated runs."""

import importlib
import math
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import clusters, small_net

import course_utils as cu
from course_utils.history import COLUMNS
from course_utils.rule import Knob, at_least
from course_utils.rules import Backprop, FeedbackAlignment
from course_utils.settings import Schedule, Settings
from course_utils.training import steps

DATA = clusters()  # 203 training points: 13 batches of 16, the last of 11
N = len(DATA.x_train)


def new_rule(rule_class=Backprop, seed=0, sizes=(12, 9, 4)):
    return rule_class(small_net(sizes, seed=seed, dtype=torch.float32), seed=seed)


def train(rule=None, **settings):
    rule = rule or new_rule()
    return rule, cu.train(
        rule, **{"data": DATA, "epochs": 2, "lr": 0.1, "batch_size": 16, "progress": False, **settings}
    )


def same_weights(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def used_lrs(**settings):
    """(samples before the step, lr) of every step, as the optimiser saw it."""
    rule, seen = new_rule(), []
    original = rule.step

    def step(x, y, optimizer):
        seen.append((optimizer.param_groups[0]["lr"], len(x)))
        return original(x, y, optimizer)

    rule.step = step
    train(rule, **settings)
    samples, out = 0, []
    for lr, n in seen:
        out.append((samples, lr))
        samples += n
    return out


def test_constant_schedule():
    assert {lr for _, lr in used_lrs(schedule="constant")} == {0.1}


def test_one_cycle_rises_for_a_tenth_and_falls_to_zero():
    lrs = [lr for _, lr in used_lrs(schedule="one_cycle", epochs=10)]
    assert len(lrs) == 130
    assert lrs[0] == pytest.approx(0.005) and max(lrs) == lrs[13] == pytest.approx(0.1)
    assert lrs[:14] == sorted(lrs[:14]) and lrs[13:] == sorted(lrs[13:], reverse=True)
    assert lrs[13 + 117 // 3] == pytest.approx(0.1 * 0.5 * (1 + math.cos(math.pi / 3)))
    assert 0 < lrs[-1] < 1e-4


def test_exponential_falls_to_one_percent():
    lrs = [lr for _, lr in used_lrs(schedule="exponential")]
    assert lrs == pytest.approx([0.1 * 0.01 ** (i / 26) for i in range(26)])


def test_lists_hold_from_their_samples_on():
    lrs = used_lrs(schedule=[(0, 1.0), (50, 0.5), (203, 0.1)])
    assert all(lr == pytest.approx(0.1 * (1.0 if n < 50 else 0.5 if n < 203 else 0.1)) for n, lr in lrs)
    assert len({round(lr, 6) for _, lr in lrs}) == 3
    lrs = used_lrs(schedule="constant", lr=[(0, 0.3), (100, 0.2)])
    assert all(lr == (0.3 if n < 100 else 0.2) for n, lr in lrs) and len({lr for _, lr in lrs}) == 2


def test_a_schedule_holds_each_value_from_its_samples_on():
    schedule = Schedule([(0, 1.0), (10, 2.0), (20, 3.0)])
    assert [schedule.at(n) for n in (0, 9, 10, 19, 20, 10_000)] == [1, 1, 2, 2, 3, 3]
    assert Schedule(0.5).at(7) == 0.5 and repr(Schedule(0.5)) == "0.5" == repr(Schedule(np.float64(0.5)))
    schedule.move(30, 4.0)
    schedule.move(30, 5.0)  # moved twice at one moment: the last word counts
    assert repr(schedule) == "[(0, 1.0), (10, 2.0), (20, 3.0), (30, 5.0)]"
    assert Schedule.of(schedule) is schedule and Schedule(schedule.steps) == schedule != Schedule(1.0)


def test_settings_are_checked_when_made_and_stay_as_they_are():
    settings = Settings(epochs=np.int64(2), lr=0.1, knobs={"gain": 2})
    assert settings == Settings(epochs=2, lr=Schedule(0.1), knobs={"gain": 2}) and type(settings.epochs) is int
    with pytest.raises(AttributeError):
        settings.epochs = 3
    assert replace(settings, epochs=3).lr is settings.lr  # a schedule is one, however often it is handed on


def test_default_lr_is_the_rules_own():
    class Slow(Backprop):
        lr = 0.0125

    rule = Slow(small_net((12, 9, 4), dtype=torch.float32))
    _, history = train(rule, lr=None, schedule="constant")
    assert history.settings.lr == 0.0125


def test_frame_has_the_columns_of_the_contract_and_one_row_an_evaluation():
    _, history = train(epochs=3)
    frame = history.frame
    assert (
        list(frame.columns)
        == COLUMNS
        == ["epoch", "samples", "seconds", "train_loss", "train_accuracy", "val_loss", "val_accuracy"]
    )
    assert list(frame.samples) == [0, N, 2 * N, 3 * N] and list(frame.epoch) == [0, 1, 2, 3]
    assert math.isnan(frame.train_loss[0]) and frame.iloc[1:].notna().all().all()
    assert frame.seconds.is_monotonic_increasing and frame.seconds[0] == 0
    assert frame[["train_accuracy", "val_accuracy"]].stack().between(0, 1).all()
    assert history.status == "done" and history.steps == 39 and history.samples == 3 * N


def test_rows_hold_what_they_say():
    rule, history = train()
    last = history.frame.iloc[-1]
    assert last.val_accuracy == cu.evaluate(rule, DATA.x_val, DATA.y_val)
    assert last.val_loss == pytest.approx(rule.net.loss(rule.net(DATA.x_val), DATA.y_val).item())
    assert last.train_accuracy == cu.evaluate(rule, DATA.x_train, DATA.y_train)


def test_training_accuracy_is_that_of_the_first_images(monkeypatch):
    monkeypatch.setattr("course_utils.training.TRAINING_IMAGES", 50)
    rule, history = train()
    assert history.rows[-1]["train_accuracy"] == cu.evaluate(rule, DATA.x_train[:50], DATA.y_train[:50])


def test_train_loss_is_the_mean_of_what_backward_returned():
    rule, losses = new_rule(), []
    original = rule.backward
    rule.backward = lambda x, y: losses.append(original(x, y)) or losses[-1]
    _, history = train(rule)
    assert history.frame.train_loss[1] == pytest.approx(torch.stack(losses[:13]).mean().item())
    assert history.frame.train_loss[2] == pytest.approx(torch.stack(losses[13:]).mean().item())


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


def test_fractional_epochs_and_evaluation_intervals():
    _, history = train(epochs=0.5)  # 6.5 batches
    assert history.steps == 6 and list(history.frame.samples) == [0, 96]
    _, history = train(epochs=2.5)
    assert list(history.frame.samples) == [0, N, 2 * N, 2 * N + 96]
    _, history = train(epochs=1, eval_every=50)
    assert list(history.frame.samples) == [0, 64, 112, 160, N]
    _, history = train(epochs=1e-6)
    assert history.steps == 1


def test_seconds_leave_evaluation_and_probes_out(monkeypatch):
    rule = new_rule()
    predict = rule.predict

    def slow(x):
        time.sleep(0.05)
        return predict(x)

    rule.predict = slow
    train_module = importlib.import_module("course_utils.training")
    true_gradient, layer_angles = train_module.true_gradient, train_module.layer_angles
    monkeypatch.setattr(train_module, "true_gradient", lambda *a: time.sleep(0.02) or true_gradient(*a))
    monkeypatch.setattr(train_module, "layer_angles", lambda *a: time.sleep(0.02) or layer_angles(*a))
    begin = time.perf_counter()
    _, history = train(rule, epochs=1, eval_every=50, probe_every=50)
    wall = time.perf_counter() - begin
    assert history.frame.probe_seconds.iloc[-1] >= 4 * 0.04
    assert 0 < history.frame.seconds.iloc[-1] <= wall - 10 * 0.05 - 4 * 0.04


def test_probed_angles_are_means_over_the_probes_since_the_last_row():
    _, history = train(new_rule(FeedbackAlignment), probe_every=16)
    frame = history.frame
    assert 60 < frame.angle_1[0] < 120  # the first row is the untrained rule's
    assert frame.angle_1[1:].between(0, 180).all() and (frame.angle_2[1:] < 0.1).all()
    assert frame.probe_seconds.dropna().is_monotonic_increasing


def test_probing_the_frozen_control_reads_no_angle_where_nothing_is_taught():
    _, history = train(cu.FrozenHidden(new_rule()), probe_every=64)
    assert history.frame.angle_1.isna().all() and (history.frame.angle_2[1:] < 0.1).all()


def test_angle_columns_stay_in_the_order_of_the_layers():
    _, history = train(new_rule(sizes=(12, *[5] * 10, 4)), epochs=1, probe_every=64)
    assert [c for c in history.frame if c.startswith("angle")] == [f"angle_{l}" for l in range(1, 12)]


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


def repeat(history, rule, **names):
    scope = {"cu": cu, "rule": rule, "data": DATA, **names}
    exec(history.call, scope)
    return scope["history"]


REPEATED = [
    {},
    {"optimizer": "adam", "lr": 0.01, "schedule": "exponential", "activity_noise": 0.1},
    {"schedule": "constant", "lr": [(0, 0.1), (100, 0.02)], "input_noise": [(0, 0.0), (50, 0.3)], "epochs": 1.5},
    {"schedule": [(0, 1.0), (150, 0.1)], "probe_every": 64, "eval_every": 70, "seed": 4},
]


class Scaled(FeedbackAlignment):
    """A rule with a knob that may move while it trains."""

    gain = Knob(1.0, at_least(0), live=True)

    def backward(self, x, y):
        loss = super().backward(x, y)
        for p in self.net.parameters():
            p.grad *= self.gain
        return loss


def test_live_knobs_follow_their_schedule():
    seen = []

    class Seen(Scaled):
        def backward(self, x, y):
            seen.append(self.gain)
            return super().backward(x, y)

    rule, history = train(new_rule(Seen), knobs={"gain": [(0, 0.5), (50, 2.0)]}, epochs=1, probe_every=16)
    assert seen[0] == 0.5  # the probe of the untrained rule meets the first value too
    assert seen[1:5] == 4 * [0.5] and set(seen[5:]) == {2.0} and rule.gain == 2.0
    again = new_rule(Seen)
    repeat(history, again)
    assert "knobs={'gain': [(0, 0.5), (50, 2.0)]}" in history.call and same_weights(rule, again)
    halved, full = (train(new_rule(Scaled), knobs={"gain": gain}, lr=lr)[0] for gain, lr in ((0.5, 0.2), (1.0, 0.1)))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(halved.parameters(), full.parameters(), strict=True))


@pytest.mark.parametrize("knobs", [{"gain": -1.0}, {"gain": [(5, 1.0)]}, {"gain": "big"}, {"lr": 0.1}])
def test_knobs_that_cannot_move_are_refused(knobs):
    with pytest.raises(ValueError, match=next(iter(knobs))):
        train(new_rule(Scaled), knobs=knobs)


def test_what_the_rule_refuses_is_refused_before_the_first_step():
    class Bounded(Scaled):
        gain = Knob(1.0, ("2 at most", lambda value: value <= 2), live=True)

    rule = new_rule(Bounded)
    before = {name: value.clone() for name, value in rule.state_dict().items()}
    with pytest.raises(ValueError, match="gain is 3"):
        train(rule, knobs={"gain": [(0, 0.5), (50, 3.0)]})
    assert rule.gain == 1.0 and all(torch.equal(value, before[name]) for name, value in rule.state_dict().items())


def test_a_knob_that_is_not_live_is_refused_by_name():
    with pytest.raises(ValueError, match="feedback_scale is no live knob of Feedback alignment"):
        train(new_rule(FeedbackAlignment), knobs={"feedback_scale": 2.0})


@pytest.mark.parametrize("stop_at", [None, 4, 17])
@pytest.mark.parametrize("settings", REPEATED)
def test_the_call_repeats_the_run_also_a_stopped_one(settings, stop_at):
    rule = new_rule(FeedbackAlignment)
    runner = steps(rule, DATA, Settings(**{"epochs": 2, "lr": 0.1, "batch_size": 16, **settings}))
    for history in runner:
        if history.steps == stop_at:
            runner.close()
    assert history.status == ("stopped" if stop_at else "done")
    again = new_rule(FeedbackAlignment)
    repeated = repeat(history, again)
    assert same_weights(rule, again)
    times = [c for c in history.frame if c.endswith("seconds")]
    assert history.frame.drop(columns=times).equals(repeated.frame.drop(columns=times))
    assert "\n" not in history.call and history.call.startswith("history = cu.train(rule, data, epochs=")


def test_the_call_of_a_run_with_an_optimiser_instance_asks_for_a_fresh_one():
    rule, again = new_rule(), new_rule()
    _, history = train(rule, optimizer=torch.optim.SGD(rule.parameters(), lr=0.1), lr=None)
    assert "optimizer=optimizer" in history.call
    repeat(history, again, optimizer=torch.optim.SGD(again.parameters(), lr=0.1))
    assert same_weights(rule, again)


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
