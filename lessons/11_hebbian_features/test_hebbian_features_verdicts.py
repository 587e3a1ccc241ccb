"""What lesson 11 says of its stored runs."""

import math

import course_utils as cu

LINEAR, ON_OFF, TWICE = "mnist", "mnist, on and off", "784-64-64-10"
COMPRESS = "NonlinearHebb(response='compress')"


def runs(rule, dataset=LINEAR, sizes="784-64-10"):
    """The five runs of a rule on a network, whatever its activation is called."""
    table = cu.stored_results(11)
    return table[(table.rule == rule) & (table.dataset == dataset) & (table.sizes.str.split().str[0] == sizes)]


def accuracies(*which):
    """Test accuracies (%) by seed at the end of these runs."""
    rows = runs(*which).dropna(subset=["test_accuracy"]).set_index("seed").test_accuracy
    assert sorted(rows.index) == [0, 1, 2, 3, 4]
    return 100 * rows


def interval(one, other):
    """95 % of the mean difference over seeds."""
    d = one - other
    half = 2.776 * d.std() / math.sqrt(len(d))
    return d.mean() - half, d.mean() + half


def test_looking_is_worth_more_than_four_points_and_labels_in_both_layers_less_than_one_more():
    assert interval(accuracies("Sanger"), accuracies("FrozenHidden(Sanger)"))[0] > 4
    low, high = interval(accuracies("Backprop"), accuracies("Sanger"))
    assert 0 < low and high < 1


def test_in_the_first_two_epochs_the_learnt_neurons_are_less_than_a_point_ahead_of_the_random_ones():
    learnt, random = (100 * runs(r).groupby("epoch").val_accuracy.mean() for r in ("Sanger", "FrozenHidden(Sanger)"))
    ahead = learnt - random
    assert (ahead[[1, 2]] < 1).all() and (ahead[[1, 2]] > 0).all() and ahead[8] > 4


def test_to_a_linear_reader_a_turned_layer_is_worth_the_same_within_a_fifth_of_a_point():
    means = [accuracies("Sanger").mean(), *(accuracies(r, LINEAR, TWICE).mean() for r in ("NonlinearHebb", COMPRESS))]
    assert max(means) - min(means) < 0.2


def test_behind_on_and_off_cells_one_bend_is_worth_a_point_and_the_other_costs_more():
    axes = accuracies("Sanger", ON_OFF)
    expand, compress = (interval(accuracies(r, ON_OFF, TWICE), axes) for r in ("NonlinearHebb", COMPRESS))
    assert expand[0] > 0.75 and compress[1] < -0.75
    assert axes.mean() - accuracies(COMPRESS, ON_OFF, TWICE).mean() > 1
    assert interval(axes, accuracies("FrozenHidden(Sanger)", ON_OFF))[0] > 4
