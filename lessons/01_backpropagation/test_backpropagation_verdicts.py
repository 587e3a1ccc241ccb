"""What lesson 01 says of its stored runs holds on their rows."""

import pytest

import course_utils as cu

TILTED = "TiltedFeedback(feedback_angle={}{})"


@pytest.fixture(scope="module")
def stored():
    return cu.stored_results(1)


@pytest.fixture(scope="module")
def reached(stored):
    """(rule, rate) → test accuracy (%) of each seed after three epochs."""
    rows = stored[stored.rule.str.contains("Tilted")].dropna(subset=["test_accuracy"])
    return lambda rule, lr: 100 * rows[(rows.rule == rule) & (rows.lr == lr)].test_accuracy


def test_a_fair_frozen_layer_takes_the_lead_of_90_degrees_away(reached):
    same_90, same_100 = (reached(TILTED.format(angle, ""), 0.03) for angle in (90, 100))
    frozen = {lr: reached("FrozenHidden(TiltedFeedback)", lr).mean() for lr in (0.03, 0.3)}
    assert same_90.mean() > frozen[0.03] + 2  # at its competitor's rate it looks beaten,
    assert same_90.mean() - frozen[0.3] < 1 and frozen[0.3] > same_100.mean()  # at a larger one it is not


def test_at_60_degrees_and_a_large_rate_every_seed_of_redrawn_feedback_is_lost(reached):
    straight = reached(TILTED.format(0, ""), 0.3).mean()
    assert reached(TILTED.format(60, ", redraw=True"), 0.3).max() < straight - 20
    assert reached(TILTED.format(60, ""), 0.3).min() > straight - 1


def test_in_the_first_quarter_random_features_are_behind_no_hidden_layer(stored):
    course = stored.groupby(["rule", "sizes", "samples"]).val_accuracy.mean()
    random, none = course["FrozenHidden(Backprop)", "784-500-10"], course["Backprop", "784-10"]
    early = [samples for samples in random.index if 0 < samples <= 440_000 / 4]
    assert all(random[samples] < none[samples] for samples in early)
    assert random.iloc[-1] > none.iloc[-1] + 0.01
