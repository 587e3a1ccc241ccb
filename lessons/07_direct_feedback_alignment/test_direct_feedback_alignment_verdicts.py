"""What lesson 07 says of its stored runs."""

import course_utils as cu

DEEP, WIDE = "784-500-500-10 tanh", "784-1000-10 tanh"


def ends(rule, sizes):
    """Test accuracies (%) by seed, and the learning rate."""
    rows = cu.stored_results(7)
    rows = rows[(rows.rule == rule) & (rows.sizes == sizes)].dropna(subset=["test_accuracy"])
    return 100 * rows.set_index("seed").test_accuracy, rows.lr.iloc[0]


def test_with_two_hidden_layers_the_chain_and_the_short_cut_are_level():
    (direct, _), (chain, _) = (ends(f"{kind}FeedbackAlignment", DEEP) for kind in ("Direct", ""))
    assert abs((direct - chain).mean()) < 0.5


def test_the_label_is_above_its_control_and_the_sign_below_its_own():
    assert (ends("DirectRandomTargetProjection", WIDE)[0] - ends("FrozenHidden(Backprop)", WIDE)[0]).min() > 1.5
    assert (ends("ErrorSignDFA", DEEP)[0] - ends("FrozenHidden(Backprop)", DEEP)[0]).dropna().max() < 0


def test_the_sign_bears_a_smaller_rate_than_the_full_error():
    assert ends("ErrorSignDFA", DEEP)[1] < ends("DirectFeedbackAlignment", DEEP)[1] / 2
