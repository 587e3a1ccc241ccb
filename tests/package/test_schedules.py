"""Schedules, settings and live knobs: what a run is told, and what may change while it trains."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import small_net
from helpers.small_training import new_rule, repeat, same_weights, train

from course_utils.rule import Knob, at_least
from course_utils.rules import Backprop, FeedbackAlignment
from course_utils.settings import Schedule, Settings


def used_lrs(**settings):
    """(samples before the step, lr) of every step, as the optimiser saw it."""
    rule, seen = new_rule(), []
    original = rule.step

    def step(x, y, optimizer):
        seen.append((optimizer.param_groups[0]["lr"], len(x)))
        return original(x, y, optimizer)

    rule.step = step
    train(rule, **settings)
    samples, out = 0, []
    for lr, n in seen:
        out.append((samples, lr))
        samples += n
    return out


def test_constant_schedule():
    assert {lr for _, lr in used_lrs(schedule="constant")} == {0.1}


def test_one_cycle_rises_for_a_tenth_and_falls_to_zero():
    lrs = [lr for _, lr in used_lrs(schedule="one_cycle", epochs=10)]
    assert len(lrs) == 130
    assert lrs[0] == pytest.approx(0.005) and max(lrs) == lrs[13] == pytest.approx(0.1)
    assert lrs[:14] == sorted(lrs[:14]) and lrs[13:] == sorted(lrs[13:], reverse=True)
    assert lrs[13 + 117 // 3] == pytest.approx(0.1 * 0.5 * (1 + math.cos(math.pi / 3)))
    assert 0 < lrs[-1] < 1e-4


def test_exponential_falls_to_one_percent():
    lrs = [lr for _, lr in used_lrs(schedule="exponential")]
    assert lrs == pytest.approx([0.1 * 0.01 ** (i / 26) for i in range(26)])


def test_lists_hold_from_their_samples_on():
    lrs = used_lrs(schedule=[(0, 1.0), (50, 0.5), (203, 0.1)])
    assert all(lr == pytest.approx(0.1 * (1.0 if n < 50 else 0.5 if n < 203 else 0.1)) for n, lr in lrs)
    assert len({round(lr, 6) for _, lr in lrs}) == 3
    lrs = used_lrs(schedule="constant", lr=[(0, 0.3), (100, 0.2)])
    assert all(lr == (0.3 if n < 100 else 0.2) for n, lr in lrs) and len({lr for _, lr in lrs}) == 2


def test_a_schedule_holds_each_value_from_its_samples_on():
    schedule = Schedule([(0, 1.0), (10, 2.0), (20, 3.0)])
    assert [schedule.at(n) for n in (0, 9, 10, 19, 20, 10_000)] == [1, 1, 2, 2, 3, 3]
    assert Schedule(0.5).at(7) == 0.5 and repr(Schedule(0.5)) == "0.5" == repr(Schedule(np.float64(0.5)))
    schedule.move(30, 4.0)
    schedule.move(30, 5.0)  # moved twice at one moment: the last word counts
    assert repr(schedule) == "[(0, 1.0), (10, 2.0), (20, 3.0), (30, 5.0)]"
    assert Schedule.of(schedule) is schedule and Schedule(schedule.steps).steps == schedule.steps


def test_settings_are_checked_when_made_and_stay_as_they_are():
    settings = Settings(epochs=np.int64(2), lr=0.1, knobs={"gain": 2})
    assert repr(settings) == repr(Settings(epochs=2, lr=Schedule(0.1), knobs={"gain": 2}))
    assert type(settings.epochs) is int
    with pytest.raises(AttributeError):
        settings.epochs = 3
    assert replace(settings, epochs=3).lr is settings.lr  # a schedule is one, however often it is handed on


def test_default_lr_is_the_rules_own():
    class Slow(Backprop):
        lr = 0.0125

    rule = Slow(small_net((12, 9, 4), dtype=torch.float32))
    _, history = train(rule, lr=None, schedule="constant")
    assert history.settings.lr.steps == [(0, 0.0125)]


class Scaled(FeedbackAlignment):
    """A rule with a knob that may move while it trains."""

    gain = Knob(1.0, at_least(0), live=True)

    def backward(self, x, y):
        loss = super().backward(x, y)
        for p in self.net.parameters():
            p.grad *= self.gain
        return loss


def test_live_knobs_follow_their_schedule():
    seen = []

    class Seen(Scaled):
        def backward(self, x, y):
            seen.append(self.gain)
            return super().backward(x, y)

    rule, history = train(new_rule(Seen), knobs={"gain": [(0, 0.5), (50, 2.0)]}, epochs=1, probe_every=16)
    assert seen[0] == 0.5  # the probe of the untrained rule meets the first value too
    assert seen[1:5] == 4 * [0.5] and set(seen[5:]) == {2.0} and rule.gain == 2.0
    again = new_rule(Seen)
    repeat(history, again)
    assert "knobs={'gain': [(0, 0.5), (50, 2.0)]}" in history.call and same_weights(rule, again)
    halved, full = (train(new_rule(Scaled), knobs={"gain": gain}, lr=lr)[0] for gain, lr in ((0.5, 0.2), (1.0, 0.1)))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(halved.parameters(), full.parameters(), strict=True))


@pytest.mark.parametrize("knobs", [{"gain": -1.0}, {"gain": [(5, 1.0)]}, {"gain": "big"}, {"lr": 0.1}])
def test_knobs_that_cannot_move_are_refused(knobs):
    with pytest.raises(ValueError, match=next(iter(knobs))):
        train(new_rule(Scaled), knobs=knobs)


def test_what_the_rule_refuses_is_refused_before_the_first_step():
    class Bounded(Scaled):
        gain = Knob(1.0, ("2 at most", lambda value: value <= 2), live=True)

    rule = new_rule(Bounded)
    before = {name: value.clone() for name, value in rule.state_dict().items()}
    with pytest.raises(ValueError, match="gain is 3"):
        train(rule, knobs={"gain": [(0, 0.5), (50, 3.0)]})
    assert rule.gain == 1.0 and all(torch.equal(value, before[name]) for name, value in rule.state_dict().items())


def test_a_knob_that_is_not_live_is_refused_by_name():
    with pytest.raises(ValueError, match="feedback_scale is no live knob of Feedback alignment"):
        train(new_rule(FeedbackAlignment), knobs={"feedback_scale": 2.0})
