"""What lesson 04 says of its stored runs with five seeds."""

import course_utils as cu

BY_WEIGHTS = 'WeightPerturbation(draws=10, noise="rademacher")'


def ends(rule, lesson=4):
    """Test accuracies (%) by seed, and the learning rate."""
    rows = cu.stored_results(lesson)
    rows = rows[(rows.rule == rule) & (rows.sizes == "784-256-10")].dropna(subset=["test_accuracy"])
    accuracies = (100 * rows.set_index("seed").test_accuracy).sort_index()
    assert list(accuracies.index) == [0, 1, 2, 3, 4]
    return accuracies, rows.lr.iloc[0]


def test_the_same_estimate_ends_higher_at_a_quarter_of_the_rate():
    (node, large), (activity, small) = ends("NodePerturbation(draws=10)"), ends("ActivityForwardGradient(draws=10)")
    assert large == 4 * small and (activity - node).min() > 0.3


def test_one_try_ends_near_the_control_and_ten_above_it():
    frozen, one = (ends(rule)[0] for rule in ("FrozenHidden(Backprop)", "NodePerturbation(draws=1)"))
    assert abs((one - frozen).mean()) < 2.5
    assert (ends("ActivityForwardGradient(draws=10)")[0] - frozen).min() > 1


def test_shaken_units_are_far_ahead_of_shaken_weights_on_the_same_network():
    assert (ends("ActivityForwardGradient(draws=10)")[0] - ends(BY_WEIGHTS, lesson=3)[0]).min() > 5
