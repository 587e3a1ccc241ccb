"""Numbers at every door: NumPy's come out as Python's own; what is none, or too large, is refused by name."""

from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import Knobby, batch, clusters, small_net

import course_utils as cu
from course_utils.settings import Settings

DATA = clusters()


def rule(rule_class=cu.rules.Backprop, **knobs):
    return rule_class(small_net((12, 9, 4), dtype=torch.float32), **knobs)


def trained(**settings):
    return cu.train(rule(), DATA, **{"epochs": 0.2, "batch_size": 16, "progress": False} | settings)


X, Y = batch(small_net())
NAN = float("nan")


def statistics(*settings):
    """The rows of a rule's statistics."""
    return len(cu.metrics.gradient_statistics(rule(), DATA.x_val, DATA.y_val, *settings))


# Each door takes a number and gives what came of it; None where that is not to be seen.
WHOLE = {
    "batch_size": lambda n: trained(batch_size=n).settings.batch_size,
    "seed": lambda n: trained(seed=n).settings.seed,
    "seed of a rule": lambda n: rule(seed=n).seed,
    "seed of a network": lambda n: cu.MLP([3, 2], seed=n) and None,
    "sizes": lambda n: cu.MLP([3, n, 2]).sizes[1],
    "knob": lambda n: rule(Knobby, tries=n).tries,
    "limit": lambda n: len(cu.load_dataset(DATA, limit=n).x_train),
    "draws": lambda n: statistics(n if isinstance(n, bool) or not isinstance(n, int) else 13 + n) and None,
    "batch_size of the statistics": lambda n: statistics(20, n) and None,
    "seed of the statistics": lambda n: statistics(20, 5, n) and None,
}
REAL = {
    "lr": lambda v: trained(lr=v).settings.lr.at(0),
    "lr in a list": lambda v: trained(lr=[(np.int64(0), v)]).settings.lr.at(0),
    "momentum": lambda v: trained(momentum=v).settings.momentum,
    "input_noise": lambda v: trained(input_noise=v).settings.input_noise.at(0),
    "activity_noise": lambda v: trained(activity_noise=v).settings.activity_noise.at(0),
    "epochs": lambda v: trained(epochs=v).settings.epochs,
    "eval_every": lambda v: trained(eval_every=v).settings.eval_every,
    "knob": lambda v: rule(Knobby, gain=v).gain,
    "Schedule": lambda v: cu.Schedule(v).at(0),
}


KINDS = {"int": int, "int64": np.int64, "uint8": np.uint8, "of pandas": lambda n: pd.Series([n]).iloc[0]}


@pytest.mark.parametrize("door", sorted(set(WHOLE) - {"draws"}))
@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_number_is_one_wherever_it_comes_from(door, kind):
    got = WHOLE[door](KINDS[kind](7))
    assert got is None or (got == 7 and type(got) is int)


@pytest.mark.parametrize("door", REAL)
@pytest.mark.parametrize("kind", [float, np.float64, np.float32, np.float16])
def test_a_real_number_is_one_wherever_it_comes_from(door, kind):
    got = REAL[door](kind(0.5))
    assert got == 0.5 and type(got) is float


def test_the_line_that_repeats_a_run_knows_no_numpy():
    history = trained(lr=np.float32(0.5), batch_size=np.int64(16), seed=np.uint8(3), momentum=np.float64(0.5))
    assert "np." not in history.call and "lr=0.5" in history.call and "seed=3" in history.call


HUGE = 10**400
WORSE = 10**5_000  # too long for Python to write down
NO_NUMBERS = [True, np.True_, "7", None, 7j, [7], {}, torch.tensor(7), NAN, np.nan, float("inf"), HUGE, -HUGE, -1]


@pytest.mark.parametrize("bad", [*NO_NUMBERS, 2.5, 0.5, WORSE], ids=lambda bad: str(type(bad)))
@pytest.mark.parametrize("door", WHOLE)
def test_what_is_no_whole_number_is_refused_by_name(door, bad):
    if bad is None and door == "limit" or bad is None and door == "batch_size of the statistics":
        return  # that means all
    words = r"^(seed|sizes|batch_size|tries|draws|limit) is .*(must (be|list)|more than 10,000,000,000)"
    with pytest.raises(ValueError, match=words) as caught:
        WHOLE[door](bad)
    assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)


@pytest.mark.parametrize("bad", [*(bad for bad in NO_NUMBERS if bad != [7]), WORSE], ids=lambda bad: str(type(bad)))
@pytest.mark.parametrize("door", REAL)
def test_what_is_no_number_is_refused_by_name(door, bad):
    if bad is None and door in ("lr", "eval_every") or door == "Schedule" and bad == -1:
        return
    with pytest.raises(ValueError, match=r"^\w+ is .*(must be|give a list)") as caught:
        REAL[door](bad)
    assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", [2**32, 2**64, 2**80])
def test_seeds_are_bounded_where_numpy_and_torch_end(seed):
    for use in (lambda: cu.setup(seed=seed), lambda: trained(seed=seed, activity_noise=0.1), lambda: rule(seed=seed)):
        with pytest.raises(ValueError, match=r"^seed is \d+; it must be a whole number from 0 to 4294967295"):
            use()


def test_the_largest_seed_runs_with_every_noise():
    largest = 2**32 - 1
    assert trained(seed=largest, activity_noise=0.1, input_noise=0.1).status == "done"
    assert cu.train(rule(cu.rules.NodePerturbation, seed=largest), DATA, epochs=0.1, progress=False).status == "done"
    assert cu.MLP([3, 2], seed=largest).random_feedback(largest)[0] is None


def test_sizes_may_be_an_array_and_a_network_that_no_machine_holds_is_refused():
    assert cu.MLP(np.array([5, 4, 3])).sizes == [5, 4, 3] and type(cu.MLP(np.array([5, 4, 3])).sizes[0]) is int
    for sizes in ([784, 10**12, 10], [10**400, 10], [2**31, 2**31]):
        with pytest.raises(ValueError, match="^sizes is .*: more than 10,000,000,000 weights"):
            cu.MLP(sizes)


def test_other_kinds_of_real_numbers_run():
    assert Settings(lr=Fraction(1, 10)).lr.at(0) == 0.1
    assert trained(lr=Fraction(1, 10), momentum=Fraction(1, 2)).status == "done"
