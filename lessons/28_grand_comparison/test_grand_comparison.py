"""Lesson 28: steps of matched length, and runs that bring their matched one along."""

import pytest
import torch
from helpers import batch, clusters, mutant, small_net

import course_utils as cu
from course_utils import runs
from course_utils.studies import grand_comparison
from course_utils.studies.grand_comparison import MatchedSteps, RecordedSteps

OPTIMISERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01),
}


def backprop(seed=0):
    return cu.rules.Backprop(small_net(seed=seed))


def displacement(net, before):
    return torch.cat([(p.detach() - old).flatten() for p, old in zip(net.parameters(), before, strict=True)])


def parameters(net):
    return [p.detach().clone() for p in net.parameters()]


# ---------------------------------------------------------------- steps of matched length


def miss(matched_class, optimiser):
    """(of the length asked for, of the plain step's direction), of one step."""
    plain, matched = backprop(), matched_class(backprop(), [torch.tensor(0.37, dtype=torch.float64)])
    start = parameters(plain.net)
    for rule in (plain, matched):
        rule.step(*batch(plain.net), OPTIMISERS[optimiser](rule.parameters()))
    long, short = displacement(plain.net, start), displacement(matched.net, start)
    return abs(short.norm() - 0.37), (short / short.norm() - long / long.norm()).abs().max()


WRONG = {
    "as it is": (" * factor", ""),
    "not divided": (" / length", ""),
    "from where it is": ("old + (p - old)", "p + (p - old)"),
}


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_a_matched_step_has_that_length_and_the_direction_of_the_plain_step(optimiser):
    assert max(miss(MatchedSteps, optimiser)) < 1e-12
    for wrong in WRONG.values():
        assert max(miss(mutant(MatchedSteps, *wrong), optimiser)) > 1e-3


def test_wrapped_a_rule_keeps_its_card_and_its_knobs():
    rule = RecordedSteps(cu.rules.KolenPollack(small_net()))
    assert rule.plausibility == cu.rules.KolenPollack.plausibility and rule.knobs == cu.rules.KolenPollack.knobs
    rule.decay = 0.25
    assert rule.rule.decay == rule.decay == 0.25


def test_every_step_gets_its_own_length_and_running_out_of_them_is_an_error():
    lengths = [torch.tensor(value, dtype=torch.float64) for value in (0.5, 0.01, 0.2)]
    rule = MatchedSteps(backprop(), lengths)
    optimizer = OPTIMISERS["adam"](rule.parameters())
    for length in lengths:
        before = parameters(rule.net)
        rule.step(*batch(rule.net), optimizer)
        assert abs(displacement(rule.net, before).norm() - length) < 1e-12
    with pytest.raises(ValueError, match="3 lengths"):
        rule.step(*batch(rule.net), optimizer)


def test_matched_to_its_own_lengths_backprop_is_backprop():
    recorded = RecordedSteps(backprop())
    optimizer = OPTIMISERS["adam"](recorded.parameters())
    for seed in range(5):
        recorded.step(*batch(recorded.net, seed=seed), optimizer)
    matched = MatchedSteps(backprop(), recorded.lengths)
    optimizer = OPTIMISERS["adam"](matched.parameters())
    for seed in range(5):
        matched.step(*batch(matched.net, seed=seed), optimizer)
    for p, q in zip(recorded.net.parameters(), matched.net.parameters(), strict=True):
        assert (p - q).abs().max() < 1e-12


def test_a_step_of_length_zero_stays_where_it_is():
    rule = MatchedSteps(cu.rules.FeedbackAlignment(small_net(), feedback_scale=0.0), [torch.tensor(0.0)])
    before = parameters(rule.net)
    rule.step(*batch(rule.net), OPTIMISERS["sgd"](rule.parameters()))
    assert displacement(rule.net, before).abs().max() == 0


@pytest.mark.parametrize("name", cu.rules.ALL)
def test_recording_changes_nothing_and_measures_the_whole_step(name):
    """Bit for bit, for every rule: also those that call the optimiser several times in a step."""
    data = clusters(blank=4)
    plain = runs.make_rule(name, [12, 9, 8, 4], 1)
    recorded = RecordedSteps(runs.make_rule(name, [12, 9, 8, 4], 1))
    start = parameters(recorded.net)
    settings = dict(lr=1e-3, optimizer="adam", epochs=3, batch_size=203, seed=1, progress=False)  # all of it
    frames = [cu.train(rule, data, **settings).frame for rule in (plain, recorded)]
    assert frames[0].val_accuracy.equals(frames[1].val_accuracy)
    assert all(torch.equal(p, q) for p, q in zip(plain.net.parameters(), recorded.net.parameters(), strict=True))
    assert len(recorded.lengths) == 3
    assert displacement(recorded.net, start).norm() <= sum(recorded.lengths) * (1 + 1e-6)


def test_a_cell_brings_its_matched_run_along_when_it_is_tested():
    settings = dict(dataset="digits", epochs=2, batch_size=64, optimizer="adam")
    cell = dict(name="FeedbackAlignment", sizes=[784, 16, 10], lr=1e-3, seed=0)
    both = grand_comparison.one_run(**cell, test=True, matched_seeds=1, **settings)
    alone = runs.one_run(**cell, test=True, **settings)
    columns = ["rule", "samples", "val_accuracy", "test_accuracy", "lr", "sizes"]
    own = both[both.rule == "FeedbackAlignment"].reset_index(drop=True)
    assert own[columns].equals(alone[columns])
    other = both[both.rule == "MatchedSteps(FeedbackAlignment)"]
    assert list(other.columns) == runs.SCHEMA and len(other) == len(own)
    assert other.val_accuracy.iloc[0] == own.val_accuracy.iloc[0]  # the same network at the start
    assert list(other.val_accuracy) != list(own.val_accuracy)
    for less in (dict(test=False, matched_seeds=1), dict(test=True, matched_seeds=0)):
        assert set(grand_comparison.one_run(**cell, **less, **settings).rule) == {"FeedbackAlignment"}
