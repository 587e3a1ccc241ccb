"""Lesson 02's verdicts hold in its stored table, seed by seed."""

import math

import pytest

import course_utils as cu

CLASSROOM, EPOCH = "784-500-10", 55_000
BEST = {
    "Backprop": 0.4,
    "NodeShaker": 0.2,
    "WeightShaker": 0.2,
    "FrozenHidden(Backprop)": 0.4,
    "FrozenHidden(NodeShaker)": 0.2,
}
T5, T20 = 2.776, 2.093  # Student's t, 95 %, for five and for twenty seeds


@pytest.fixture(scope="module")
def stored():
    return cu.stored_results(2).drop_duplicates()


def reached(stored, rule, lr, sizes=CLASSROOM, column="test_accuracy"):
    """Per cent right at the end, by seed."""
    rows = stored.dropna(subset=["test_accuracy"])
    rows = rows[(rows.rule == rule) & (rows.lr == lr) & (rows.sizes == sizes)]
    return 100 * rows.set_index("seed")[column]


def lead(stored, rule, over, samples):
    """Points of validation accuracy ahead after that many images, each at its own best rate, by seed."""
    rows = stored[(stored.sizes == CLASSROOM) & (stored.samples == samples)]
    now = rows.set_index(["rule", "lr", "seed"]).sort_index().val_accuracy
    difference = 100 * (now[rule, BEST[rule]] - now[over, BEST[over]])
    assert len(difference) == 5 and difference.notna().all()
    return difference


def test_the_published_gap_is_the_sum(stored):
    summed, slow = reached(stored, "SummedBackprop", 0.001), reached(stored, "Backprop", 0.001)
    shaken = reached(stored, "NodeShaker", 0.001)
    assert (summed - shaken).min() > 50 and abs(slow - shaken).max() < 10
    assert abs(summed - reached(stored, "Backprop", 0.2)).max() < 0.2


def test_the_rates_of_the_race_are_the_best_over_five_seeds_and_one_seed_chose_another(stored):
    ends = stored[(stored.sizes == CLASSROOM) & stored.test_accuracy.notna()]
    means = ends.groupby(["rule", "lr"]).val_accuracy.agg(["mean", "size"])
    assert (means["size"] == 5).all()
    assert {rule: means.loc[rule, "mean"].idxmax() for rule in BEST} == BEST
    searched = cu.stored_rates(2)
    searched = searched[(searched.sizes == CLASSROOM) & (searched.rule == "FrozenHidden(NodeShaker)")]
    assert searched.groupby("lr").val_accuracy.last().idxmax() == 0.4  # what the lesson warns of


def test_each_at_its_own_rate_backprop_is_ahead_of_all(stored):
    for rule in BEST:
        if rule != "Backprop":
            assert lead(stored, "Backprop", rule, 3 * EPOCH).min() > 0, rule
    best = [reached(stored, rule, BEST[rule]).mean() for rule in ("Backprop", "NodeShaker")]
    published = reached(stored, "SummedBackprop", 0.001).mean() - reached(stored, "NodeShaker", 0.001).mean()
    assert best[0] - best[1] < 0.2 * published


def interval(points, t):
    half = t * points.std() / math.sqrt(len(points))
    return points.mean() - half, points.mean() + half


def test_node_perturbation_leads_its_control_early_and_is_not_told_from_it_late(stored):
    own, exact = "FrozenHidden(NodeShaker)", "FrozenHidden(Backprop)"
    assert lead(stored, "NodeShaker", own, EPOCH).min() > 0
    for control in (own, exact):
        low, high = interval(lead(stored, "NodeShaker", control, 3 * EPOCH), T5)
        assert low < 0 < high, control
    assert lead(stored, "NodeShaker", exact, 3 * EPOCH).max() < 0
    assert lead(stored, "NodeShaker", own, 3 * EPOCH).min() < 0


def test_no_rate_of_its_grid_helps_weight_perturbation():
    rates = cu.stored_rates(2)
    ends = rates[rates.rule == "WeightShaker"].groupby("lr").val_accuracy.last()
    assert len(ends) >= 5 and ends.max() < 0.3


def test_the_wider_the_less_is_left_to_teach(stored):
    ends = stored.dropna(subset=["test_accuracy"])
    by = ends[ends.sizes != "784-100-10"].set_index(["rule", "sizes", "seed"]).sort_index().test_accuracy
    margins = [by["Backprop", f"784-{w}-10"] - by["FrozenHidden(Backprop)", f"784-{w}-10"] for w in (16, 64, 256, 1000)]
    assert all((wide < narrow).all() for narrow, wide in zip(margins, margins[1:], strict=False))
    assert (by["FrozenHidden(Backprop)", "784-1000-10"] > by["Backprop", "784-10"].max()).all()


def test_twenty_seeds_see_what_the_first_five_do_not(stored):
    runs = [reached(stored, "Backprop", lr, "784-100-10", "val_accuracy") for lr in (0.1, 0.12)]
    points = runs[1] - runs[0]
    assert len(points) == 20 and interval(points, T20)[0] > 0
    lows = [interval(points.loc[first : first + 4], T5)[0] for first in (0, 5, 10, 15)]
    assert lows[0] < 0 < min(lows[1:])
