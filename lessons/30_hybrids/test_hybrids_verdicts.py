"""What lesson 30 says of its stored table."""

import math

import pytest

import course_utils as cu


def table():
    frame = cu.stored_results(30).dropna(subset=["test_accuracy"])
    return frame.assign(test=100 * frame.test_accuracy, val=100 * frame.val_accuracy)


def runs(rule, sizes, samples=60_000, dataset="mnist", lr=None):
    rows = table()
    rows = rows[(rows.rule == rule) & (rows.sizes == sizes) & (rows.dataset == dataset)]
    rows = rows[abs(rows.samples - samples) < 500] if samples else rows
    rows = rows if lr is None else rows[rows.lr == lr]
    assert sorted(rows.seed) == [0, 1, 2, 3, 4]
    return rows.set_index("seed").sort_index()


def interval(hybrid, parent):
    d = hybrid.test - parent.test
    half = 2.776 * d.std() / math.sqrt(len(d))
    return d.mean() - half, d.mean() + half


DEEP, TANH = "784-32-32-32-10", "784-32-32-32-10 tanh"


def test_no_mixture_can_be_told_from_its_better_parent():
    nodes = [f"Blend(first='NodePerturbation', blend={share})" for share in (0.3, 0.6, 0.8, 0.95)]
    weights = [f"Blend(blend={share})" for share in (0.5, 0.9, 0.98, 0.998)]
    for first, names, sizes in (
        ("WeightPerturbation", weights, "784-32-10"),
        ("NodePerturbation", nodes, DEEP),
        ("NodePerturbation", nodes, TANH),
    ):
        best = max((runs(name, sizes) for name in names), key=lambda rows: rows.val.mean())
        parents = [runs(name, sizes) for name in (first, "FeedbackAlignment")]
        better = max(parents, key=lambda rows: rows.test.mean())
        low, high = interval(best, better)
        assert low < 0 < high
        inner = [runs(name, sizes).test.mean() for name in names]
        if sizes == DEEP:  # "the best shares lie between"
            assert max(inner) > max(p.test.mean() for p in parents)
        else:  # "accuracy climbs with the share of feedback alignment"
            ends = [parents[0].test.mean(), *inner, parents[1].test.mean()]
            assert ends == sorted(ends)


@pytest.mark.parametrize("sizes", [DEEP, TANH])
def test_taught_feedback_is_better_than_both_parents_and_behind_backprop(sizes):
    names = "PerturbationTaughtFeedback", "PerturbationTaughtFeedback(feedback_rate=1.0)"
    taught = max((runs(name, sizes) for name in names), key=lambda rows: rows.val.mean())
    parents = ("FeedbackAlignment", 60_000), ("NodePerturbation", 60_000)
    for name, samples in (*parents, ("FeedbackAlignment", 150_000), ("NodePerturbation", 100_000)):
        assert interval(taught, runs(name, sizes, samples))[0] > 0, name
    assert interval(taught, runs("Backprop", sizes))[1] < 0
    assert interval(taught, runs("FrozenHidden(Backprop)", sizes))[0] > 10


def test_freezing_anew_is_a_smaller_rate_and_for_good_is_more():
    def at(rule, lr):
        return runs(rule, "784-100-10", 30_000, lr=lr)

    for inside, p, amplified in (("", 0.5, 0.04), ("frozen=0.9", 0.9, 0.2)):
        anew = f"RandomFreezing({inside})" if inside else "RandomFreezing"
        good = f"RandomFreezing({inside}{', ' if inside else ''}redraw=False)"
        backprop = at("Backprop", 0.02)
        assert interval(at(anew, 0.02), backprop)[1] < -5  # a large effect, of the rate
        low, high = interval(at(anew, amplified), backprop)
        assert low < 0 < high
        low, high = interval(at(anew, 0.02), at("Backprop", round(0.02 * (1 - p), 6)))
        assert low < 0 < high
        assert interval(at(good, amplified), backprop)[1] < 0
        tuned = table()
        tuned = tuned[(tuned.sizes == "784-100-10") & (tuned.lr > 0.25)]
        best = {name: rows.set_index("seed").sort_index() for name, rows in tuned.groupby("rule")}
        assert all(interval(best[name], best["Backprop"])[1] < 0 for name in (anew, good))


def test_a_start_by_predictive_coding_lifts_the_weak_to_where_it_stood():
    start, rows = "PredictiveCoding(inference_steps=6)", table()
    alone = runs(start, TANH, 6_430)
    names = rows[rows.dataset == "mnist, from scratch"].rule.unique()
    assert set(names) <= set(cu.rules.ALL) and len(names) > 20
    weak = [name for name in names if runs(name, TANH, None, "mnist, from scratch").test.mean() < 80]
    assert {"WeightPerturbation", "NodePerturbation"} <= set(weak)
    for name in set(weak) - {"ForwardForward"}:
        after, scratch = runs(name, TANH, None, f"mnist, after {start}"), runs(name, TANH, None, "mnist, from scratch")
        assert interval(after, scratch)[0] > 0 and interval(after, alone)[1] < 0, name
    backprop = [runs("Backprop", TANH, None, where) for where in (f"mnist, after {start}", "mnist, from scratch")]
    assert interval(*backprop)[1] < 0 and interval(backprop[0], alone)[0] > 0


def test_a_readout_by_backprop_lifts_the_perturbation_rules():
    for name in ("WeightPerturbation", "NodePerturbation"):
        plain, under = runs(name, TANH, 10_000), runs(f"Layered(hidden='{name}')", TANH, 10_000)
        over = runs(f"Layered(hidden='Backprop', readout='{name}')", TANH, 10_000)
        assert interval(under, plain)[0] > 0
        assert interval(over, runs("Backprop", TANH, 10_000))[0] > -1.5  # little or nothing
        assert over.test.mean() > under.test.mean() + 10  # what they lack, they lack in the hidden layers
