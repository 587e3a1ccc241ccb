"""What hybrids are made of: parts, a rule for each layer, and the card that says what they ask of a brain."""

from pathlib import Path

import pytest
import torch
import yaml
from helpers import batch, clusters, grads, largest_difference, mutant, small_net, snapshot
from helpers.hybrids import same, trained

import course_utils as cu
from course_utils.controls import FrozenHidden
from course_utils.metrics import true_gradient
from course_utils.rule import CRITERIA
from course_utils.rules import (
    Backprop,
    Blend,
    FeedbackAlignment,
    Layered,
    NodePerturbation,
    PerturbationTaughtFeedback,
    RandomFreezing,
    WeightForwardGradient,
)
from course_utils.rules.hybrids import BY_DEMAND, Parts, can_be_a_part, card_of, estimate_of
from course_utils.runs import make_rule

EXACT = 1e-12
PARTS = [name for name, rule_class in cu.rules.ALL.items() if can_be_a_part(rule_class)]


# ------------------------------------------------------------------ parts


def test_an_estimate_is_taken_without_touching_grad():
    net = small_net()
    x, y = batch(net)
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    rule = Backprop(net)
    before = snapshot(rule)
    loss, estimate = estimate_of(rule, x, y)
    assert snapshot(rule) == before and loss == net.loss(net(x), y)
    assert largest_difference(estimate, true_gradient(net, x, y)) < EXACT
    with pytest.raises(ValueError, match="^x "):
        estimate_of(rule, x[:, 1:].contiguous(), y)
    assert snapshot(rule) == before


@pytest.mark.parametrize("name", PARTS)
def test_every_rule_that_may_be_a_part_works_as_one(name):
    net = small_net()
    x, y = batch(net)
    plain = grads(cu.rules.ALL[name](net, seed=4).double(), x, y)
    kept = [
        Blend(net, seed=4, blend=0.0, first=name, second="Backprop"),
        Blend(net, seed=4, blend=1.0, first="Backprop", second=name),
        RandomFreezing(net, seed=4, frozen=0.0, rule=name),
    ]
    for hybrid in kept:
        assert same(grads(hybrid.double(), x, y), plain)
    above = Layered(net, seed=4, hidden=name, readout="Backprop").double()
    layered = grads(above, x, y)
    if not isinstance(above.parts[0], Parts):  # two of them would draw from the shared generator in another order
        assert same([layered[i] for i in (0, 1, 3, 4)], [plain[i] for i in (0, 1, 3, 4)])
    for hybrid in [*kept, above]:
        assert len(list(hybrid.parameters())) == len({id(p) for p in hybrid.parameters()})


@pytest.mark.parametrize("name", ["KolenPollack", "WeightMirror", "ForwardForward", "PerturbationTaughtFeedback"])
def test_rules_that_do_more_than_fill_grad_cannot_be_parts(name):
    net = small_net()
    for make in (
        lambda: Blend(net, first=name),
        lambda: Blend(net, second=name),
        lambda: Layered(net, hidden=name),
        lambda: Layered(net, readout=name),
        lambda: RandomFreezing(net, rule=name),
    ):
        with pytest.raises(ValueError, match=f"{name}.*does more.*Backprop"):
            make()
    with pytest.raises(ValueError, match="Backporp.*is no rule.*Backprop"):
        Blend(net, first="Backporp")


@pytest.mark.parametrize(
    "rule_class, knob, bad",
    [
        (Blend, "blend", 1.1),
        (RandomFreezing, "frozen", 1.0),
        (PerturbationTaughtFeedback, "feedback_rate", 0.0),
        (PerturbationTaughtFeedback, "feedback_rate", 1.1),
        (PerturbationTaughtFeedback, "perturbation_std", 0.0),
    ],
)
def test_no_knob_goes_to_a_step_beyond_its_end(rule_class, knob, bad):
    with pytest.raises(ValueError, match=f"^{knob} is {bad}; it must be"):
        rule_class(small_net(), **{knob: bad})


def test_the_frozen_control_turns_the_noise_of_parts_off():
    control = FrozenHidden(Blend(small_net(), first="NodePerturbation"))
    assert control.rule.parts[0].perturb_hidden is False and not control.rule.perturb_hidden
    net = small_net((12, 9, 7, 4), dtype=torch.float32)
    before = [w.detach().clone() for w in net.weights]
    cu.train(FrozenHidden(Layered(net)), clusters(), epochs=1, lr=0.1, batch_size=16, progress=False)
    assert [torch.equal(a, b) for a, b in zip(before, net.weights, strict=True)] == [True, True, False]


def test_hybrids_are_named_as_calls_in_sweeps():
    rule = make_rule("Blend(first='NodePerturbation', blend=0.3)", [784, 8, 10], 0)
    assert rule.blend == 0.3 and isinstance(rule.parts[0], NodePerturbation)
    assert isinstance(
        make_rule("RandomFreezing(rule='WeightForwardGradient')", [784, 8, 10], 0).parts[0], WeightForwardGradient
    )


# ------------------------------------------------------------------ the card


def test_the_words_of_a_card_stand_in_one_order_of_demand():
    words = {word for line, words in CRITERIA.items() if line != "cost" for word in words}
    assert words == set(BY_DEMAND) and len(BY_DEMAND) == len(words)
    for line in ("update_locking", "non_local", "separate_phases", "needs_derivative"):
        assert sorted(CRITERIA[line], key=BY_DEMAND.index) == list(CRITERIA[line])


def asked_too_little(card_of):
    """Lines in which a card asks less than one of the two it is made of."""
    cards = [cu.rules.ALL[name](small_net()).plausibility for name in ("WeightPerturbation", "SignSymmetry")]
    both = card_of(cards)
    lines = [line for line in CRITERIA if line != "cost"]
    return [line for line in lines for card in cards if BY_DEMAND.index(card[line]) > BY_DEMAND.index(both[line])]


def test_a_hybrids_card_asks_what_the_more_demanding_part_asks():
    assert asked_too_little(card_of) == []
    assert asked_too_little(mutant(card_of, "max(", "min("))
    blend = Blend(small_net(), second="SignSymmetry").plausibility
    assert blend["weight_transport"] == "1 bit a weight" and blend["global_error"] == "vector"
    assert blend["cost"] == "2 forward a draw + 1 forward + 1 backward"
    assert RandomFreezing(small_net(), rule="NodePerturbation").plausibility == NodePerturbation.plausibility


def test_a_backprop_readout_asks_nothing_of_the_hidden_layers():
    card = Layered(small_net()).plausibility
    assert card | {"cost": ""} == FeedbackAlignment.plausibility | {"cost": ""}
    under = Layered(small_net(), hidden="Pepita").plausibility
    assert under["weight_transport"] == "no" and under["global_error"] == "vector"
    assert Layered(small_net(), hidden="Backprop", readout="Pepita").plausibility["weight_transport"] == "yes"


# ------------------------------------------------------------------ layered


def off_the_layers(layered_class, hidden="FeedbackAlignment", readout="Pepita"):
    net = small_net()
    x, y = batch(net)
    for_hidden, for_readout = (
        grads(cu.rules.ALL[name](net, seed=2, **({"dropout": 0.0} if name == "Pepita" else {})).double(), x, y)
        for name in (hidden, readout)
    )
    rule = layered_class(net, seed=2, hidden=hidden, readout=readout).double()
    for part in rule.parts:
        part.dropout = 0.0
    expected = [for_readout[i] if i in (2, 5) else for_hidden[i] for i in range(6)]
    return largest_difference(grads(rule, x, y), expected)


def test_each_layer_has_the_gradient_of_the_rule_that_teaches_it():
    assert off_the_layers(Layered) == 0
    assert off_the_layers(Layered, "Pepita", "FeedbackAlignment") == 0
    assert off_the_layers(mutant(Layered, "== last", "!= last")) > 1e-3


def test_a_readout_rule_that_perturbs_leaves_the_hidden_units_alone():
    net = small_net()
    x, y = batch(net)
    rule = Layered(net, seed=2, hidden="Backprop", readout="NodePerturbation").double()
    control = FrozenHidden(NodePerturbation(net, seed=2).double())
    assert torch.equal(grads(rule, x, y)[2], grads(control, x, y)[2])


def test_feedback_alignment_under_a_backprop_readout_is_feedback_alignment():
    assert same(
        trained(Layered(small_net(), seed=3).double()), trained(FeedbackAlignment(small_net(), seed=3).double())
    )


def test_the_table_holds_every_rule_whose_readout_is_not_backprops():
    """Other rules are such a hybrid already, or backprop. Asked for are those that the lesson's verdicts are about."""
    study = yaml.safe_load((Path(__file__).parent / "study.yaml").read_text())
    net = small_net()
    x, y = batch(net, n=9)
    backprop = grads(Backprop(net), x, y)
    expected = set()
    for name in set(PARTS) & set(study["judged"]):
        rule = cu.rules.ALL[name](net, seed=0).double()
        if not isinstance(rule, Parts) and not same(grads(rule, x, y)[2::3], backprop[2::3]):
            expected |= {name, f"Layered(hidden='{name}')", f"Layered(hidden='Backprop', readout='{name}')"}
    (block,) = [block for block in study["blocks"] if "Layered(hidden='NodePerturbation')" in block["rules"]]
    assert set(block["rules"]) == expected | {"Backprop"}
