"""The two phases: where they start and end, how old they are, how many states there are to rest in."""

import pytest
import torch
from helpers import LOSSES, batch, flat, grads, mutant, small_net

from course_utils.controls import FrozenHidden
from course_utils.network import MLP
from course_utils.rules import AlmeidaPineda, ContrastiveHebbian, GeneRec

LONG = {"free_sweeps": 400, "plus_sweeps": 400}
SIZES = (6, 8, 7, 3)


def test_a_firm_teacher_holds_the_output_at_the_target():
    net = small_net(SIZES, loss="squared_error")
    x, y = batch(net, n=6, targets="values")
    for sweeps in (1, 6):
        minus, plus = ContrastiveHebbian(net, plus_sweeps=sweeps).phases(x, y)
        assert (plus[-1] - y).abs().max() < 1e-14 and (minus[-1] - y).abs().max() > 0.1


@pytest.mark.parametrize("loss", LOSSES)
def test_the_pull_stops_where_the_error_is_gone(loss):
    """A plus state at rest: output = its input − h e; h = 1 under squared error is the target itself."""
    net = small_net(SIZES, loss=loss)
    x, y = batch(net, n=6)
    rule = ContrastiveHebbian(net, feedback=0.3, clamp=0.4, **LONG)
    plus = rule.phases(x, y)[1]
    a = torch.addmm(net.biases[-1], plus[-2], net.weights[-1].T)
    assert (plus[-1] - (a - 0.4 * net.output_error(a, y))).abs().max() < 1e-12


def unfinished(rule_class):
    """Error of a contrast of few sweeps, relative to that of many; weights brought closer to where settling is slow."""
    net = small_net(SIZES, loss="squared_error")
    with torch.no_grad():
        net.weights[2].mul_(1.5)
    x, y = batch(net, n=6)
    few = {"free_sweeps": 2, "plus_sweeps": 16}
    short, long = (grads(rule_class(net, feedback=0.1, **knobs), x, y) for knobs in (few, LONG))
    return ((flat(short) - flat(long)).norm() / flat(long).norm()).item()


def test_phases_of_the_same_age_do_not_take_settling_for_teaching():
    goes_on = "minus = self.settle(x, free, self.plus_sweeps, drives=drives)"
    younger = mutant(ContrastiveHebbian, goes_on, "minus = free")
    assert unfinished(ContrastiveHebbian) < 0.05 and unfinished(younger) > 5 * unfinished(ContrastiveHebbian)


def rests(gain, starts=41):
    """The stable rest states of one tanh neuron under its output, found from many starts; gain: γ w²."""
    net = MLP([1, 1, 1], activation="tanh", loss="squared_error").double()
    with torch.no_grad():
        net.weights[0].zero_(), net.weights[1].fill_(gain**0.5)
    rule, x = ContrastiveHebbian(net, feedback=1.0), torch.zeros(starts, 1).double()
    s = [x, torch.linspace(-0.99, 0.99, starts).double()[:, None], torch.zeros(starts, 1).double()]
    s[2] = s[1] @ net.weights[1].T.detach()
    return rule.settle(x, s, 3000)[1].mul(1e4).round().unique().numel()


def test_a_loop_has_a_second_state_to_rest_in_as_soon_as_its_gain_exceeds_one():
    assert rests(0.9) == 1
    assert rests(1.1) >= 2 and rests(4.0) >= 2  # and the unstable one between them, for the start that is exactly on it


def states_of_one_input(scale, starts=40):
    net = small_net((6, 12, 11, 3), loss="squared_error")
    with torch.no_grad():
        for w in net.weights:
            w.mul_(scale)
    rule, generator = ContrastiveHebbian(net, feedback=1.0), torch.Generator().manual_seed(0)
    x = batch(net, n=1)[0].repeat(starts, 1)
    s = [x, *(2 * torch.rand(starts, n, generator=generator).double() - 1 for n in net.sizes[1:-1])]
    s = rule.settle(x, [*s, torch.randn(starts, 3, generator=generator).double()], 1500)
    return torch.cat(s[1:], 1).mul(1e3).round().unique(dim=0).shape[0]


def test_large_weights_give_one_input_several_states():
    assert states_of_one_input(0.3) == 1 and states_of_one_input(3.0) > 2


def test_predict_is_the_free_phase():
    net = small_net(SIZES, loss="squared_error")
    x, _ = batch(net, n=6)
    for rule_class in (ContrastiveHebbian, GeneRec, AlmeidaPineda):
        rule = rule_class(net, feedback=0.5).double()
        assert torch.equal(rule.predict(x), rule.settle(x)[-1])
        assert (rule.predict(x) - net(x)).abs().max() > 1e-3


def test_the_control_keeps_what_moves_hidden_features():
    """All of GeneRec's feedback too: it brings activity down to the features that the readout reads."""
    net = small_net(SIZES, loss="squared_error")
    x, y = batch(net, n=6)
    control = FrozenHidden(GeneRec(net, feedback=0.3).double())
    optimizer = torch.optim.SGD(control.parameters(), lr=0.1)
    before = [b.detach().clone() for b in list(control.feedback_weights)[1:]]
    control.step(x, y, optimizer)
    assert all(map(torch.equal, before, list(control.feedback_weights)[1:]))
