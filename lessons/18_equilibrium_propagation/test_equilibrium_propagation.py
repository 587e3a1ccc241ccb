"""The science of equilibrium propagation: rest, energy, contrast. A wrong rule must fail each fact."""

import pytest
import torch
import torch.nn.functional as F
from helpers import ACTIVATIONS, LOSSES, batch, flat, grads, mutant
from helpers.equilibrium_propagation import LONG, relative_error, settling_net, wrong

from course_utils.metrics import true_gradient
from course_utils.rules import EquilibriumPropagation
from course_utils.rules import equilibrium_propagation as module

SMOOTH = ["tanh", "sigmoid", "linear"]
GAIN = "self.feedback ** (l - self.net.depth)"


def slope_at_rest(rule_class, activation, loss, gain, beta=0.0):
    """Largest |∂F/∂s| where the states have come to rest."""
    net = settling_net(activation=activation, loss=loss)
    x, y = batch(net, n=5)
    rule = rule_class(net, feedback=gain)
    states = [s.clone().requires_grad_() for s in rule.rest(x, beta, y)[1:]]
    slopes = torch.autograd.grad(rule.energy([x, *states], x, beta, y).sum(), states)
    return max(slope.abs().max().item() for slope in slopes)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation, gain", [("tanh", 0.3), ("tanh", 1.0), ("sigmoid", 1.0), ("linear", 0.3)])
def test_where_the_states_rest_the_energy_has_no_slope(activation, loss, gain):
    assert slope_at_rest(EquilibriumPropagation, activation, loss, gain) < 1e-9
    assert slope_at_rest(EquilibriumPropagation, activation, loss, gain, beta=0.3) < 1e-9


def test_without_its_weights_or_with_another_cost_it_is_no_energy(monkeypatch):
    assert slope_at_rest(wrong(GAIN, "1.0"), "tanh", "squared_error", 0.3) > 1e-2
    assert slope_at_rest(wrong("alpha=self.feedback", "alpha=1.0"), "tanh", "squared_error", 0.3) > 1e-2
    monkeypatch.setattr(module, "cost_of_activity", mutant(module.cost_of_activity, 'activation == "tanh"', "False"))
    assert slope_at_rest(EquilibriumPropagation, "tanh", "squared_error", 0.3) > 1e-2


@pytest.mark.parametrize("activation", ["relu", "hard_sigmoid"])
def test_between_the_bounds_of_f_the_energy_has_no_slope_either_and_at_them_it_presses_outwards(activation):
    net = settling_net(activation=activation)
    x, _ = batch(net, n=5)
    rule = EquilibriumPropagation(net)
    states = [s.clone().requires_grad_() for s in rule.rest(x)[1:]]
    slopes = torch.autograd.grad(rule.energy([x, *states], x).sum(), states)
    seen = 0
    for s, slope in zip(states[:-1], slopes[:-1], strict=True):
        low, high = s < 1e-9, (s > 1 - 1e-9) & (activation == "hard_sigmoid")
        assert (slope[low] > -1e-7).all() and (slope[high] < 1e-7).all()
        assert slope[~low & ~high].abs().max() < 1e-7
        seen += low.sum().item()
    assert seen > 5 and slopes[-1].abs().max() < 1e-9


def unrolled(rule, x, y, sweeps=600):
    """Autograd's gradient of the loss after many sweeps from zero, written out without the rule's own loops."""
    net, gain = rule.net, rule.feedback
    s = [x, *(x.new_zeros(len(x), units) for units in net.sizes[1:])]
    for _ in range(sweeps):
        a = [F.linear(s[l], net.weights[l], net.biases[l]) for l in range(net.depth)]
        goals = [net.nonlinearity(a[l] + gain * s[l + 2] @ net.weights[l + 1]) for l in range(net.depth - 1)]
        s = [x, *((old + new) / 2 for old, new in zip(s[1:], [*goals, a[-1]], strict=True))]
    return torch.autograd.grad(net.loss(s[-1], y), list(net.parameters()))


def error_of_reference(rule_class, activation="tanh", loss="squared_error", gain=0.3):
    net = settling_net(activation=activation, loss=loss)
    x, y = batch(net, n=5)
    rule = rule_class(net, feedback=gain)
    return relative_error(rule.reference_gradient(x, y), unrolled(rule, x, y))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_reference_is_the_gradient_of_the_settled_network(activation, loss):
    assert error_of_reference(EquilibriumPropagation, activation, loss) < 1e-9


def test_a_wrong_reference_is_found():
    assert error_of_reference(EquilibriumPropagation, gain=1.0) < 1e-9
    assert error_of_reference(wrong("[*hidden, top + error]", "[*hidden, error]")) > 1e-3
    assert error_of_reference(wrong("alpha=self.feedback", "alpha=0.0")) > 1e-2  # backprop's, of net(x)


def error_of_contrast(rule_class, nudge, activation="tanh", loss="squared_error", gain=0.3, **knobs):
    """Relative error of `.grad` against the gradient at rest."""
    net = settling_net(activation=activation, loss=loss)
    x, y = batch(net, n=5)
    estimate = grads(rule_class(net, feedback=gain, nudge=nudge, **{**LONG, **knobs}), x, y)
    return relative_error(estimate, EquilibriumPropagation(net, feedback=gain).reference_gradient(x, y))


def ratio(rule_class, **knobs):
    """By how much the error shrinks from a nudge of 0.1 to one of 0.05."""
    return error_of_contrast(rule_class, 0.1, **knobs) / error_of_contrast(rule_class, 0.05, **knobs)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", SMOOTH)
def test_half_the_nudge_halves_the_error_of_one_side_and_quarters_that_of_both(activation, loss):
    kind = {"activation": activation, "loss": loss}
    assert 1.7 < ratio(EquilibriumPropagation, symmetric=False, **kind) < 2.1
    assert 3.8 < ratio(EquilibriumPropagation, **kind) < 4.3


@pytest.mark.parametrize(
    "old, new",
    [
        (GAIN, "1.0"),
        ("2 if self.symmetric", "1 if self.symmetric"),
        ("-self.nudge, y", "self.nudge, y"),
        ("self.nudge * (2", "-self.nudge * (2"),
        ("gradient.addmm_(plus[l + 1].T, minus[l] - plus[l], alpha=share)", "pass"),
        ("(width * len(plus[0]))", "width"),
    ],
)
def test_a_contrast_with_one_thing_wrong_does_not_tend_to_the_gradient(old, new):
    assert error_of_contrast(EquilibriumPropagation, 0.01) < 1e-3
    assert error_of_contrast(wrong(old, new), 0.01) > 3e-3


def without_hidden_layer(rule_class, symmetric, beta):
    """How far `.grad` is from delta rule / (1 + β), or / (1 − β²) on both sides: equation (5)."""
    net = settling_net((6, 3))
    x, y = batch(net, n=5, targets="values")
    estimate = grads(rule_class(net, nudge=beta, symmetric=symmetric, nudged_sweeps=60), x, y)
    factor = 1 / (1 - beta**2) if symmetric else 1 / (1 + beta)
    return (flat(estimate) - factor * flat(true_gradient(net, x, y))).abs().max().item()


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("beta", [0.05, 0.5, 0.9])
def test_without_a_hidden_layer_it_is_the_delta_rule_times_a_known_number(symmetric, beta):
    assert without_hidden_layer(EquilibriumPropagation, symmetric, beta) < 1e-12
    assert without_hidden_layer(wrong("beta / (1 + beta)", "beta"), symmetric, beta) > 1e-4


def test_an_output_that_is_pushed_away_too_hard_is_refused():
    net = settling_net()
    x, y = batch(net)
    with pytest.raises(ValueError, match=r"^nudge is 1\.5"):
        EquilibriumPropagation(net, nudge=1.5).backward(x, y)
    assert all(torch.isfinite(g).all() for g in grads(EquilibriumPropagation(net, nudge=1.5, symmetric=False), x, y))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_without_feedback_the_free_phase_is_the_forward_pass_bit_for_bit(activation, dtype):
    net = settling_net(activation=activation).to(dtype)
    x, y = batch(net, n=9)
    rule = EquilibriumPropagation(net, feedback=0.0)
    assert all(torch.equal(s, h) for s, h in zip(rule.settle(x), net.activations(x), strict=True))
    assert torch.equal(rule.predict(x), net(x))
    assert [bool(g.any()) for g in grads(rule, x, y)] == [False, False, True] * 2
    leaky = wrong("alpha=self.feedback", "alpha=self.feedback + 0.01")(net, feedback=0.0)
    assert not torch.equal(leaky.predict(x), net(x))


def test_it_predicts_with_the_settled_output_and_returns_the_loss_there():
    net = settling_net()
    x, y = batch(net)
    rule = EquilibriumPropagation(net, free_sweeps=7)
    assert torch.equal(rule.predict(x), rule.settle(x, sweeps=7)[-1]) and not torch.allclose(rule.predict(x), net(x))
    assert torch.equal(rule.backward(x, y), net.loss(rule.predict(x), y))


def distance_to_backprop(rule_class, gain, beta, symmetric):
    """Relative distance of `.grad` to backprop's gradient of net(x) times the number of equation (5)."""
    net = settling_net()
    x, y = batch(net, n=5)
    estimate = grads(rule_class(net, feedback=gain, nudge=beta, symmetric=symmetric, **LONG), x, y)
    factor = 1 / (1 - beta**2) if symmetric else 1 / (1 + beta)
    return relative_error(estimate, [factor * g for g in true_gradient(net, x, y)])


@pytest.mark.parametrize("beta, symmetric", [(0.1, True), (0.8, True), (0.8, False), (1e4, False)])
def test_with_little_feedback_it_is_backprop_whatever_the_nudge(beta, symmetric):
    far, near = (distance_to_backprop(EquilibriumPropagation, gain, beta, symmetric) for gain in (0.01, 0.001))
    assert near < 0.01 and 8 < far / near < 12
    assert distance_to_backprop(wrong(GAIN, "1.0"), 0.001, beta, symmetric) > 0.5


def error_when_unfinished(nudge, symmetric):
    """The same, two sweeps into the free phase."""
    return error_of_contrast(EquilibriumPropagation, nudge, symmetric=symmetric, free_sweeps=2, nudged_sweeps=20)


def test_an_unfinished_free_phase_spoils_one_side_the_more_the_weaker_the_nudge_and_both_sides_not():
    assert error_when_unfinished(0.01, symmetric=False) > 5 * error_when_unfinished(0.1, symmetric=False)
    assert error_when_unfinished(0.01, symmetric=False) > 0.5
    assert error_when_unfinished(0.01, symmetric=True) < 0.1
