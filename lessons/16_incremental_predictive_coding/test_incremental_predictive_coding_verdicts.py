"""What lesson 16 says of its stored runs."""

import math

import pytest
import torch

import course_utils as cu

SMALL = "784-100-100-10"
WAYS = "mnist, sgd, constant", "mnist, sgd, one_cycle", "mnist, adam, one_cycle"
RULE = "IncrementalPredictiveCoding"
PUT_BACK = "PutBack(inference_steps=2)"


def curves(dataset=WAYS[2], sizes=SMALL):
    """{rule: its runs at every rate}."""
    runs = cu.stored_results(16)
    runs = runs[(runs.dataset == dataset) & (runs.sizes == sizes)]
    return {rule: mine.assign(val=100 * mine.val_accuracy) for rule, mine in runs.groupby("rule")}


def at_best(mine):
    """Test accuracies (%) by seed at the smallest rate within a standard error of the best on validation."""
    curve = mine.groupby("lr").val.agg(["mean", "sem"])
    top = curve.loc[curve["mean"].idxmax()]
    chosen = curve.index[curve["mean"] >= top["mean"] - top["sem"]].min()
    rows = mine[mine.lr == chosen].set_index("seed").test_accuracy
    assert sorted(rows.index) == [0, 1, 2, 3, 4]
    return 100 * rows


def interval(one, other):
    d = at_best(one) - at_best(other)
    half = 2.776 * d.std() / math.sqrt(len(d))
    return d.mean() - half, d.mean() + half


@pytest.mark.parametrize("dataset", WAYS)
def test_no_best_rate_of_the_race_is_the_first_or_last_that_was_tried(dataset):
    for sizes in (SMALL, "784-100-100-100-10", f"{SMALL} squared_error"):
        for rule, mine in curves(dataset, sizes).items():
            means = mine.groupby("lr").val.mean()
            assert means.index.min() < means.idxmax() < means.index.max(), rule


def test_who_is_ahead_of_waiting_and_not_waiting_depends_on_the_way_to_step():
    constant, one_cycle, adam = (interval(c[RULE], c[f"{RULE}(wait=8)"]) for c in map(curves, WAYS))
    assert constant[0] > 3 and one_cycle[1] < -3 and adam[0] < 0 < adam[1]


def test_states_put_back_are_ahead_of_states_kept_and_eight_moves_help_backprop():
    for dataset, points in zip(WAYS, (0, 9, 1.4), strict=True):
        runs = curves(dataset)
        assert interval(runs[PUT_BACK], runs[f"{RULE}(wait=2)"])[0] > points
        assert interval(runs["EightSteps"], runs["Backprop"])[0] > 1


def test_not_waiting_cares_little_about_its_rate_under_adam():
    spans = {}
    for wait in ("", "(wait=8)"):
        means = curves()[RULE + wait].groupby("lr").val.mean().loc[0.001:0.016]
        spans[wait] = means.max() - means.min()
    assert spans[""] < 1 and spans["(wait=8)"] > 4


def test_the_largest_rate_of_not_waiting_is_near_8():
    x = cu.load_dataset("mnist", limit=10_000).x_train.double()
    for dataset, images in (("mnist", x), ("mnist centred", x - x.mean(0))):
        worst = curves(f"{dataset}, sgd, constant")[RULE].groupby("lr").val.min()
        z = torch.cat([images, torch.ones_like(images[:, :1])], 1)
        limit = (1 + 1 / (1 - 0.2)) / torch.linalg.eigvalsh(z.T @ z / len(z))[-1].item()
        assert limit / 2 < worst.index[worst > 50].max() and worst.index[worst <= 50].min() < 2 * limit


def test_learned_feedback_is_ahead_of_the_weights_themselves_and_fixed_feedback_behind():
    runs = curves(sizes="784-100-100-100-10")
    assert interval(runs["LearnedFeedbackPC"], runs[RULE])[0] > 0.5
    assert interval(runs[RULE], runs["FixedFeedback"])[0] > 0.5
    low, high = interval(runs["LearnedFeedbackPC"], runs["LearnedFeedbackPC(decay=0.0)"])
    assert -0.5 < low < high < 0.5


def test_no_precision_is_better_than_one_and_stiff_states_suffer_when_nobody_waits():
    runs = curves()
    for name, mine in runs.items():
        if "precision" in name:
            wait = "(wait=8)" if "wait=8" in name else ""
            ahead = interval(mine, runs[RULE + wait])
            assert ahead[0] < 0 if wait else ahead[1] < 0, name
    stiff = f"{RULE}(precision=[20.0, 20.0], inference_rate=0.01)"
    assert interval(runs[stiff], runs[RULE])[1] < -4


def test_old_errors_cost_points_at_every_second_sweep_and_none_at_every_one():
    runs = curves(sizes=f"{SMALL} squared_error")
    low, high = interval(runs["ActsOnOldErrors"], runs[RULE])
    assert low < 0 < high
    old, new = (runs[f"{name}(wait=2)"].groupby("lr").val.mean() for name in ("ActsOnOldErrors", RULE))
    lost = (new - old).to_list()
    assert lost == sorted(lost) and lost[-1] > 10
    assert interval(runs["ActsOnOldErrors(wait=2)"], runs[f"{RULE}(wait=2)"])[1] < 0


def test_four_times_the_sweeps_do_not_break_it():
    eight, many = (curves()[name].groupby("lr").val.mean() for name in (RULE, f"{RULE}(inference_steps=32)"))
    both = eight.index.intersection(many.index)
    assert len(both) >= 4 and (many - eight)[both].min() > -0.5
    assert interval(curves()[f"{RULE}(inference_steps=32)"], curves()[RULE])[0] > 1
