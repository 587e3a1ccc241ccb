"""Rules around rules: the frozen control, and wrappers that hand everything over."""

import pytest
import torch
from helpers import AutogradRule, Knobby, clusters, small_net

import course_utils as cu
from course_utils.controls import Around, FrozenHidden
from course_utils.rules import Backprop


def test_frozen_hidden_weights_do_not_move_in_training():
    net = small_net((12, 9, 8, 4), dtype=torch.float32)
    before = [p.detach().clone() for p in net.parameters()]
    cu.train(FrozenHidden(Backprop(net)), clusters(), epochs=2, lr=0.1, batch_size=16, progress=False)
    moved = [not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True)]
    assert moved == [False, False, True, False, False, True]


def test_frozen_hidden_turns_perturbation_of_hidden_units_off():
    class Perturbing(Backprop):
        perturb_hidden = True

    rule = Perturbing(small_net())
    FrozenHidden(rule)
    assert rule.perturb_hidden is False


class Loud(Around):
    """Says when it steps."""

    steps = 0

    def step(self, x, y, optimizer):
        self.steps += 1
        return super().step(x, y, optimizer)


def test_a_wrapper_hands_over_all_it_does_not_change():
    inner = Knobby(small_net((12, 9, 4), dtype=torch.float32), seed=3, tries=4)
    inner.register_buffer("memory", torch.ones(2))
    around = Loud(FrozenHidden(Loud(inner)))
    assert around.generator is inner.generator and around.seed == 3 and around.tries == 4
    assert around.memory is inner.memory and around.knobs is inner.knobs and around.live_knobs == ("gain", "share")
    assert around.lr == inner.lr and around.plausibility == inner.plausibility
    around.gain = 0.25
    assert inner.gain == 0.25
    with pytest.raises(ValueError, match="share is 7"):
        around.share = 7
    with pytest.raises(AttributeError, match="nothing"):
        _ = around.nothing
    settings = dict(epochs=1, batch_size=16, lr=0.05, knobs={"gain": [(0, 0.5), (64, 2.0)]}, progress=False)
    history = cu.train(around, clusters(), **settings)
    assert inner.gain == 2.0 and around.steps == history.steps == around.rule.rule.steps
    x, y = clusters().x_train[:5], clusters().y_train[:5]
    assert cu.metrics.gradient_statistics(around, x, y, draws=20).variance.iloc[-1] < 1e-9


def test_the_control_of_a_rule_with_parameters_of_its_own_asks_which_are_hidden():
    class Larger(AutogradRule):
        def __init__(self, net, seed=0):
            super().__init__(net, seed)
            self.own = torch.nn.Parameter(torch.ones(2))

    with pytest.raises(ValueError, match="hidden_parameters"):
        FrozenHidden(Larger(small_net()))

    class Says(Larger):
        def hidden_parameters(self):
            return [*super().hidden_parameters(), self.own]

    control = FrozenHidden(Says(small_net()))
    assert any(p is control.rule.own for p in control.hidden_parameters())
