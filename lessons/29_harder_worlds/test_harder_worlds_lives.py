"""Lives in harder worlds: each cell measures what it says, and without a change it is a plain run."""

from dataclasses import replace

import pandas as pd
import pytest
from helpers import clusters

import course_utils as cu
from course_utils import runs
from course_utils.studies import harder_worlds as worlds
from course_utils.training import make_optimizer

SIZES = [784, 12, 10]
SHORT = {"dataset": "digits", "limit": 400, "epochs": 1, "batch_size": 40, "schedule": "constant"}
DIGITS = cu.load_dataset("digits", limit=400)
PARTS = ("train", "val", "test")


@pytest.mark.parametrize("name", ["Backprop", "KolenPollack", "ForwardForward"])
def test_without_noise_the_accuracy_is_the_reported_one(name):
    """To the last digit: what a plain run of the same settings reports, at the zero of each kind of noise."""
    plain = runs.one_run(name, SIZES, 0.01, 3, test=True, optimizer="adam", **SHORT).iloc[-1]
    frame = worlds.noise(name, SIZES, 0.01, 3, test=True, **SHORT)
    zero = frame[frame.noise == 0].set_index("dataset")
    kinds = {f"digits, noise on {kind}" for kind in ("images", "weights", "activity")}
    assert set(zero.index) == kinds | ({"digits, noise on feedback"} if name == "KolenPollack" else set())
    for column in ("val_accuracy", "test_accuracy", "samples", "epoch", "lr", "seed", "sizes"):
        assert (zero[column] == plain[column]).all(), column
    off = worlds.Life(name, SIZES, 0.01, 3, **{k: v for k, v in SHORT.items() if k not in ("dataset", "limit")})
    for _ in off.learn(DIGITS, activity_noise=0.0):
        off.ask("off", DIGITS, True)
    assert off.frame.test_accuracy.item() == plain.test_accuracy


def test_all_worlds_are_a_function_of_their_seed_and_leave_no_trace_on_each_other():
    for world in (worlds.classes, worlds.pixels, worlds.rotation, worlds.noise):
        first, again, other = (world("FeedbackAlignment", SIZES, 0.01, s, test=True, **SHORT) for s in (1, 1, 2))
        assert first.drop(columns="seconds").equals(again.drop(columns="seconds"))
        assert not first.val_accuracy.equals(other.val_accuracy)
        assert list(first.columns) == runs.SCHEMA


def test_a_sweep_over_a_world_equals_single_calls(tmp_path):
    settings = {k: v for k, v in SHORT.items() if k != "dataset"} | {"limit": 200}
    where = {"function": worlds.pixels, "folder": tmp_path, "progress": False}
    frame = cu.sweep(["Backprop"], "digits", SIZES, 0.01, seeds=2, **where, **settings)
    alone = (worlds.pixels("Backprop", SIZES, 0.01, s, dataset="digits", test=True, **settings) for s in (0, 1))
    single = pd.concat(alone, ignore_index=True)
    same = [c for c in runs.SCHEMA if c not in ("seconds", "device", "measured", "commit")]
    pd.testing.assert_frame_equal(frame[same], single[same], check_exact=True, check_dtype=False)


def test_the_two_tasks_are_learned_one_after_the_other_with_one_optimiser():
    frame = worlds.classes("Backprop", SIZES, 0.01, 0, test=True, **SHORT)
    first, second = (worlds.of_classes(DIGITS, c) for c in (range(5), range(5, 10)))
    rule = runs.make_rule("Backprop", SIZES, 0)
    optimizer = make_optimizer(rule, "adam", 0.01, 0.9)
    settings = {"epochs": 1, "batch_size": 40, "schedule": "constant", "progress": False}
    cu.train(rule, first, optimizer=optimizer, **settings)
    rows = frame[frame.dataset == "digits 0-4"]
    assert rows.val_accuracy.iloc[0] == cu.evaluate(rule, first.x_val, first.y_val)
    cu.train(rule, second, optimizer=optimizer, **settings)
    assert rows.val_accuracy.iloc[-1] == cu.evaluate(rule, first.x_val, first.y_val)
    last = frame[frame.dataset == "digits 5-9"].iloc[-1]
    assert last.test_accuracy == cu.evaluate(rule, second.x_test, second.y_test)
    assert last.samples == len(first.x_train) + len(second.x_train)
    alone = runs.make_rule("Backprop", SIZES, 0)
    cu.train(alone, second, optimizer="adam", lr=0.01, **settings)
    fresh = frame[frame.dataset == "digits 5-9 alone"].iloc[-1]
    assert fresh.val_accuracy == cu.evaluate(alone, second.x_val, second.y_val)
    told = frame[frame.dataset.str.endswith("told which")].val_accuracy.to_numpy()
    assert (
        told >= frame[~frame.dataset.str.endswith("told which")].val_accuracy.to_numpy()
    ).all()  # a hint never hurts


def test_a_life_that_forgets_everything_is_seen_to():
    """Labels exchanged in the second task: what was right becomes wrong, which no accuracy could hide."""
    data = clusters(classes=2, n=600)
    swapped = replace(data, **{f"y_{part}": 1 - getattr(data, f"y_{part}") for part in PARTS})
    training = {"epochs": 3, "batch_size": 20, "schedule": "constant"}
    frame = worlds.in_turn({"as it was": data, "swapped": swapped}, True, "Backprop", [12, 8, 2], 0.02, 0, **training)
    was = frame[frame.dataset == "as it was"].val_accuracy
    assert was.iloc[0] > 0.95 and was.iloc[-1] < 0.05
    both_now = frame[frame.dataset.isin(["as it was", "swapped"])].groupby("samples").val_accuracy.sum()
    assert both_now.sub(1).abs().max() < 1e-9  # right for one is wrong for the other, at every look


def test_rotation_asks_upright_now_and_next():
    frame = worlds.rotation("Backprop", SIZES, 0.01, 0, test=True, **SHORT)
    life = frame[~frame.dataset.str.endswith("sudden")]
    assert list(life.groupby("samples").size()) == [2, *[3] * 8, 2]
    assert list(life[life.dataset == "digits 50°"].samples) == [400 + 4 * 120, 400 + 5 * 120]  # not seen yet, then seen
    sudden = frame[frame.dataset.str.endswith("sudden")]
    assert sudden.samples.max() == 400 + 120 and life.samples.max() == 400 + 9 * 120
    assert frame.test_accuracy.notna().sum() == 4  # the test images, in the end


def test_few_labels_cost_the_same_number_of_updates(monkeypatch):
    monkeypatch.setattr(worlds, "PER_CLASS", (5, 20))
    frame = worlds.few_labels("Backprop", SIZES, 0.01, 0, dataset="digits", test=True, updates=12, batch_size=50)
    assert list(frame.dataset) == ["digits, 5 a class", "digits, 20 a class"]
    assert list(frame.samples) == [12 * 50, 12 * 50] and frame.test_accuracy.notna().all()


def test_a_rate_is_chosen_in_the_plain_world():
    search = worlds.every_world("Backprop", SIZES, 0.01, 0, **SHORT)
    plain = runs.one_run("Backprop", SIZES, 0.01, 0, **SHORT)
    assert search.drop(columns="seconds").equals(plain.drop(columns="seconds")) and search.test_accuracy.isna().all()


def test_online_says_how_many_at_a_time():
    frame = worlds.online(
        "Backprop", SIZES, 0.01, 0, dataset="digits", limit=60, epochs=1, optimizer="sgd", momentum=0.0
    )
    assert set(frame.dataset) == {"digits, 1 at a time"} and frame.samples.max() == 60
