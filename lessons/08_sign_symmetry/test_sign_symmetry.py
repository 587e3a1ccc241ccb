"""The science of sign symmetry. Each fact is a function that a wrong rule must fail."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from helpers import ACTIVATIONS, LOSSES, batch, clusters, grads, largest_difference, small_net

import course_utils as cu
from course_utils.metrics import alignment_angle, cosine, true_gradient
from course_utils.rules import FeedbackAlignment, SignSymmetry
from course_utils.rules.sign_symmetry import MAGNITUDES

EXACT = 1e-12
# Square hidden layers, so that a transposed matrix still fits; the rest of the sizes are odd and different.
SIZES = {1: (7, 3), 2: (7, 5, 3), 3: (7, 5, 5, 3), 4: (7, 6, 6, 5, 3)}
LONG = {"uniform": 1.0, "fixed_magnitude": math.sqrt(2 / math.pi), "batch_magnitude": math.sqrt(2 / math.pi)}
CLOSED_FORM = {  # cos(W, B) before learning: (init, magnitude) → E|w| E m / √(E w² E m²)
    ("gaussian", "uniform"): math.sqrt(2 / math.pi),
    ("gaussian", "fixed_magnitude"): 2 / math.pi,
    ("gaussian", "batch_magnitude"): 2 / math.pi,
    ("uniform", "uniform"): math.sqrt(3) / 2,
    ("uniform", "fixed_magnitude"): 3 / 4,
    ("uniform", "batch_magnitude"): 3 / 4,
}


class Mutant(SignSymmetry):
    """Sign symmetry with one thing wrong."""

    wrong = ""

    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, **keywords)
        self.first = [None, *(w.detach().clone() for w in list(self.net.weights)[1:])]
        if self.wrong == "scale":
            for l in range(1, self.net.depth):
                self.magnitudes[l] = 1.5 * self.magnitudes[l]

    @torch.no_grad()
    def draw_feedback(self, generator):
        drawn = list(super().draw_feedback(generator))
        for l in range(1, len(drawn)):
            w, b = self.net.weights[l], drawn[l]
            if self.wrong == "first signs":
                drawn[l] = torch.copysign(b, self.first[l].to(b))
            elif self.wrong == "no sign":
                drawn[l] = b.abs()
            elif self.wrong == "weights":
                drawn[l] = w.clone()
            elif self.wrong == "redrawn flips":
                wrong = torch.rand(w.shape, generator=generator) < self.flipped
                drawn[l] = torch.copysign(b, torch.where(wrong, -w, w))
            elif self.wrong == "half flips":
                drawn[l] = torch.copysign(b, torch.where(self.thresholds[l] < self.flipped / 2, -w, w))
            elif self.wrong == "sign of the error":
                drawn[l] = -b
            elif self.wrong == "signed magnitudes":
                drawn[l] = torch.randn(b.shape, generator=generator, dtype=b.dtype) * b.abs().mean() * w.sign()
        return tuple(drawn)

    @torch.no_grad()
    def backward(self, x, y):
        if self.wrong not in ("transposed", "no derivative", "sum"):
            return super().backward(x, y)
        h, feedback = self.net.activations(x), self.draw_feedback(self.generator)
        delta = self.net.output_error(h[-1], y) / (1 if self.wrong == "sum" else len(x))
        for l in reversed(range(self.net.depth)):
            self.add_grad(self.net.weights[l], delta.T @ h[l])
            self.add_grad(self.net.biases[l], delta.sum(0))
            if l > 0:
                b = feedback[l]
                if self.wrong == "transposed" and b.shape[0] == b.shape[1]:
                    b = b.T
                delta = (delta @ b) * (1 if self.wrong == "no derivative" else self.net.derivative(h[l]))
        return self.net.loss(h[-1], y)


def mutant(name):
    return type(f"Mutant_{name}", (Mutant,), {"wrong": name})


# ---------------------------------------------------------------- with |W| for the magnitudes it is backprop


def distance_to_backprop(
    rule_class, sizes=SIZES[3], activation="tanh", loss="cross_entropy", targets="labels", turn=False, **knobs
):
    """Largest difference to autograd with the magnitudes of W itself; turn: after W has changed all its signs."""
    net = small_net(sizes, activation, loss)
    rule, (x, y) = rule_class(net, **{"magnitude": "fixed_magnitude", **knobs}).double(), batch(net, targets=targets)
    for l in range(1, net.depth):
        with torch.no_grad():
            net.weights[l].mul_(-1 if turn else 1)
        rule.magnitudes[l] = net.weights[l].abs()
    return largest_difference(grads(rule, x, y), true_gradient(net, x, y))


@pytest.mark.parametrize("targets", ["labels", "values"])
@pytest.mark.parametrize("depth", SIZES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_with_the_sizes_of_w_it_is_autograd(activation, loss, depth, targets):
    assert distance_to_backprop(SignSymmetry, SIZES[depth], activation, loss, targets) < EXACT
    assert distance_to_backprop(SignSymmetry, SIZES[depth], activation, loss, targets, magnitude="uniform") < EXACT


@pytest.mark.parametrize(
    "wrong", ["no sign", "transposed", "no derivative", "sum", "sign of the error", "signed magnitudes"]
)
def test_mutants_are_not_backprop(wrong):
    assert distance_to_backprop(mutant("")) < EXACT
    assert distance_to_backprop(mutant(wrong)) > 1e-3


def test_the_signs_are_those_of_the_weights_now():
    assert distance_to_backprop(SignSymmetry, turn=True) < EXACT
    assert distance_to_backprop(mutant("first signs")) < EXACT  # not told apart before a weight has changed its sign
    assert distance_to_backprop(mutant("first signs"), turn=True) > 1e-3


@pytest.mark.parametrize("magnitude", MAGNITUDES)
@pytest.mark.parametrize("depth", SIZES)
@pytest.mark.parametrize("loss", LOSSES)
def test_output_layer_is_always_exact(loss, depth, magnitude):
    net = small_net(SIZES[depth], loss=loss)
    x, y = batch(net)
    ours, true = grads(SignSymmetry(net, seed=3, magnitude=magnitude).double(), x, y), true_gradient(net, x, y)
    last = [depth - 1, 2 * depth - 1]
    assert largest_difference([ours[i] for i in last], [true[i] for i in last]) < EXACT
    if depth > 1:
        assert (ours[0] - true[0]).abs().max() > 1e-3


def test_gradients_are_batch_means():
    def change_when_doubled(rule_class):
        net = small_net()
        rule, (x, y) = rule_class(net).double(), batch(net)
        return largest_difference(grads(rule, x, y), grads(rule, torch.cat([x, x]), torch.cat([y, y])))

    assert change_when_doubled(SignSymmetry) < EXACT
    assert change_when_doubled(mutant("sum")) > 1e-2


def autograd_through_feedback(net, feedback, x, y):
    """What `backward` must give: autograd in a network whose products go forward by W and back by `feedback`."""

    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx, h, w, b):
            ctx.save_for_backward(h, b)
            return h @ w.T

        @staticmethod
        def backward(ctx, delta):
            h, b = ctx.saved_tensors
            return delta @ b, delta.T @ h, None

    f = {"relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "linear": lambda a: a}[net.activation_name]
    h = x
    for l, (w, bias) in enumerate(zip(net.weights, net.biases, strict=True)):
        a = Product.apply(h, w, w if feedback[l] is None else feedback[l]) + bias
        h = a if l == net.depth - 1 else f(a)
    return torch.autograd.grad(net.loss(h, y), list(net.parameters()))


@pytest.mark.parametrize("magnitude", MAGNITUDES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_error_goes_back_through_the_feedback_it_shows(activation, magnitude):
    def miss(rule_class):
        net = small_net(SIZES[4], activation)
        rule, (x, y) = rule_class(net, seed=3, magnitude=magnitude, flipped=0.3).double(), batch(net)
        expected = autograd_through_feedback(net, rule.feedback_weights, x, y)
        return largest_difference(grads(rule, x, y), expected)

    assert miss(SignSymmetry) < EXACT
    assert miss(mutant("transposed")) > 1e-4


# ---------------------------------------------------------------- the angle at the start


def angle_at_the_start(rule_class, init, magnitude, flipped=0.0, width=300):
    """cos(W, B) of a square layer before any step."""
    net = cu.MLP([5, width, width, 4], seed=1, init=init)
    rule = rule_class(net, seed=2, magnitude=magnitude, flipped=flipped)
    return cosine(net.weights[1].detach().flatten(), rule.feedback_weights[1].flatten())


STANDARD_ERROR = 1 / 300  # of a cosine of 300² independent pairs, at most: (1 − ρ²)/√n


@pytest.mark.parametrize(("init", "magnitude"), CLOSED_FORM)
def test_cosines_at_the_start(init, magnitude):
    expected = CLOSED_FORM[init, magnitude]
    assert abs(angle_at_the_start(SignSymmetry, init, magnitude) - expected) < 4 * STANDARD_ERROR
    for wrong in ("no sign", "weights", "sign of the error", "signed magnitudes"):
        assert abs(angle_at_the_start(mutant(wrong), init, magnitude) - expected) > 10 * STANDARD_ERROR, wrong


def test_cosines_in_numbers():
    assert {round(CLOSED_FORM["gaussian", m], 3) for m in MAGNITUDES} == {0.798, 0.637}
    assert {round(CLOSED_FORM["uniform", m], 3) for m in MAGNITUDES} == {0.866, 0.75}


@pytest.mark.parametrize("flipped", [0.0, 0.1, 0.25, 0.5, 0.9, 1.0])
@pytest.mark.parametrize(("init", "magnitude"), CLOSED_FORM)
def test_wrong_signs_multiply_the_cosine_by_1_minus_2p(init, magnitude, flipped):
    expected = (1 - 2 * flipped) * CLOSED_FORM[init, magnitude]
    assert abs(angle_at_the_start(SignSymmetry, init, magnitude, flipped) - expected) < 4 * STANDARD_ERROR
    if flipped:
        miss = abs(angle_at_the_start(mutant("half flips"), init, magnitude, flipped) - expected)
        assert miss > 10 * STANDARD_ERROR


@pytest.mark.parametrize("init", ["gaussian", "uniform"])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_feedback_is_as_long_as_the_weights(magnitude, activation, init):
    def ratio(rule_class):
        net = cu.MLP([5, 300, 200, 4], activation, init=init, seed=1)
        return (rule_class(net, magnitude=magnitude).feedback_weights[1].norm() / net.weights[1].norm()).item()

    # ‖·‖² over n entries scatters by √(kurtosis − 1)/√n ≤ √2/√n, the norm by half of that, the ratio by √2 of both
    assert ratio(SignSymmetry) == pytest.approx(1, abs=4 / math.sqrt(300 * 200))
    assert abs(ratio(mutant("scale")) - 1) > 0.4


def test_uniform_magnitudes_are_exactly_the_first_standard_deviation():
    for activation, gain in (("relu", 2), ("tanh", 1), ("sigmoid", 1)):
        for init in ("gaussian", "uniform"):
            net = cu.MLP([7, 6, 5, 3], activation, init=init)
            for l, b in enumerate(SignSymmetry(net).feedback_weights):
                assert b is None or (b.abs() - math.sqrt(gain / net.sizes[l])).abs().max() < 1e-7


def messages(rule, x, y):
    """The message every layer hears, (batch, units) each; [0] for the first hidden layer."""
    net = rule.net
    h = net.activations(x)
    delta, heard = net.output_error(h[-1], y) / len(x), []
    for l in reversed(range(1, net.depth)):
        delta = (delta @ rule.feedback_weights[l]) * net.derivative(h[l])
        heard.insert(0, delta)
    return heard


@torch.no_grad()
def test_angles_multiply_from_layer_to_layer():
    """cos of the message k layers down is ρᵏ, here (1 − 2p)ρ to the power of k, up to the scatter of the width."""
    sizes, width = [20, *[400] * 4, 400], 400

    def worst(rule_class, flipped):
        net = cu.MLP(sizes, "linear", loss="squared_error", seed=3)
        x = torch.randn(50, 20, generator=torch.Generator().manual_seed(1))
        y = torch.randn(50, 400, generator=torch.Generator().manual_seed(2))
        ours, true = rule_class(net, flipped=flipped), mutant("weights")(net)
        rho, misses = (1 - 2 * flipped) * math.sqrt(2 / math.pi), []
        pairs = list(zip(messages(ours, x, y), messages(true, x, y), strict=True))[::-1]
        for k, (a, b) in enumerate(pairs, start=1):
            misses.append(abs(cosine(a.flatten(), b.flatten()) - rho**k) * math.sqrt(width / k))
        return max(misses)

    for flipped in (0.0, 0.2):
        assert worst(SignSymmetry, flipped) < 4  # standard deviations of 1/√width a layer, at most
        assert worst(mutant("no sign"), flipped) > 8


def test_a_scale_of_c_multiplies_the_message_by_c_a_layer():
    """Exactly: δ_l is linear in each of the matrices above it."""

    def worst(power):
        net = small_net(SIZES[4])
        rule, (x, y) = SignSymmetry(net).double(), batch(net)
        plain = grads(rule, x, y)[: net.depth]
        for l in range(1, net.depth):
            rule.magnitudes[l] = 3 * rule.magnitudes[l]
        scaled = grads(rule, x, y)[: net.depth]
        return max(
            (b - 3.0 ** power(net.depth - 1 - l) * a).abs().max().item()
            for l, (a, b) in enumerate(zip(plain, scaled, strict=True))
        )

    assert worst(lambda below: below) < 1e-11
    assert worst(lambda below: 1) > 1e-3


# ---------------------------------------------------------------- magnitudes and flips in time


def test_new_magnitudes_at_every_batch_have_the_mean_of_uniform_ones_times_root_2_over_pi():
    """With one hidden layer: E[brSF] = √(2/π)·uSF, within four standard errors."""
    net = small_net((9, 8, 5))
    x, y = batch(net, n=6)

    def off(rule_class, long):
        rule = rule_class(net, seed=1, magnitude="batch_magnitude").double()
        draws = torch.stack([grads(rule, x, y)[0] for _ in range(600)])
        expected = long * grads(SignSymmetry(net).double(), x, y)[0]
        return ((draws.mean(0) - expected).norm() / (draws.var(0).sum() / len(draws)).sqrt()).item()

    root = math.sqrt(2 / math.pi)
    assert off(SignSymmetry, root) < 4
    assert off(SignSymmetry, 1.0) > 8
    assert off(mutant("signed magnitudes"), root) > 8


@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_only_batch_magnitudes_are_drawn_anew(magnitude):
    net = small_net()
    rule, (x, y) = SignSymmetry(net, magnitude=magnitude).double(), batch(net)
    state = {name: value.clone() for name, value in rule.state_dict().items()}
    first, second = grads(rule, x, y)[0], grads(rule, x, y)[0]
    assert torch.equal(first, second) == (magnitude != "batch_magnitude")
    assert all(torch.equal(value, state[name]) for name, value in rule.state_dict().items())


def test_a_look_at_the_feedback_changes_nothing_and_edits_go_elsewhere():
    rule = SignSymmetry(small_net(), magnitude="batch_magnitude").double()
    one, two = rule.feedback_weights, rule.feedback_weights
    assert one[0] is None and len(one) == rule.net.depth
    assert all(torch.equal(a, b) for a, b in zip(one[1:], two[1:], strict=True))
    rule.backward(*batch(rule.net))
    assert not torch.equal(one[1], rule.feedback_weights[1])
    with pytest.raises(TypeError):  # a tuple: an edit that would be lost is refused
        rule.feedback_weights[1] = one[1]


def test_flips_are_nested_and_stay_with_their_synapse():
    net = cu.MLP([5, 60, 50, 4], seed=3)

    def wrong_at(flipped):
        rule = SignSymmetry(net, seed=2, flipped=flipped)
        return rule.feedback_weights[1].sign() != net.weights[1].sign()

    shares = [wrong_at(p) for p in (0.0, 0.1, 0.4, 1.0)]
    assert all((less & ~more).sum() == 0 for less, more in itertools.pairwise(shares))
    assert wrong_at(0.0).sum() == 0 and wrong_at(1.0).all()
    n = wrong_at(0.4).numel()
    assert abs(wrong_at(0.4).double().mean().item() - 0.4) < 4 * math.sqrt(0.4 * 0.6 / n)


def test_flips_do_not_move_with_training():
    def same(rule_class):
        net = small_net(SIZES[3])
        rule = rule_class(net, flipped=0.5).double()
        optimizer, seen = torch.optim.SGD(rule.parameters(), lr=0.5), []
        for t in range(4):
            seen.append(rule.feedback_weights[1].sign() * net.weights[1].detach().sign())
            rule.step(*batch(net, seed=t), optimizer)
        return all(torch.equal(seen[0], later) for later in seen[1:])

    assert same(SignSymmetry)
    assert not same(mutant("redrawn flips")) and not same(mutant("first signs"))


def test_with_all_signs_wrong_a_step_goes_uphill():
    net = small_net((9, 8, 5), "linear", "squared_error")
    x, y = batch(net, n=6)

    def slope(flipped):
        rule = SignSymmetry(net, flipped=flipped).double()
        return (grads(rule, x, y)[0] * true_gradient(net, x, y)[0]).sum().item()

    assert slope(0.0) > 0 and slope(1.0) == pytest.approx(-slope(0.0), rel=1e-9)


def test_zero_counts_as_positive():
    net = small_net((7, 5, 3))
    with torch.no_grad():
        net.weights[1].zero_()
    assert (SignSymmetry(net).feedback_weights[1] > 0).all()


def test_flipped_may_move_while_training_runs():
    def end(flipped, knobs):
        rule = SignSymmetry(cu.MLP([12, 9, 4]), flipped=flipped)
        cu.train(rule, clusters(n=200), epochs=1, lr=0.05, batch_size=20, knobs=knobs, progress=False)
        return rule.net.weights[0].detach()

    constant = end(0.3, None)
    assert torch.equal(constant, end(0.0, {"flipped": 0.3}))
    moved = end(0.0, {"flipped": [(0, 0.3), (80, 0.0)]})
    assert not torch.equal(constant, moved) and not torch.equal(moved, end(0.0, None))


# ---------------------------------------------------------------- doors, seeds, states


@pytest.mark.parametrize("flipped", [-1e-9, 1.0001, math.nan, math.inf])
def test_a_bad_share_is_refused_at_the_door_and_later(flipped):
    with pytest.raises(ValueError, match="flipped is"):
        SignSymmetry(small_net(), flipped=flipped)
    rule = SignSymmetry(small_net(), flipped=0.25)
    with pytest.raises(ValueError, match="flipped is"):
        rule.flipped = flipped
    assert rule.flipped == 0.25


@pytest.mark.parametrize("magnitude", ["Uniform", "", None, 1.0])
def test_an_unknown_magnitude_is_refused_and_the_known_ones_named(magnitude):
    with pytest.raises(ValueError, match="uniform, fixed_magnitude, batch_magnitude"):
        SignSymmetry(small_net(), magnitude=magnitude)


def test_bad_input_is_refused():
    rule = SignSymmetry(small_net())
    x, y = batch(rule.net)
    for bad in ((x[:, :3], y), (x[:0], y[:0]), (x, y[:2]), (x, y + 7), (x * math.nan, y)):
        with pytest.raises(ValueError):
            rule.double().backward(*bad)


def test_magnitudes_and_flips_know_nothing_of_the_weights_whatever_the_seed():
    net = cu.MLP([30, 200, 150, 4], seed=4)
    for seed in (4, 5):  # 4: the network's own
        rule = SignSymmetry(net, seed=seed, magnitude="fixed_magnitude")
        size, w = rule.magnitudes[1] - rule.magnitudes[1].mean(), net.weights[1].detach().abs()
        luck = rule.thresholds[1] - 0.5
        for a, b in ((size, w - w.mean()), (luck, net.weights[1].detach()), (luck, size)):
            assert abs(cosine(a.flatten(), b.flatten())) < 4 / b.numel() ** 0.5


def run(seed=0, data=None, magnitude="fixed_magnitude", flipped=0.1, **settings):
    data = data or cu.load_dataset("digits", limit=400)
    rule = SignSymmetry(cu.MLP([784, 24, 10], seed=seed), seed=seed, magnitude=magnitude, flipped=flipped)
    cu.train(rule, data, **{"epochs": 2, "lr": 0.1, "batch_size": 32, "seed": seed, **settings}, progress=False)
    return rule


@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_training_is_deterministic_bit_for_bit(magnitude):
    one, again, other = (run(seed, magnitude=magnitude).state_dict() for seed in (0, 0, 1))
    assert one.keys() == again.keys()
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["net.weights.0"], other["net.weights.0"])


@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_state_dict_round_trip_carries_the_feedback(magnitude):
    trained = run(magnitude=magnitude)
    fresh = SignSymmetry(cu.MLP([784, 24, 10], seed=9), seed=9, magnitude=magnitude, flipped=0.1)
    state = trained.state_dict()
    assert {"magnitudes.1", "thresholds.1"} <= state.keys()
    assert not torch.equal(fresh.thresholds[1], trained.thresholds[1])
    fresh.load_state_dict(state)
    fresh.generator.set_state(trained.generator.get_state())
    data = cu.load_dataset("digits", limit=400)
    x, y = data.x_train[:50], data.y_train[:50]
    assert torch.equal(fresh.feedback_weights[1], trained.feedback_weights[1])
    assert largest_difference(grads(fresh, x, y), grads(trained, x, y)) == 0


@pytest.mark.parametrize("magnitude", MAGNITUDES)
def test_a_probed_run_is_bit_equal_to_an_unprobed_one(magnitude):
    plain, probed = (run(magnitude=magnitude, **more).state_dict() for more in ({}, {"probe_every": 64}))
    assert all(torch.equal(plain[name], probed[name]) for name in plain)


# ---------------------------------------------------------------- learning


def test_hidden_angle_is_below_that_of_feedback_alignment():
    data = cu.load_dataset("digits")
    x, y = data.x_train[:256], data.y_train[:256]

    def angle(rule):
        cu.train(rule, data, epochs=4, lr=0.1, batch_size=32, progress=False)
        return alignment_angle(grads(rule, x, y)[0], true_gradient(rule.net, x, y)[0])

    for seed in range(3):
        ours = angle(SignSymmetry(cu.MLP([784, 32, 10], seed=seed), seed=seed))
        assert ours < 50 and ours < angle(FeedbackAlignment(cu.MLP([784, 32, 10], seed=seed), seed=seed)) - 10


def test_learning_really_happens_in_the_hidden_layer():
    data, accuracy = cu.load_dataset("digits"), {}
    for name, wrap in {"taught": lambda r: r, "frozen": cu.FrozenHidden}.items():
        rule = wrap(SignSymmetry(cu.MLP([784, 16, 10])))  # few units, so that random features are poor
        first = rule.net.weights[0].detach().clone()
        cu.train(rule, data, epochs=8, lr=0.03, batch_size=32, progress=False)
        accuracy[name] = cu.evaluate(rule, data.x_test, data.y_test)
        assert torch.equal(first, rule.net.weights[0]) == (name == "frozen")
    assert accuracy["taught"] > accuracy["frozen"] + 0.1 and accuracy["taught"] > 0.85


def test_shuffled_labels_teach_nothing_about_the_test_set():
    data = cu.load_dataset("digits")
    order = torch.randperm(len(data.y_train), generator=torch.Generator().manual_seed(0))
    rule = run(data=replace(data, y_train=data.y_train[order]))
    chance, n = 0.1, len(data.y_test)
    assert cu.evaluate(rule, data.x_test, data.y_test) < chance + 4 * (chance * (1 - chance) / n) ** 0.5
