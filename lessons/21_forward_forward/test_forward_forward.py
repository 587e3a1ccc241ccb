"""What each layer of Forward-Forward learns, and from whom not. Each fact is a function that a wrong rule must fail."""

import pytest
import torch
import torch.nn.functional as F
from helpers import ACTIVATIONS, LOSSES, batch, clusters, grads, largest_difference, mutant
from helpers.labelled_passes import SETTINGS, SIZES, make, unit, written

import course_utils as cu
from course_utils.network import ACTIVATIONS as FUNCTIONS
from course_utils.rules import ForwardForward, forward_forward
from course_utils.rules.forward_forward import LabelledPasses, normalised

EXACT = 1e-12
PASSES = {  # mutants of the passes and of the rule: {name: (in the source, instead of it)}
    "unit length": ("normalised(", "unit_length("),
    "no normalisation": ("normalised(", "("),
}
RULE = {
    "others' goodness": ("self.layer_collaboration", "True"),
    "sum goodness": ("goodness_of(h[:2])", "h[:2].square().sum(-1)"),
    "signs": ("torch.sigmoid(-margin)", "torch.sigmoid(margin)"),
    "gradient of p": ("torch.sigmoid(-margin)", "torch.sigmoid(margin) * (1 - torch.sigmoid(margin))"),
    "sum": (" / len(x)  # (4)", "  # (4)"),
    "no derivative": (" * net.derivative(h[:2])", ""),
    "hears what is above": ("push[..., None] * 2", "(1 + net.weights[l + 1].sum(0)) * push[..., None] * 2"),
    "threshold the wrong way": ("- self.threshold", "+ self.threshold"),
}


def wrong_rule(name):
    """Forward-Forward with one thing wrong."""
    if name in RULE:
        return mutant(ForwardForward, *RULE[name])
    return type(name, (mutant(LabelledPasses, *PASSES[name]), ForwardForward), {})


@pytest.fixture
def fixed_labels(monkeypatch):
    """The false label of each example is the next class: so a reference knows it."""

    def next_class(true, belief, generator):
        return true.roll(1, dims=1)

    monkeypatch.setattr(forward_forward, "wrong_labels", next_class)


def local_gradients(rule, x, y):
    """Autograd of each hidden layer's own loss, its input detached, and of the readout's: weights, then biases."""
    net, classes = rule.net, rule.net.sizes[-1]
    true = F.one_hot(y, classes).to(x.dtype) if y.dtype == torch.int64 else y
    f, parameters = FUNCTIONS[net.activation_name][0], [*net.weights, *net.biases]
    passes = []
    for label in (true, true.roll(1, dims=1), torch.zeros_like(true)):
        here, activity = written(rule, x, label), []
        for w, b in zip(net.weights[:-1], net.biases[:-1], strict=True):
            activity.append(f(here @ w.T + b))
            size = activity[-1].square().mean(1, keepdim=True).sqrt().clamp(min=1e-30)  # a silent layer stays silent
            here = (activity[-1] / size).detach()
        passes.append((activity, here))
    losses = []
    for l in range(net.depth - 1):
        local = 0.0
        for sign, (activity, _) in zip((rule.polarity, -rule.polarity), passes, strict=False):
            margins = [(a.square().mean(1) - rule.threshold).detach() for a in activity]
            margins[l] = activity[l].square().mean(1) - rule.threshold
            margin = sum(margins) if rule.layer_collaboration else margins[l]
            local = local - torch.log(torch.sigmoid(sign * margin)).mean()
        losses.append(local)
    if net.depth > 1:
        scores = unit(passes[2][1]) @ net.weights[-1].T + net.biases[-1]
    else:
        scores = unit(written(rule, x, torch.zeros_like(true))) @ net.weights[-1].T + net.biases[-1]
    losses.append(net.loss(scores, y))
    found = torch.autograd.grad(sum(losses), parameters)
    return list(found), sum(losses[:-1])


def distance(rule, targets="labels", hidden_only=False):
    x, y = batch(rule.net, n=6, targets=targets)
    ours, (true, _) = grads(rule, x, y), local_gradients(rule, x, y)
    if hidden_only:
        keep = [i for i in range(2 * rule.net.depth) if i % rule.net.depth < rule.net.depth - 1]
        ours, true = [ours[i] for i in keep], [true[i] for i in keep]
    return largest_difference(ours, true)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("depth", SIZES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_are_autograds_of_the_local_losses(fixed_labels, activation, depth, settings):
    assert distance(make(depth=depth, activation=activation, **SETTINGS[settings])) < EXACT


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("targets", ["labels", "values"])
def test_the_readout_learns_by_the_delta_rule_of_its_loss(fixed_labels, loss, targets):
    for depth in SIZES:
        assert distance(make(depth=depth, loss=loss), targets) < EXACT


@pytest.mark.parametrize("wrong", [*PASSES, *RULE])
def test_mutants_do_not_follow_the_local_losses(fixed_labels, wrong):
    assert distance(make(wrong_rule(wrong)), hidden_only=True) > 1e-3


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_loss_it_returns_is_the_sum_of_the_local_ones(fixed_labels, settings):
    rule = make(**SETTINGS[settings])
    x, y = batch(rule.net)
    assert rule.loss_name == "goodness loss"
    assert abs(rule.backward(x, y) - local_gradients(rule, x, y)[1]) < EXACT


def change_below(rule_class, l, **settings):
    """What a fresh draw of everything above hidden layer l changes in the gradients up to l."""
    found = []
    for randomise in (False, True):
        rule = make(rule_class, depth=4, **settings)
        if randomise:
            generator = torch.Generator().manual_seed(5)
            with torch.no_grad():
                for p in [*rule.net.weights[l:], *rule.net.biases[l:]]:
                    p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype))
        g = grads(rule, *batch(rule.net))
        found.append([g[i] for j in range(l) for i in (j, 4 + j)])
    return largest_difference(*found)


@pytest.mark.parametrize("l", [1, 2, 3])
def test_no_layer_hears_of_the_layers_above_it(l):
    assert change_below(ForwardForward, l) == 0  # bit for bit
    assert change_below(ForwardForward, l, polarity=-1) == 0
    assert change_below(ForwardForward, l, layer_collaboration=True) > 1e-5 or l == 3
    assert change_below(ForwardForward, l, layer_collaboration=True) == 0 or l < 3  # the readout has no goodness
    if l < 3:
        assert change_below(wrong_rule("hears what is above"), l) > 1e-4
        assert change_below(wrong_rule("others' goodness"), l) > 1e-4


def change_with_scale(rule_class, scale, layer=0):
    """What the gradients of the layers above change by when the scale of their input does; relu passes it on."""
    found = []
    for c in (1.0, scale):
        rule = make(rule_class, depth=4, activation="relu")
        x, y = batch(rule.net)
        if layer:
            with torch.no_grad():
                for p in (rule.net.weights[layer - 1], rule.net.biases[layer - 1]):
                    p.mul_(c)
        g = grads(rule, x if layer else c * x, y)
        found.append([g[i] for j in range(layer, 3) for i in (j, 4 + j)])
    return largest_difference(*found)


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("scale", [1e-3, 0.3, 7.0, 1e3])
def test_each_layer_is_blind_to_the_scale_of_its_input(scale, layer):
    assert change_with_scale(ForwardForward, scale, layer) < EXACT
    assert change_with_scale(wrong_rule("no normalisation"), scale, layer) > 1e-3


def test_a_power_of_two_changes_not_a_bit():
    for layer in (0, 1, 2):
        assert change_with_scale(ForwardForward, 0.25, layer) == 0


def test_normalised_activities_have_mean_square_one_and_silent_ones_stay_silent():
    h = torch.randn(5, 9, dtype=torch.float64).relu()
    assert (normalised(h).square().mean(1) - 1).abs().max() < EXACT
    assert (normalised(h / h.norm()) - normalised(h)).abs().max() < EXACT
    assert torch.equal(normalised(torch.zeros(2, 9)), torch.zeros(2, 9))


def largest_step(rule_class, threshold):
    """The largest entry of the first layer's gradient, in float32."""
    rule = rule_class(cu.MLP([12, 30, 30, 4], seed=2), threshold=threshold)
    data = clusters()
    return grads(rule, data.x_train[:64], data.y_train[:64])[0].abs().max().item()


def test_the_gradient_of_the_probability_vanishes_where_that_of_its_logarithm_does_not():
    for threshold in (0.1, 1.0, 150.0):
        assert largest_step(ForwardForward, threshold) > 1e-3
    assert largest_step(wrong_rule("gradient of p"), 1.0) > 1e-3
    assert largest_step(wrong_rule("gradient of p"), 150.0) == 0.0
