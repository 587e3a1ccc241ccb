"""Cards tell the truth about the way back, by experiment: a change of the readout that no image of the batch shows.

W₂ becomes W₂ + N with N h = 0 for every h of the batch. Activities, outputs and loss stay as they are, so a first layer
that now learns otherwise has read W₂ itself. (Trying noise or settling goes forward through W₂ with other activities,
which tells nothing: such rules are left out.)
"""

import pytest
import torch
from helpers import batch, grads, small_net

import course_utils as cu

SIZES, N = (7, 12, 3), 4
CARDS = {name: rule_class(small_net(SIZES)).plausibility for name, rule_class in cu.rules.ALL.items()}
TRIES = {"sweeps", "draw"}  # in the cost of a rule that goes forward with other activities than the batch's own
PLAIN = {"Pepita": {"dropout": 0.0}}
DECIDED = [
    name for name, card in CARDS.items() if card["global_error"] != "scalar" and not TRIES & set(card["cost"].split())
]


def first_layer(name, change):
    """The first layer's gradient, the readout changed by `change` times what the batch does not show."""
    net = small_net(SIZES, activation="relu")
    x, y = batch(net, n=N)
    rule = cu.rules.ALL[name](net, seed=1, **PLAIN.get(name, {})).double()
    h = net.activations(x)[1].detach()
    generator = torch.Generator().manual_seed(5)
    unseen = torch.eye(12, dtype=torch.float64) - torch.linalg.pinv(h) @ h
    hidden = torch.randn(3, 12, generator=generator, dtype=torch.float64) @ unseen
    before = net(x).detach()
    with torch.no_grad():
        net.weights[1].add_(change * hidden)
    assert (net(x) - before).abs().max() < 1e-12 and hidden.norm() > 1
    return grads(rule, x, y)[0]


@pytest.mark.parametrize("name", DECIDED)
def test_a_rule_says_that_it_transports_weights_when_and_only_when_it_does(name):
    moved = (first_layer(name, 3.0) - first_layer(name, 0.0)).abs().max()
    if CARDS[name]["weight_transport"] == "no":
        assert moved < 1e-12
    else:
        assert moved > 1e-3


def test_the_experiment_decides_on_most_rules():
    assert {"Backprop", "FeedbackAlignment", "KolenPollack", "ForwardForward", "SignSymmetry"} <= set(DECIDED)
    assert len(DECIDED) >= 12
