"""The science of Backprop and TiltedFeedback: exact facts, and rules made wrong on purpose that must miss them."""

import math

import pytest
import torch
from helpers import ACTIVATIONS, LOSSES, batch, clusters, grads, largest_difference, mutant, small_net

import course_utils as cu
from course_utils.metrics import alignment_angle, gradient_statistics, true_gradient
from course_utils.rules import Backprop, TiltedFeedback

EXACT = 1e-12
SIZES = {1: (7, 3), 2: (7, 5, 3), 3: (7, 5, 5, 3), 4: (7, 6, 6, 5, 3)}
SQUARE = (5, 5, 5, 5)  # where a transposed matrix still fits
ANGLES = [0, 17, 60, 90, 101, 120, 180]


MUTANTS = {
    "sum over the batch": (" / len(x)", ""),
    "mean for the biases": ("delta.sum(0)", "delta.mean(0)"),
    "weights transposed": ("self.net.weights[l])", "self.net.weights[l].T)"),
    "no derivative": (" * self.net.derivative(h[l])", ""),
    "sign": ("(delta @", "-(delta @"),
    "another example's input": ("delta.T @ h[l]", "delta.T @ h[l].flip(0)"),
}
ANGLE = "math.radians(self.feedback_angle)"
TILT_MUTANTS = {
    "not orthogonal": (" - (d * w).sum() / (w * w).sum().clamp(min=1e-30) * w", ""),
    "to other weights": ("= self.net.weights[l],", "= vars(self).setdefault(f'{l}', self.net.weights[l].clone()),"),
    "not scaled": ("w.norm() / r.norm() * r", "r"),
    "degrees": (ANGLE, "self.feedback_angle"),
    "swapped": (ANGLE, "math.radians(90 - self.feedback_angle)"),
}


def distance_to_autograd(
    rule_class, sizes=SIZES[3], activation="tanh", loss="cross_entropy", targets="labels", **knobs
):
    net = small_net(sizes, activation, loss)
    rule, (x, y) = rule_class(net, **knobs).double(), batch(net, targets=targets)
    return largest_difference(grads(rule, x, y), true_gradient(net, x, y))


@pytest.mark.parametrize("targets", ["labels", "values"])
@pytest.mark.parametrize("depth", SIZES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("rule_class", [Backprop, TiltedFeedback])
def test_backprop_and_feedback_at_angle_0_are_autograd(rule_class, activation, loss, depth, targets):
    assert distance_to_autograd(rule_class, SIZES[depth], activation, loss, targets) < EXACT


@pytest.mark.parametrize("wrong", MUTANTS.values(), ids=MUTANTS)
def test_mutants_are_not_backprop(wrong):
    assert distance_to_autograd(Backprop, SQUARE) < EXACT
    assert distance_to_autograd(mutant(Backprop, *wrong), SQUARE) > 1e-3


def test_backprop_agrees_with_wiggled_synapses():
    net = small_net()
    x, y = batch(net)
    ours, size = grads(Backprop(net), x, y), 1e-6
    for p, gradient in zip(net.parameters(), ours, strict=True):
        flat = p.data.view(-1)
        for i in range(len(flat)):
            losses = []
            for step in (size, -2 * size):
                flat[i] += step
                losses.append(net.loss(net(x), y).item())
            flat[i] += size
            assert (losses[0] - losses[1]) / (2 * size) == pytest.approx(gradient.view(-1)[i].item(), abs=1e-8)


def test_backprop_has_nothing_to_say_to_a_network_of_zeros():
    net, data = cu.MLP([12, 9, 4], activation="tanh"), clusters()
    with torch.no_grad():
        for w in net.weights:
            w.zero_()
    for rule in (Backprop(net), TiltedFeedback(net, feedback_angle=50)):  # B is as long as W: it is zero, not NaN
        first = grads(rule, data.x_train[:64], data.y_train[:64])
        assert all((g == 0).all() for g in (first[0], first[1], first[2]))  # W₁; W₂ (h is 0); b₁
        cu.train(rule, data, epochs=3, lr=0.1, batch_size=16, progress=False)
        assert (net.weights[0] == 0).all() and (net.weights[1] == 0).all()


# ---------------------------------------------------------------- the tilt


def tilt_errors(rule_class, angle, redraw, steps=0, depth=4):
    """(largest error of the angle in degrees, of the length ‖B‖/‖W‖), over all layers that send back."""
    net = small_net(SIZES[depth])
    rule, (x, y) = rule_class(net, feedback_angle=angle, redraw=redraw).double(), batch(net, n=9)
    optimizer = torch.optim.SGD(rule.parameters(), lr=0.3)
    made = [rule.feedback(l) for l in range(1, net.depth)]
    for _ in range(steps):
        rule.step(x, y, optimizer)
        made = [rule.feedback(l) for l in range(1, net.depth)]
    weights = [w.detach() for w in list(net.weights)[1:]]
    off = max(abs(alignment_angle(b, w) - angle) for b, w in zip(made, weights, strict=True))
    return off, max(abs((b.norm() / w.norm()).item() - 1) for b, w in zip(made, weights, strict=True))


@pytest.mark.parametrize("steps", [0, 20])
@pytest.mark.parametrize("redraw", [False, True])
@pytest.mark.parametrize("angle", ANGLES)
def test_feedback_stands_at_the_angle_to_the_current_weights_and_is_as_long(angle, redraw, steps):
    off, longer = tilt_errors(TiltedFeedback, angle, redraw, steps)
    assert off < 1e-6 and longer < EXACT


@pytest.mark.parametrize("redraw", [False, True])
@pytest.mark.parametrize("wrong", TILT_MUTANTS.values(), ids=TILT_MUTANTS)
def test_mutants_do_not_stand_at_the_angle(wrong, redraw):
    assert max(tilt_errors(mutant(TiltedFeedback, *wrong), 60, redraw, steps=20)) > 1e-3


def test_a_fixed_direction_stays_and_a_redrawn_one_moves():
    def two(redraw):
        rule = TiltedFeedback(small_net(), feedback_angle=70, redraw=redraw).double()
        return rule.feedback(1), rule.feedback(1)

    assert torch.equal(*two(False)) and not torch.allclose(*two(True))


def test_feedback_at_180_degrees_is_minus_the_weights():
    net = small_net()
    rule = TiltedFeedback(net, feedback_angle=180).double()
    assert torch.allclose(rule.feedback(1), -net.weights[1], rtol=0, atol=EXACT)


@pytest.mark.parametrize(("activation", "angle"), [("relu", 60), ("tanh", 90), ("sigmoid", 120)])
def test_the_mean_update_with_redrawn_feedback_is_a_power_of_cos_theta_times_the_gradient(activation, angle):
    # (cos θ)^(L − l), whatever the activation: R and −R are equally likely, and layers draw independently.
    net = small_net(SIZES[3], activation)
    rule, (x, y) = TiltedFeedback(net, feedback_angle=angle, redraw=True).double(), batch(net)
    rows = gradient_statistics(rule, x, y, draws=600)
    for l, row in enumerate(rows.iloc[:3].itertuples()):
        theory = math.cos(math.radians(angle)) ** (2 - l)
        assert abs(row.projection - theory) < 4 * row.projection_se + 1e-9
        # Nothing is left across the gradient either: what the mean misses is its length alone.
        assert row.bias == pytest.approx(1 - theory, abs=max(4 * row.bias_se, 0.05))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_update_below_a_fixed_tilt_mixes_the_gradient_and_the_update_at_90_degrees(activation):
    net = small_net(SIZES[2], activation)
    x, y = batch(net)

    def update(rule_class, angle):
        return grads(rule_class(net, feedback_angle=angle).double(), x, y)[0]

    def off(rule_class, angle):
        theta = math.radians(angle)
        straight, across = update(TiltedFeedback, 0), update(TiltedFeedback, 90)
        return (update(rule_class, angle) - math.cos(theta) * straight - math.sin(theta) * across).abs().max()

    assert max(off(TiltedFeedback, angle) for angle in ANGLES) < EXACT
    assert off(mutant(TiltedFeedback, *TILT_MUTANTS["not orthogonal"]), 60) > 1e-3


def test_a_mutant_misses_the_mean_update():
    net, swapped = small_net(SIZES[2]), mutant(TiltedFeedback, *TILT_MUTANTS["swapped"])
    rule, (x, y) = swapped(net, feedback_angle=60, redraw=True).double(), batch(net)
    row = gradient_statistics(rule, x, y, draws=300).iloc[0]
    assert abs(row.projection - 0.5) > 8 * row.projection_se


def test_fixed_feedback_has_bias_and_no_noise():
    net = small_net()
    rule, (x, y) = TiltedFeedback(net, feedback_angle=60).double(), batch(net)
    row = gradient_statistics(rule, x, y, draws=40).iloc[0]
    assert row.variance < EXACT and row.bias > 0.3 and row.bias_reads != "not resolved"


@pytest.mark.parametrize("redraw", [False, True])
def test_the_readout_is_exact_at_every_angle(redraw):
    net = small_net()
    x, y = batch(net)
    ours = grads(TiltedFeedback(net, feedback_angle=77, redraw=redraw).double(), x, y)
    true = true_gradient(net, x, y)
    last = [net.depth - 1, 2 * net.depth - 1]
    assert largest_difference([ours[i] for i in last], [true[i] for i in last]) < EXACT
    assert (ours[0] - true[0]).abs().max() > 1e-3


def test_the_angle_moves_while_training_runs():
    data, moves = clusters(), [(0, 0.0), (96, 90.0)]
    frames = {}
    for name, knobs in {"moved": {"feedback_angle": moves}, "still": {"feedback_angle": 0.0}}.items():
        rule = TiltedFeedback(cu.MLP([12, 9, 4], activation="tanh"))
        settings = dict(epochs=2, lr=0.1, batch_size=16, eval_every=16, probe_every=16, progress=False)
        frames[name] = cu.train(rule, data, knobs=knobs, **settings).frame
    assert (frames["still"].angle_1.dropna() < 0.1).all()
    moved = frames["moved"]
    assert (moved[moved.samples <= 96].angle_1.dropna() < 0.1).all()
    assert (moved[moved.samples > 96].angle_1.dropna() > 20).all()


def test_a_constant_error_is_forgiven_at_90_degrees_and_a_fresh_one_is_not():
    data, accuracy = cu.load_dataset("digits"), {}
    for redraw in (False, True):
        scores = []
        for seed in range(3):
            rule = TiltedFeedback(cu.MLP([784, 16, 10], seed=seed), seed=seed, feedback_angle=90, redraw=redraw)
            cu.train(rule, data, epochs=8, lr=0.01, batch_size=32, progress=False)
            scores.append(cu.evaluate(rule, data.x_test, data.y_test))
        accuracy[redraw] = sum(scores) / 3
    assert accuracy[False] > accuracy[True] + 0.1


def test_an_angle_out_of_range_is_refused_before_training_and_in_it():
    rule = TiltedFeedback(small_net(), feedback_angle=180)
    with pytest.raises(ValueError, match="feedback_angle is 181; it must be a number from 0 to 180"):
        TiltedFeedback(small_net(), feedback_angle=181)
    with pytest.raises(ValueError, match="from 0 to 180"):
        rule.feedback_angle = 181


def test_a_weight_that_is_one_number_cannot_be_tilted():
    with pytest.raises(ValueError, match="wider layers"):
        TiltedFeedback(small_net((4, 1, 1)))
    TiltedFeedback(small_net((1, 3)))  # no way back is needed here


def test_the_feedback_knows_nothing_of_the_weights():
    net = cu.MLP([300, 200, 150], seed=4)
    d = TiltedFeedback(net, seed=4).directions[1]  # the same seed as the network's
    assert abs(cu.metrics.cosine(d.flatten(), net.weights[1].detach().flatten())) < 4 / d.numel() ** 0.5
