"""A network of one's own, and a rule with weights of its own: right numbers or a sentence, never silently nothing."""

import pytest
import torch
from helpers import AutogradRule, clusters, mutant
from helpers.own_network import Recurrent, TwoLinear, Undeclared
from torch import nn

import course_utils as cu
from course_utils import metrics, rule
from course_utils.rules import Backprop

DATA = clusters()
X, Y = DATA.x_train[:50], DATA.y_train[:50]
NO_NETWORKS = {
    "nn.Sequential": lambda: nn.Sequential(nn.Linear(12, 4)),
    "DataParallel": lambda: nn.DataParallel(cu.MLP([12, 9, 4])),
    "its sizes": lambda: [12, 9, 4],
    "the class": lambda: cu.MLP,
    "a rule": lambda: Backprop(cu.MLP([12, 9, 4])),
}


def run(rule, **settings):
    return cu.train(rule, DATA, progress=False, **{"epochs": 4, "batch_size": 16, "lr": 0.1, **settings})


@pytest.mark.parametrize("what", NO_NETWORKS)
def test_what_is_no_network_is_told_so_in_one_sentence(what):
    for use in (cu.rules.FeedbackAlignment, Backprop, lambda net: metrics.true_gradient(net, X, Y)):
        with pytest.raises(ValueError, match=r"net is a .*takes a cu\.MLP, or a cu\.Net of your own$"):
            use(NO_NETWORKS[what]())


@pytest.mark.parametrize("name", ["weights", "biases", "depth", "activations", "derivative", "output_error", "loss"])
def test_each_name_of_the_protocol_is_asked_for(name):
    class Less(TwoLinear):
        @property
        def missing(self):
            raise AttributeError(name)

    setattr(Less, name, Less.missing)
    with pytest.raises(ValueError, match=f"net is a Less without {name};"):
        Backprop(Less())


@pytest.mark.parametrize("rule_class", [Backprop, AutogradRule])
def test_a_network_of_one_s_own_trains_and_is_measured(rule_class):
    taught = rule_class(TwoLinear())
    history = run(taught, probe_every=64)
    assert history.status == "done" and history.frame.val_accuracy.iloc[-1] > 0.9
    assert (history.frame[["angle_1", "angle_2"]] < 0.1).all(axis=None)
    assert cu.evaluate(taught, DATA.x_test, DATA.y_test) > 0.9
    frame = cu.metrics.gradient_statistics(taught, X, Y, draws=20)
    assert list(frame.layer) == ["1", "2", "all"] and (abs(frame.projection - 1) < 1e-4).all()
    assert cu.costs.of_update(taught, X, Y, repeats=1)["products"] > 0


def test_the_frozen_control_of_a_network_of_one_s_own_is_frozen():
    net = TwoLinear()
    before = [p.detach().clone() for p in net.parameters()]
    run(cu.FrozenHidden(Backprop(net)))
    assert [torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True)] == [True, True, False, False]


def test_what_a_rule_asks_beyond_the_protocol_it_says_when_made_or_at_its_first_step():
    with pytest.raises(ValueError, match="net is a TwoLinear: .*random_feedback.; Feedback alignment asks for it"):
        cu.rules.FeedbackAlignment(TwoLinear())
    with pytest.raises(ValueError, match="net is a TwoLinear: .*check_input.; Node perturbation asks for it"):
        run(cu.rules.NodePerturbation(TwoLinear()))
    with pytest.raises(ValueError, match="activity_noise is 0.1; net, a TwoLinear, makes none"):
        run(Backprop(TwoLinear()), activity_noise=0.1)


def test_an_error_that_is_not_the_network_s_stays_what_it_is():
    class Slip(Backprop):
        def __init__(self, net, seed=0):
            super().__init__(net, seed)
            self.unheard_of()

    with pytest.raises(AttributeError, match="unheard_of"):
        Slip(cu.MLP([12, 9, 4]))


# ---------------------------------------------------------------- a rule with weights of its own


def made(rule_class=Recurrent):
    return rule_class(cu.MLP([12, 9, 4]))


def test_the_statistics_of_a_rule_with_weights_of_its_own_are_of_these():
    frame = cu.metrics.gradient_statistics(made(), X, Y, draws=20)
    assert list(frame.layer) == ["1", "2", "all"]
    for column, value in {"bias": 1, "projection": 2, "cosine": 1, "norm_ratio": 2}.items():  # it follows 2 g
        assert (abs(frame[column] - value) < 1e-4).all(), column
    history = run(made(), probe_every=64)
    assert (history.frame[["angle_1", "angle_2"]] < 0.1).all(axis=None) and "angle_3" not in history.frame


def test_its_hidden_layer_is_frozen_in_the_control_and_its_readout_learns():
    recurrent = made()
    before = [p.detach().clone() for p in (recurrent.into, recurrent.around, recurrent.out)]
    history = run(cu.FrozenHidden(recurrent))
    after = recurrent.into, recurrent.around, recurrent.out
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [True, True, False]
    assert history.frame.val_accuracy.iloc[-1] > history.frame.val_accuracy[0]


def test_a_rule_that_does_not_say_what_it_teaches_is_refused(capsys):
    with pytest.raises(ValueError, match=r"say in taught\(\)"):
        cu.FrozenHidden(made(Undeclared))
    with pytest.raises(ValueError, match=r"fills no \.grad of what its taught\(\) lists"):
        cu.metrics.gradient_statistics(made(Undeclared), X, Y, draws=20)
    history = run(made(Undeclared), probe_every=64)  # it trains all the same, and says why it has no angles
    assert history.frame.val_accuracy.iloc[-1] > 0.9 and history.frame.angle_1.isna().all()
    assert r"Recurrent fills no .grad of what its taught() lists" in capsys.readouterr().out


def test_a_reference_of_something_else_is_refused():
    class Half(Recurrent):
        reference_gradient = rule.Rule.reference_gradient

    with pytest.raises(ValueError, match=r"reference_gradient has shapes .* taught\(\) lists"):
        cu.metrics.gradient_statistics(made(Half), X, Y, draws=20)
    with pytest.raises(ValueError, match=r"reference_gradient has shapes .* taught\(\) lists"):
        run(made(Half), probe_every=64)


def test_the_readout_is_the_last_layer_and_nothing_else():
    """With the comparison turned round, the readout stands still and the rest learns."""
    source = mutant(rule.Rule, "if l < max(", "if l == max(")
    recurrent = made()
    assert [p is q for p, q in zip(recurrent.hidden_parameters(), [recurrent.into, recurrent.around], strict=True)]
    assert [p is recurrent.out for p in source.hidden_parameters(recurrent)] == [True]
