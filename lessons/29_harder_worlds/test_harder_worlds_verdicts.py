"""Lesson 29's verdicts hold in its stored table."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

import course_utils as cu
from course_utils.runs import make_rule
from course_utils.studies.harder_worlds import has_feedback

JUDGED = yaml.safe_load((Path(__file__).parent / "study.yaml").read_text())["judged"]


def made(name):
    return make_rule(name, [7, 6, 5, 3], 0)


@pytest.fixture(scope="module")
def stored():
    return cu.stored_results(29)


def asked(stored, what, column="val_accuracy", look=-1, noise=None):
    """Per cent right, (rules × seeds), as in the lesson."""
    rows = stored[(stored.dataset == what) & ((stored.noise == noise) if noise is not None else True)]
    rows = rows.sort_values("samples", kind="stable").groupby(["rule", "seed"], sort=False).nth(look)
    return 100 * rows.pivot(index="rule", columns="seed", values=column)


def test_the_table_holds_all_judged_rules_and_its_zero_points_are_the_reported_accuracies(stored):
    assert set(JUDGED) | {"FrozenHidden(Backprop)"} <= set(stored.rule)
    plain = asked(stored, "mnist in order", look=0)
    assert list(plain.columns) == [0, 1, 2] and plain.notna().all(axis=None)
    for kind in ("images", "weights", "activity", "feedback"):
        zero = asked(stored, f"mnist, noise on {kind}", noise=0.0)
        assert zero.equals(plain.loc[zero.index])  # to the last digit
    tested = asked(stored, "mnist, noise on images", "test_accuracy", noise=0.0)
    assert asked(stored, "mnist, noise on weights", "test_accuracy", noise=0.0).equals(tested)
    noisy = {name for name in JUDGED if has_feedback(made(name))}
    assert set(asked(stored, "mnist, noise on feedback").index) == noisy


def test_one_at_a_time_most_rules_learn_more_and_those_that_perturb_need_small_rates(stored):
    one, fifty = (asked(stored, f"mnist, {n} at a time", "test_accuracy").mean(axis=1) for n in (1, 50))
    assert (one > fifty).sum() > 0.6 * len(one)
    rates = stored[stored.dataset == "mnist, 1 at a time"].groupby("rule").lr.first()
    scalar = [name for name in JUDGED if made(name).plausibility["global_error"] == "scalar"]
    assert {"WeightPerturbation", "NodePerturbation"} <= set(scalar)
    assert (rates[scalar] < rates["Backprop"] / 10).all()


def test_ten_free_answers_forget_everything_and_a_hint_brings_some_of_it_back(stored):
    learned, left = asked(stored, "mnist 0-4", look=0).mean(axis=1), asked(stored, "mnist 0-4").mean(axis=1)
    told = asked(stored, "mnist 0-4, told which").mean(axis=1)
    good = learned[learned > 80].index
    assert len(good) > len(learned) / 2 and (left[good] < 2).all()
    assert told[good].max() > 75 and told["FrozenHidden(Backprop)"] > 75 and (told[good] > 10 + left[good]).all()


def test_rules_differ_in_forgetting_and_less_so_at_equal_progress(stored):
    first, last = asked(stored, "mnist in order", look=0).mean(axis=1), asked(stored, "mnist in order").mean(axis=1)
    able = first[first > 50].index
    lost = 100 * (first - last)[able] / (first[able] - 10)
    path = stored[stored.dataset.isin(["mnist in order", "mnist permuted"])]
    path = 100 * path.pivot_table(index=["rule", "samples"], columns="dataset", values="val_accuracy")
    equal = {}
    for name in able.drop("FrozenHidden(Backprop)"):
        later, earlier = (
            path.loc[name, "mnist permuted"].cummax().to_numpy(),
            path.loc[name, "mnist in order"].to_numpy(),
        )
        if later[-1] >= 80:
            equal[name] = float(np.interp(80, later, earlier))
    assert lost.max() - lost.min() > 30 and lost.idxmax() == "FrozenHidden(Backprop)"
    assert equal["Backprop"] > np.median(list(equal.values()))


def test_feedback_that_has_aligned_is_carried_over(stored):
    early = asked(stored, "mnist permuted", look=3) - asked(stored, "mnist permuted alone", look=2)
    for name in ("FeedbackAlignment", "DirectFeedbackAlignment", "KolenPollack", "WeightMirror"):
        assert early.loc[name].mean() > 10, name
    assert abs(early.loc["Backprop"].mean()) < 5


def test_slowly_is_better_than_at_once(stored):
    first = asked(stored, "mnist in order", look=0).mean(axis=1)
    gain = (asked(stored, "mnist 90°") - asked(stored, "mnist 90° sudden")).mean(axis=1)[first > 50]
    assert (gain > 0).mean() > 0.9
    upright = asked(stored, "mnist 0°").mean(axis=1) - asked(stored, "mnist 0°", look=0).mean(axis=1)
    assert (upright[first > 50] < -10).all()


def test_noise_on_the_feedback_does_little_and_noise_on_weights_tells_rules_apart(stored):
    first = asked(stored, "mnist in order", look=0).mean(axis=1)

    def left(kind, std):
        what = f"mnist, noise on {kind}"
        zero, noisy = (asked(stored, what, "test_accuracy", noise=s).mean(axis=1) for s in (0.0, std))
        return (100 * (noisy - 10) / (zero - 10))[first > 50].dropna()

    assert left("feedback", 1.0).min() > 75 and left("feedback", 3.0).median() > 75
    weights = left("weights", 0.8)
    assert weights.idxmax() == "ForwardForward" and weights.max() > 90 and weights.min() < 30
    spreads = {
        k: left(k, s).max() - left(k, s).min() for k, s in {"images": 0.4, "weights": 0.8, "feedback": 1.0}.items()
    }
    assert max(spreads, key=spreads.get) == "weights"


def test_ten_labels_are_enough_to_beat_random_hidden_layers(stored):
    few = asked(stored, "mnist, 10 a class", "test_accuracy").mean(axis=1)
    first = asked(stored, "mnist in order", look=0).mean(axis=1)
    able = first[first > 50].index.drop("FrozenHidden(Backprop)")
    assert (few[able] > few["FrozenHidden(Backprop)"]).mean() > 0.8


def test_the_plain_order_is_that_of_some_worlds_and_not_of_others(stored):
    first, last = asked(stored, "mnist in order", look=0).mean(axis=1), asked(stored, "mnist in order").mean(axis=1)
    able = first[first > 50].index
    few = asked(stored, "mnist, 10 a class", "test_accuracy").mean(axis=1)
    worlds_seen = pd.DataFrame({"plain": first, "few": few, "once": asked(stored, "mnist 90° sudden").mean(axis=1),
                                "kept": (last - 10) / (first - 10)}).loc[able].rank().corr()["plain"]  # fmt: skip
    chance = 1.96 / math.sqrt(len(able) - 1)
    assert worlds_seen["few"] > chance and worlds_seen["once"] > chance and worlds_seen["kept"] < chance


def test_predictive_coding_and_backprop_as_the_lesson_says(stored):
    one, few = (asked(stored, w, "test_accuracy").mean(axis=1) for w in ("mnist, 1 at a time", "mnist, 10 a class"))
    kept, told = asked(stored, "mnist in order").mean(axis=1), asked(stored, "mnist 0-4, told which").mean(axis=1)
    assert 0 < one["PredictiveCoding"] - one["Backprop"] < 10
    assert abs(few["PredictiveCoding"] - few["Backprop"]) < 3 and abs(kept["PredictiveCoding"] - kept["Backprop"]) < 3
    assert told["IncrementalPredictiveCoding"] > told["Backprop"] + 40
    same = stored[stored.rule.isin(["Backprop", "TiltedFeedback"])]  # at its default angle of 0° it is backprop
    by_rule = [
        g.drop(columns=["rule", "seconds", "commit", "measured"]).reset_index(drop=True)
        for _, g in same.groupby("rule")
    ]
    assert by_rule[0].equals(by_rule[1])
