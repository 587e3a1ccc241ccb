"""What lesson 03 says of its stored runs with five seeds."""

import math

import course_utils as cu

TEN = 'WeightPerturbation(draws=10, noise="rademacher")'
ONE = 'WeightPerturbation(noise="rademacher")'


def runs(rule, sizes):
    rows = cu.stored_results(3)
    rows = rows[(rows.rule == rule) & (rows.sizes == sizes)].dropna(subset=["test_accuracy"])
    return rows.assign(val=100 * rows.val_accuracy, test=100 * rows.test_accuracy)


def at_best(rows):
    """Test accuracies (%) by seed at the rate that is best on validation, which is not at the edge; and that rate."""
    means = rows.groupby("lr").val.mean()
    lr = means.idxmax()
    assert means.index.min() < lr < means.index.max()
    chosen = rows[rows.lr == lr].set_index("seed").test
    assert sorted(chosen.index) == [0, 1, 2, 3, 4]
    return chosen, lr


def interval(differences):
    half = 2.776 * differences.std() / math.sqrt(len(differences))
    return differences.mean() - half, differences.mean() + half


def test_ten_draws_once_are_one_draw_ten_times_at_a_tenth_of_the_step():
    (one, slow), (ten, fast) = (at_best(runs(f"WeightPerturbation{k}", "784-10")) for k in ("", "(draws=10)"))
    assert round(fast / slow, 6) == 10 and abs((ten - one).mean()) < 2
    low, high = interval(ten - one)
    assert low < 0 < high


def test_up_to_400_jiggles_nothing_tells_the_readout_from_all_layers_and_from_1600_on_everything_does():
    everything, readout = (runs(rule, "784-16-10") for rule in (TEN, f"FrozenHidden({TEN})"))
    budgets = sorted(everything.samples.unique())
    assert budgets == sorted(readout.samples.unique()) and [round(10 * b / 128, -2) for b in budgets] == [
        100,
        400,
        1600,
        6400,
    ]
    for budget, told in zip(budgets, (False, False, True, True), strict=True):
        (a, a_rate), (b, b_rate) = (at_best(rows[rows.samples == budget]) for rows in (everything, readout))
        low, high = interval(a - b)
        assert low > 5 if told else low < 0 < high
        assert b_rate > a_rate  # "the readout only wants a larger step"


def test_one_image_at_a_time_blows_up_and_every_cure_survives():
    small = "784-100-10 squared_error"
    rows, backprop = runs(ONE, small), runs("Backprop", small).test.mean()
    alone = rows[(rows.lr == 0.0003) & (rows.samples <= 1_500)]
    assert len(alone) == 5 and (alone.samples < 1_500).sum() == 4 and alone.test.max() < 15
    tenth, batch, ten = rows[rows.lr < 1e-4], rows[rows.samples > 1_500], runs(TEN, small)
    for cure, samples in ((tenth, 1_500), (batch, 1_500 * 64), (ten, 1_500)):
        assert len(cure) == 5 and set(cure.samples) == {samples}
    assert tenth.test.mean() < 15
    assert backprop - 10 < ten.test.mean() < backprop and backprop - 10 < batch.test.mean() < backprop


def test_twice_the_jiggles_buy_about_two_points_both_times():
    patient = TEN.replace("10", "20")
    ten, once, twice = (
        100 * rows.test_accuracy.mean()
        for rows in (
            runs(TEN, "784-256-10"),
            *(rows for _, rows in sorted(runs(patient, "784-256-10").groupby("samples"))),
        )
    )
    assert 1 < once - ten < 3 and 1 < twice - once < 3
