"""The history: a row an evaluation, angles of the probes, and the line of code that repeats a run."""

import importlib
import math
import time

import pytest
import torch
from helpers.small_training import DATA, N, new_rule, repeat, same_weights, train

import course_utils as cu
from course_utils.history import COLUMNS
from course_utils.rules import FeedbackAlignment
from course_utils.settings import Settings
from course_utils.training import steps


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
    monkeypatch.setattr("course_utils.evaluation.TRAINING_IMAGES", 50)
    rule, history = train()
    assert history.rows[-1]["train_accuracy"] == cu.evaluate(rule, DATA.x_train[:50], DATA.y_train[:50])


def test_train_loss_is_the_mean_of_what_backward_returned():
    rule, losses = new_rule(), []
    original = rule.backward
    rule.backward = lambda x, y: losses.append(original(x, y)) or losses[-1]
    _, history = train(rule)
    assert history.frame.train_loss[1] == pytest.approx(torch.stack(losses[:13]).mean().item())
    assert history.frame.train_loss[2] == pytest.approx(torch.stack(losses[13:]).mean().item())


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
    reference, layer_angles = rule.reference_gradient, train_module.layer_angles
    rule.reference_gradient = lambda x, y: time.sleep(0.02) or reference(x, y)
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


REPEATED = [
    {},
    {"optimizer": "adam", "lr": 0.01, "schedule": "exponential", "activity_noise": 0.1},
    {"schedule": "constant", "lr": [(0, 0.1), (100, 0.02)], "input_noise": [(0, 0.0), (50, 0.3)], "epochs": 1.5},
    {"schedule": [(0, 1.0), (150, 0.1)], "probe_every": 64, "eval_every": 70, "seed": 4},
]


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
