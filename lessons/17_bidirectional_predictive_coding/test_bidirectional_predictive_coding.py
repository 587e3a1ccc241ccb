"""The science of bidirectional predictive coding. Each fact is a function that a wrong rule must fail."""

import pytest
import torch
import torch.nn.functional as F
from helpers import ACTIVATIONS, LOSSES, batch, grads, largest_difference, mutant, small_net
from helpers.two_streams import RATE, SIZES, STEPS, energy, make, slopes, some_known

import course_utils as cu
from course_utils.rules import BidirectionalPredictiveCoding, PredictiveCoding
from course_utils.rules.bidirectional_predictive_coding import Settling, TwoStreams

EXACT = 1e-12
STATES = "sends states", "activity in error", "no derivative", "forgets above"
SENT = "self.net.nonlinearity(self.v[l]) if 0 < l < self.L else self.v[l]"
WRONG = {  # what is wrong: (whose source, what is in it, instead of it)
    "sends states": (Settling, SENT, "self.v[l]"),
    "activity in error": (TwoStreams, "self.g[l] = self.v[l]", "self.g[l] = 2 * self.v[l]"),
    "no derivative": (Settling, "pull.mul_(self.net.derivative(self.h[l]))", "pass"),
    "forgets above": (Settling, "pull.sub_(self.g[l], alpha=down) if l < self.L else pull", "pull"),
    "sums over batch": (BidirectionalPredictiveCoding, "len(x)", "1"),
    "sign of V": (BidirectionalPredictiveCoding, "g.T @", "-g.T @"),
}


def wrong(name):
    source, old, new = WRONG[name]
    made = mutant(source, old, new)
    if source is BidirectionalPredictiveCoding:
        return made
    settling = made if source is Settling else type("Wrong", (Settling,), {"compare": made.compare})
    return type("Wrong", (BidirectionalPredictiveCoding,), {"settling": settling})


def missed_slope(
    rule_class=BidirectionalPredictiveCoding, sizes=SIZES[3], activation="tanh", loss="squared_error", **clamps
):
    """Largest difference between what moves the states, on the way, and minus autograd's slope of the energy."""
    rule = make(sizes, activation, loss, rule_class)
    x, y = batch(rule.net)
    y = None if clamps.get("label_free") else y
    known = some_known(x) if clamps.get("image_free") else None
    worst = 0.0
    for steps in (0, 1, STEPS):
        s = rule.infer(x, y, known, steps)
        moving = [l for l, free in enumerate(s.free) if free is not False]
        if moving:
            worst = max(worst, largest_difference([-s.pull(l) for l in moving], slopes(rule, s.v, moving)))
    return worst


@pytest.mark.parametrize("depth", SIZES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_hidden_states_move_down_the_energy(activation, loss, depth):
    assert missed_slope(sizes=SIZES[depth], activation=activation, loss=loss) < EXACT


@pytest.mark.parametrize("depth", SIZES)
@pytest.mark.parametrize(
    "clamps", [{"label_free": True}, {"label_free": True, "image_free": True}, {"image_free": True}]
)
def test_free_labels_and_pixels_move_down_the_energy_too(clamps, depth):
    assert missed_slope(sizes=SIZES[depth], **clamps) < EXACT


@pytest.mark.parametrize("name", STATES)
def test_mutants_do_not_move_down_the_energy(name):
    assert missed_slope(wrong(name)) > 1e-3


def missed_gradient(
    rule_class=BidirectionalPredictiveCoding, sizes=SIZES[3], activation="tanh", loss="squared_error", targets="labels"
):
    """Largest difference of all .grad, W's and V's, to autograd's gradient of the mean energy at the settled states."""
    rule = make(sizes, activation, loss, rule_class)
    x, y = batch(rule.net, targets=targets)
    v = [a.clone() for a in rule.infer(x, y).v]
    rule.backward(x, y)
    with torch.enable_grad():
        true = torch.autograd.grad(energy(rule, v).mean(), list(rule.parameters()))
    return largest_difference([p.grad for p in rule.parameters()], true)


@pytest.mark.parametrize("targets", ["labels", "values"])
@pytest.mark.parametrize("depth", SIZES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_both_streams_learn_down_the_energy(activation, loss, depth, targets):
    assert missed_gradient(sizes=SIZES[depth], activation=activation, loss=loss, targets=targets) < EXACT


@pytest.mark.parametrize("name", ["sends states", "activity in error", "sums over batch", "sign of V"])
def test_mutants_do_not_learn_down_the_energy(name):
    assert missed_gradient(wrong(name)) > 1e-3


def missed_predictive_coding(
    rule_class=BidirectionalPredictiveCoding, activation="tanh", loss="squared_error", generative=0.0, depth=3
):
    rule = make(SIZES[depth], activation, loss, rule_class, discriminative=1.0, generative=generative)
    plain = PredictiveCoding(small_net(SIZES[depth], activation, loss), inference_steps=STEPS, inference_rate=RATE)
    plain = plain.double()
    (x, y), off = batch(rule.net), 0.0
    for _ in range(2):  # and a second time, from the weights that the first step made
        optimizers = [torch.optim.SGD(r.net.parameters(), lr=0.1) for r in (rule, plain)]
        losses = [r.step(x, y, optimizer) for r, optimizer in zip((rule, plain), optimizers, strict=True)]
        off = max(off, abs((losses[0] - losses[1]).item()))
        off = max(off, largest_difference(*([p.grad for p in r.net.parameters()] for r in (rule, plain))))
    return off


@pytest.mark.parametrize("depth", SIZES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_without_the_generative_stream_it_is_predictive_coding(activation, loss, depth):
    assert missed_predictive_coding(activation=activation, loss=loss, depth=depth) < EXACT


def test_what_is_not_predictive_coding():
    assert missed_predictive_coding(generative=0.1) > 1e-4
    for name in ("sends states", "no derivative"):
        assert missed_predictive_coding(wrong(name)) > 1e-4


def test_the_first_error_by_hand():
    """1-1-1-1, everything a power of two: γ = ½, one sweep."""
    net = cu.MLP([1, 1, 1, 1], activation="linear", loss="squared_error").double()
    rule = BidirectionalPredictiveCoding(net, inference_steps=1, inference_rate=0.5, generative=0.0).double()
    with torch.no_grad():
        for w, value in zip(net.weights, (2.0, 0.5, 4.0), strict=True):
            w.fill_(value)
    s = rule.infer(torch.ones(1, 1).double(), torch.full((1, 1), 12.0).double())
    # Feed-forward: v = 1, 2, 1, and the output 4, where 12 is wanted: an error of 8, which pulls v_2 by ½ · 4 · 8.
    assert [v.item() for v in s.v] == [1, 2, 17, 12]
    assert [e.item() for e in s.e[1:]] == [0, 16, 12 - 4 * 17]


def test_without_the_discriminative_stream_it_is_generative():
    """W neither learns nor has a say in what is generated, which is the top-down pass, unmoved."""
    rule = make(discriminative=0.0, inference_steps=50)
    x, y = batch(rule.net)
    assert all((g == 0).all() for g in grads(rule, x, y))
    generated = rule.generate(y)
    one_hot = F.one_hot(y, 3).double()
    assert (generated - rule.top_down(one_hot)).abs().max() < EXACT
    both = make(inference_steps=50)
    assert (both.generate(y) - both.top_down(one_hot)).abs().max() > 1e-3


def rises(rate, steps=60, **clamps):
    """How often the energy of any example rises on the way down, relative to its first value."""
    rule = make(inference_rate=rate)
    x, y = batch(rule.net, n=11)
    known = some_known(x) if clamps.get("image_free") else None
    s = rule.infer(x, None if clamps.get("label_free") else y, known, 0)
    values = [s.energy()]
    for _ in range(steps):
        values.append(s.settle(1).energy())
    differences = torch.stack(values).diff(dim=0)
    return (differences > 1e-12).sum().item(), differences[-1].abs().max().item()


@pytest.mark.parametrize("clamps", [{}, {"label_free": True}, {"label_free": True, "image_free": True}])
def test_the_energy_of_every_example_falls_at_small_rates(clamps):
    assert rises(0.05, **clamps)[0] == 0
    assert rises(1.5, **clamps)[0] > 0


def test_the_energy_is_the_plain_one_and_that_of_the_settled_states():
    for loss in LOSSES:
        rule = make(loss=loss)
        s = rule.infer(*batch(rule.net))
        assert (s.energy() - energy(rule, s.v)).abs().max() < EXACT
        assert s.energy().shape == (4,)


def test_it_learns_to_tell_and_to_show():
    data, rule = cu.load_dataset("digits"), BidirectionalPredictiveCoding(cu.MLP([784, 16, 10], loss="squared_error"))
    cu.train(rule, data, epochs=25, lr=0.003, optimizer="adam", batch_size=32, progress=False)
    assert cu.evaluate(rule, data.x_test, data.y_test) > 0.8
    means = torch.stack([data.x_train[data.y_train == k].mean(0) for k in range(10)])
    distance = torch.cdist(rule.generate(torch.arange(10)), means)
    assert (distance.argmin(1) == torch.arange(10)).all()  # its 3 looks more like 3s than like anything else


def test_the_frozen_control_teaches_what_lies_between_the_last_hidden_layer_and_the_label_alone():
    rule = make(SIZES[4])
    before = {name: value.clone() for name, value in rule.state_dict().items()}
    cu.FrozenHidden(rule).step(*batch(rule.net), torch.optim.SGD(rule.parameters(), lr=0.1))
    moved = {name for name, value in rule.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"net.weights.3", "net.biases.3", "top_down.weights.0", "top_down.biases.0"}
