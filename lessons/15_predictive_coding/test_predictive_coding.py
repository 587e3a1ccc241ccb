"""The science of predictive coding. Each fact is a function that a wrong rule must fail."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from helpers import ACTIVATIONS, LOSSES, batch, grads, largest_difference, small_net

import course_utils as cu
from course_utils.metrics import true_gradient
from course_utils.rules import ZIL, Backprop, FixedPrediction, PredictiveCoding
from course_utils.rules.predictive_coding import Settling, SettlingAroundForward

EXACT = 1e-12
# Square hidden layers, so that a transposed matrix still fits; the rest of the sizes are odd and different.
SIZES = {1: (7, 3), 2: (7, 5, 3), 3: (7, 5, 5, 3), 4: (7, 6, 6, 5, 3), 5: (7, 6, 6, 6, 5, 3)}
RULES = [PredictiveCoding, FixedPrediction, ZIL]


# ------------------------------------------------------------------ an independent account, by autograd


def predictions(net, states, x):
    """μ_1 … μ_L of states v_1 … v_{L−1}, written out once more."""
    f = {"relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "linear": lambda v: v}[net.activation_name]
    below = [x, *map(f, states)]
    return [h @ w.T + b for h, w, b in zip(below, net.weights, net.biases, strict=True)]


def energies(net, states, x, y, c):
    """The energy of each example, (batch,), straight from its definition."""
    *hidden, output = predictions(net, states, x)
    errors = [0.5 * (v - mu).pow(2).sum(1) for v, mu in zip(states, hidden, strict=True)]
    return sum(errors, c * net.loss(output, y, reduction="none"))


def descent(net, x, y, steps, rate, c=1.0):
    """States after `steps` of gradient descent on each example's energy from the feed-forward pass, by autograd."""
    states, h = [], x
    for l in range(net.depth - 1):
        v = h @ net.weights[l].T + net.biases[l]
        states.append(v.detach())
        h = net.nonlinearity(v)
    for _ in range(steps):
        states = [v.requires_grad_() for v in states]
        total = energies(net, states, x, y, c).sum()
        slopes = torch.autograd.grad(total, states) if states else []
        states = [(v - rate * g).detach() for v, g in zip(states, slopes, strict=True)]
    return states


def energy_gradient(net, states, x, y, c):
    """∂F/∂θ / c at these states, F averaged over the batch once."""
    mean = energies(net, states, x, y, c).mean() / c
    found = torch.autograd.grad(mean, list(net.parameters()), allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(net.parameters(), found, strict=True)]


# ------------------------------------------------------------------ wrong rules


class WrongSweep(Settling):
    """The sweep with one thing wrong."""

    wrong = ""

    @torch.no_grad()
    def __init__(self, rule, x, y):
        super().__init__(rule, x, y)
        if self.wrong in ("zero start", "random start"):
            for v in self.v[1:]:
                v.normal_(generator=rule.generator)
                v.mul_(self.wrong == "random start")
            self.compare()

    @torch.no_grad()
    def sweep(self):
        rate = self.rule.inference_rate / (len(self.y) if self.wrong == "averaged twice" else 1)
        for l in range(1, self.net.depth):
            w = self.net.weights[l]
            if self.wrong == "transposed" and w.shape[0] == w.shape[1]:
                w = w.T
            slope = {"no derivative": 1, "derivative of the state": self.net.derivative(self.v[l])}.get(
                self.wrong, self.net.derivative(self.h[l])
            )
            pull = (self.e[l + 1] @ w) * slope * (-1 if self.wrong == "sign" else 1)
            self.v[l] += rate * (pull - (0 if self.wrong == "no own error" else self.e[l]))
            if self.wrong == "one after the other":
                self.compare()
        self.compare()


class WrongTeacher(PredictiveCoding):
    wrong = ""

    def teach(self, s, l):
        error = -s.e[l + 1] / self.output_weight / (1 if self.wrong == "sum" else len(s.y))
        before = s.v[l] if self.wrong == "presynaptic without f" else s.h[l]
        self.add_grad(self.net.weights[l], error.T @ before)
        self.add_grad(self.net.biases[l], error.sum(0))


SWEEPS = ["transposed", "sign", "no derivative", "derivative of the state", "no own error", "one after the other"]
SWEEPS += ["averaged twice", "zero start", "random start"]
TEACHERS = ["presynaptic without f", "sum"]


def mutant(wrong, base=PredictiveCoding):
    if wrong in TEACHERS:
        return type("Mutant", (WrongTeacher,), {"wrong": wrong})
    return type("Mutant", (base,), {"settling": type("Wrong", (WrongSweep,), {"wrong": wrong})})


# ------------------------------------------------------------------ strict: the energy, by autograd


def distance_to_autograd(
    rule_class, sizes=SIZES[4], activation="tanh", loss="cross_entropy", targets="labels", **given
):
    """Largest difference of states and gradients to descent by autograd on the energy."""
    knobs = {"inference_steps": 7, "inference_rate": 0.2, "output_weight": 0.7, **given}
    net = small_net(sizes, activation, loss)
    x, y = batch(net, n=6, targets=targets)
    rule = rule_class(net, **knobs).double()
    states = descent(net, x, y, knobs["inference_steps"], knobs["inference_rate"], knobs["output_weight"])
    off = largest_difference(grads(rule, x, y), energy_gradient(net, states, x, y, knobs["output_weight"]))
    s = rule.infer(x, y)
    return max([off, *((a - b).abs().max().item() for a, b in zip(s.v[1:], states, strict=True))])


@pytest.mark.parametrize("targets", ["labels", "values"])
@pytest.mark.parametrize("depth", SIZES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_strict_is_descent_on_the_energy_by_autograd(activation, loss, depth, targets):
    assert distance_to_autograd(PredictiveCoding, SIZES[depth], activation, loss, targets) < EXACT


@pytest.mark.parametrize("wrong", SWEEPS + TEACHERS)
def test_mutants_do_not_descend_on_the_energy(wrong):
    assert distance_to_autograd(mutant("")) < EXACT
    assert distance_to_autograd(mutant(wrong)) > 1e-3


@pytest.mark.parametrize("loss", LOSSES)
def test_energy_is_the_sum_over_units_and_the_mean_over_the_batch(loss):
    net = small_net(SIZES[4], loss=loss)
    x, y = batch(net, n=6)
    rule = PredictiveCoding(net, output_weight=0.7).double()
    s = rule.infer(x, y)
    assert abs(s.energy() - energies(net, s.v[1:], x, y, 0.7).mean()) < EXACT
    start = rule.settling(rule, x, y)
    assert torch.equal(start.loss, net.loss(net(x), y)) and torch.allclose(start.energy(), 0.7 * start.loss)


@pytest.mark.parametrize("rule_class", RULES)
def test_inference_of_an_example_does_not_depend_on_its_batch(rule_class):
    net = small_net(SIZES[3])
    x, y = batch(net, n=6)
    rule = rule_class(net).double()
    together, alone = rule.infer(x, y), rule.infer(x[2:3], y[2:3])
    for a, b in zip(together.e[1:], alone.e[1:], strict=True):
        assert (a[2:3] - b).abs().max() < EXACT
    wrong = mutant("averaged twice")(net).double()
    assert (wrong.infer(x, y).e[1][2:3] - wrong.infer(x[2:3], y[2:3]).e[1]).abs().max() > 1e-3


@pytest.mark.parametrize("rule_class", RULES)
def test_gradients_are_batch_means_and_accumulate(rule_class):
    def change_when_doubled(kind):
        net = small_net()
        rule, (x, y) = kind(net).double(), batch(net)
        return largest_difference(grads(rule, x, y), grads(rule, torch.cat([x, x]), torch.cat([y, y])))

    assert change_when_doubled(rule_class) < EXACT
    assert change_when_doubled(mutant("sum")) > 1e-2
    net = small_net()
    rule, (x, y) = rule_class(net).double(), batch(net)
    once = grads(rule, x, y)
    rule.backward(x, y)
    assert largest_difference([p.grad for p in net.parameters()], [2 * g for g in once]) < EXACT


@pytest.mark.parametrize("rule_class", RULES)
def test_backward_returns_the_loss_before_the_step_and_touches_nothing_else(rule_class):
    net = small_net()
    rule, (x, y) = rule_class(net, seed=3).double(), batch(net)
    kept = x.clone(), {name: value.clone() for name, value in rule.state_dict().items()}
    generator = rule.generator.get_state()
    loss = rule.backward(x, y)
    assert loss.ndim == 0 and not loss.requires_grad and abs(loss - net.loss(net(x), y)) < EXACT
    assert torch.equal(x, kept[0]) and torch.equal(generator, rule.generator.get_state())
    assert all(torch.equal(value, kept[1][name]) for name, value in rule.state_dict().items())


# ------------------------------------------------------------------ the equivalents of backprop


def distance_to_backprop(
    rule_class, sizes=SIZES[4], activation="tanh", loss="cross_entropy", targets="labels", **given
):
    net = small_net(sizes, activation, loss)
    x, y = batch(net, targets=targets)
    return largest_difference(grads(rule_class(net, **given).double(), x, y), true_gradient(net, x, y))


@pytest.mark.parametrize("targets", ["labels", "values"])
@pytest.mark.parametrize("depth", SIZES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_fixed_prediction_and_zil_are_backprop(activation, loss, depth, targets):
    case = SIZES[depth], activation, loss, targets
    knobs = {"inference_rate": 1.0, "inference_steps": depth - 1}
    assert distance_to_backprop(FixedPrediction, *case, **knobs) < EXACT
    assert distance_to_backprop(FixedPrediction, *case, **knobs | {"inference_steps": depth + 3}) < EXACT  # and stays
    assert distance_to_backprop(ZIL, *case) < EXACT


def test_what_is_not_backprop():
    knobs = {"inference_rate": 1.0, "inference_steps": 3}
    assert distance_to_backprop(FixedPrediction, **knobs | {"inference_steps": 2}) > 1e-3  # one sweep short
    assert distance_to_backprop(PredictiveCoding, **knobs) > 1e-3
    assert distance_to_backprop(PredictiveCoding, inference_rate=0.2, inference_steps=300) > 1e-3
    for wrong in SWEEPS:
        if wrong not in ("one after the other", "no own error"):  # at γ = 1 a first arrival does not feel these two
            assert distance_to_backprop(mutant(wrong, ZIL)) > 1e-3, wrong


def test_the_output_weight_does_not_change_the_scale_of_the_gradient():
    for rule_class, knobs in ((FixedPrediction, {"inference_rate": 1.0}), (ZIL, {})):
        net = small_net(SIZES[3])
        rule, (x, y) = rule_class(net, **knobs).double(), batch(net)
        rule.output_weight = 0.01
        assert largest_difference(grads(rule, x, y), true_gradient(net, x, y)) < EXACT


def at_least(k, n, p):
    """P[Binomial(n, p) ≥ k]."""
    return sum(math.comb(n, j) * p**j * (1 - p) ** (n - j) for j in range(k, n + 1))


def off_the_binomial(rule_class, steps, rate, sizes=SIZES[5]):
    """Largest difference to each layer's backprop gradient times its binomial tail, in units of the gradient."""
    net = small_net(sizes)
    x, y = batch(net)
    ours = grads(rule_class(net, inference_steps=steps, inference_rate=rate).double(), x, y)
    true = true_gradient(net, x, y)
    shares = [at_least(net.depth - l, steps, rate) for l in range(1, net.depth + 1)] * 2
    return max(
        ((g - share * t).abs().max() / t.abs().max()).item() for g, t, share in zip(ours, true, shares, strict=True)
    )


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9, 1.0, 1.5])
@pytest.mark.parametrize("steps", [0, 1, 3, 4, 20])
def test_fixed_prediction_gives_each_layer_its_binomial_share_of_backprop(steps, rate):
    assert off_the_binomial(FixedPrediction, steps, rate) < EXACT * max(1, abs(1 - 2 * rate)) ** steps * 4


def test_the_binomial_law_is_not_that_of_other_sweeps():
    class Upwards(SettlingAroundForward):
        def sweep(self):  # from the top down: an error crosses all layers in one sweep
            for l in reversed(range(1, self.net.depth)):
                told = (self.e[l + 1] @ self.net.weights[l].detach()) * self.net.derivative(self.h[l])
                self.e[l].lerp_(told, self.rule.inference_rate)

    wrong = type("Wrong", (FixedPrediction,), {"settling": Upwards})
    assert off_the_binomial(FixedPrediction, 6, 0.3) < EXACT
    assert off_the_binomial(wrong, 6, 0.3) > 1e-2
    assert off_the_binomial(PredictiveCoding, 6, 0.3) > 1e-2  # strict: only nearly


@pytest.mark.parametrize("steps", [5, 20])
def test_for_small_rates_the_share_is_a_power_of_the_rate(steps):
    for k in range(5):
        for rate in (1e-3, 1e-5):
            assert at_least(k, steps, rate) == pytest.approx(math.comb(steps, k) * rate**k, rel=steps * rate)


def test_strict_with_few_small_steps_is_backprop_with_the_same_shares_to_first_order_in_the_rate():
    net = small_net(SIZES[5])
    x, y = batch(net)

    def off(rate):
        ours = grads(PredictiveCoding(net, inference_steps=20, inference_rate=rate).double(), x, y)
        shares = [at_least(net.depth - l, 20, rate) for l in range(1, net.depth + 1)]
        pairs = zip(ours[: net.depth], true_gradient(net, x, y)[: net.depth], shares, strict=True)
        return max(((g - share * t).norm() / (share * t).norm()).item() for g, t, share in pairs)

    # Not smaller: the first layer's share is then lost in the rounding of its states.
    assert off(4e-3) / off(4e-4) == pytest.approx(10, rel=0.15)  # so it vanishes with the rate


# ------------------------------------------------------------------ the equilibrium


def equilibrium_error(c, rule_class=PredictiveCoding):
    """Relative distance of the settled gradient to backprop's, all parameters in one vector."""
    net = small_net(SIZES[4])
    x, y = batch(net, n=6)
    rule = rule_class(net, inference_steps=600, inference_rate=0.2, output_weight=c).double()
    ours, true = (torch.cat([g.flatten() for g in found]) for found in (grads(rule, x, y), true_gradient(net, x, y)))
    return ((ours - true).norm() / true.norm()).item()


def test_the_equilibrium_is_backprop_only_as_the_weight_of_the_output_vanishes():
    errors = {c: equilibrium_error(c) for c in (1.0, 1e-1, 1e-2, 1e-3, 1e-4)}
    assert errors[1.0] > 0.1
    assert all(errors[c] <= 10 * c for c in (1e-2, 1e-3, 1e-4))
    assert errors[1e-3] / errors[1e-4] == pytest.approx(10, rel=0.05)  # first order in c
    assert equilibrium_error(1e-3, mutant("no derivative")) > 0.1
    assert equilibrium_error(1e-3, mutant("presynaptic without f")) > 0.1


def test_a_nearer_target_does_not_make_the_equilibrium_backprop():
    def error(share):
        net = small_net(SIZES[4], loss="squared_error")
        x, _ = batch(net, n=6)
        out = net(x).detach()
        y = out + share * torch.randn(out.shape, generator=torch.Generator().manual_seed(3), dtype=out.dtype)
        ours = grads(PredictiveCoding(net, inference_steps=600, inference_rate=0.2).double(), x, y)
        true = true_gradient(net, x, y)
        ours, true = (torch.cat([g.flatten() for g in found]) for found in (ours, true))
        return ((ours - true).norm() / true.norm()).item()

    assert error(1e-4) > 0.1


def linear_energy(net, x, y):
    """½ rᵀS⁻¹r, averaged over the batch."""
    maps, chain = [], torch.eye(net.sizes[-1], dtype=x.dtype)
    for w in reversed(list(net.weights)[1:]):
        chain = chain @ w.detach()
        maps.append(chain @ chain.T)
    s = torch.eye(net.sizes[-1], dtype=x.dtype) + sum(maps)
    r = y - net(x).detach()
    return (0.5 * r * torch.linalg.solve(s, r.T).T).sum(1).mean().item()


def linear_hessian(net):
    """Of one example's energy in v_1 … v_{L−1}, for a linear network with squared error: it depends on nothing else."""
    x, y = torch.zeros(1, net.sizes[0], dtype=torch.float64), torch.zeros(1, net.sizes[-1], dtype=torch.float64)
    sizes = net.sizes[1:-1]

    def energy(flat):
        return energies(net, [part[None] for part in flat.split(sizes)], x, y, 1.0).sum()

    return torch.autograd.functional.hessian(energy, torch.zeros(sum(sizes), dtype=torch.float64))


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_energy_at_rest_of_a_linear_network(depth):
    def off(rule_class):
        net = small_net(SIZES[depth], "linear", "squared_error")
        x, y = batch(net, n=6, targets="values")
        rate = 1 / torch.linalg.eigvalsh(linear_hessian(net))[-1].item() if depth > 1 else 0.1
        s = rule_class(net, inference_steps=2000, inference_rate=rate).double().infer(x, y)
        return abs(s.energy().item() - linear_energy(net, x, y))

    assert off(PredictiveCoding) < 1e-10
    if depth > 2:
        assert off(mutant("transposed")) > 1e-4
    if depth > 1:
        assert off(mutant("sign")) > 1e-4 or math.isnan(off(mutant("sign")))


def energy_path(net, x, y, rate, steps, rule_class=PredictiveCoding):
    rule = rule_class(net, inference_rate=rate).double()
    s = rule.settling(rule, x, y)
    path = [s.energy().item()]
    for _ in range(steps):
        s.sweep()
        path.append(s.energy().item())
    return path


def falls(path):
    return all(b <= a + 1e-13 * abs(a) for a, b in pairwise(path))


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_energy_falls_at_every_sweep_below_two_over_the_largest_curvature_and_rises_above(depth):
    net = small_net(SIZES[depth], "linear", "squared_error")
    x, y = batch(net, n=6, targets="values")
    bound = 2 / torch.linalg.eigvalsh(linear_hessian(net))[-1].item()
    assert falls(energy_path(net, x, y, 0.999 * bound, 200))
    above = energy_path(net, x, y, 1.05 * bound, 1000)
    assert above[-1] > 10 * above[0]
    assert not falls(energy_path(net, x, y, 0.5 * bound, 200, mutant("sign")))


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "linear"])
@pytest.mark.parametrize("loss", LOSSES)
def test_energy_falls_at_every_sweep_for_small_rates_if_f_is_smooth(loss, activation):
    net = small_net(SIZES[4], activation, loss)
    assert falls(energy_path(net, *batch(net, n=6), 0.1, 100))


@pytest.mark.parametrize("loss", LOSSES)
def test_at_the_kink_of_relu_the_energy_may_rise_a_little_and_less_for_smaller_rates(loss):
    net = small_net(SIZES[4], "relu", loss)

    def rises(rate):
        path = energy_path(net, *batch(net, n=6), rate, round(20 / rate))
        return max(b - a for a, b in pairwise(path)) / (path[0] - path[-1])

    # A state that steps across 0 overshoots by at most γ times the slope it came from: a rise of first order in γ.
    assert 0 < rises(0.1) < 0.02 and rises(0.01) < rises(0.1) / 5


@pytest.mark.parametrize("rule_class", RULES)
def test_a_network_that_is_right_stays_as_it_is(rule_class):
    net = small_net(SIZES[4], loss="squared_error")
    x, _ = batch(net)
    rule = rule_class(net).double()
    found = grads(rule, x, net(x).detach())
    assert max(g.abs().max() for g in found) < EXACT
    assert torch.equal(rule.predict(x), net(x))


# ------------------------------------------------------------------ noise, knobs, training


def test_activity_noise_is_a_part_of_the_predictions():
    net = small_net(SIZES[4])
    x, y = batch(net)
    net.activity_noise, net.noise_seed = 0.5, 7
    truth = grads(Backprop(net), x, y)
    for rule in (FixedPrediction(net, inference_rate=1.0), ZIL(net)):
        assert largest_difference(grads(rule.double(), x, y), truth) < EXACT
    net.activity_noise = 0.0
    assert largest_difference(grads(ZIL(net).double(), x, y), truth) > 1e-3


@pytest.mark.parametrize("rule_class", [PredictiveCoding, FixedPrediction])
def test_state_noise_has_its_size_comes_from_the_rule_and_repeats(rule_class):
    net = small_net((7, 300, 300, 3), "linear")
    x, y = batch(net, n=40)

    def errors(noise, seed=0, steps=1):
        knobs = {"inference_steps": steps, "inference_rate": 0.01, "state_noise": noise}
        return rule_class(net, seed=seed, **knobs).double().infer(x, y).e[1]

    shaken = errors(0.2) - errors(0.0)
    n = shaken.numel()
    assert shaken.std().item() == pytest.approx(0.2, rel=4 / (2 * n) ** 0.5)
    assert abs(shaken.mean().item()) < 4 * 0.2 / n**0.5
    assert torch.equal(errors(0.2, 1), errors(0.2, 1)) and not torch.equal(errors(0.2, 1), errors(0.2, 2))


BAD = [("inference_steps", v) for v in (-1, 2.5, True, math.nan, None)]
BAD += [("inference_rate", v) for v in (0, -0.1, math.nan, math.inf, "fast")]
BAD += [("state_noise", v) for v in (-1e-9, math.nan)] + [("output_weight", v) for v in (0.0, -1, math.inf)]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_bad_knobs_are_refused_at_the_door_and_later(name, value):
    with pytest.raises(ValueError, match=f"{name} is"):
        PredictiveCoding(small_net(), **{name: value})
    rule = PredictiveCoding(small_net())
    before = getattr(rule, name)
    with pytest.raises(ValueError, match=f"{name} is"):
        setattr(rule, name, value)
    assert getattr(rule, name) == before


@pytest.mark.parametrize("rule_class", RULES)
def test_bad_input_is_refused(rule_class):
    rule = rule_class(small_net())
    x, y = batch(rule.net)
    for bad in ((x[:, :3], y), (x[:0], y[:0]), (x, y[:2]), (x, y + 7), (x * math.nan, y), (x.float(), y)):
        with pytest.raises(ValueError):
            rule.double().backward(*bad)


def run(rule_class=PredictiveCoding, seed=0, data=None, knobs=None, frozen=False, **settings):
    data = data or cu.load_dataset("digits", limit=400)
    rule = rule_class(cu.MLP([784, 24, 16, 10], seed=seed), seed=seed, **(knobs or {}))
    settings = {"epochs": 2, "lr": 0.1, "batch_size": 32, "seed": seed, **settings}
    cu.train(cu.FrozenHidden(rule) if frozen else rule, data, **settings, progress=False)
    return rule


@pytest.mark.parametrize("rule_class", RULES)
def test_training_is_deterministic_bit_for_bit(rule_class):
    one, again, other = (run(rule_class, seed).state_dict() for seed in (0, 0, 1))
    assert one.keys() == again.keys()
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["net.weights.0"], other["net.weights.0"])


def test_knobs_may_move_while_training_runs_and_are_read_at_every_step():
    seen = []

    class Watched(PredictiveCoding):
        def infer(self, x, y):
            seen.append((self.inference_steps, self.inference_rate, self.state_noise))
            return super().infer(x, y)

    run(Watched, epochs=1, knobs=None, data=None, lr=0.05)
    assert set(seen) == {(12, 0.2, 0.0)}
    seen.clear()
    rule = Watched(cu.MLP([784, 24, 10]))
    schedules = {"inference_steps": [(0, 2), (200, 5)], "inference_rate": 0.3, "state_noise": [(0, 0.0), (100, 0.01)]}
    data = cu.load_dataset("digits", limit=400)
    cu.train(rule, data, epochs=1, batch_size=100, lr=0.05, knobs=schedules, progress=False)
    assert seen[0] == (2, 0.3, 0.0) and seen[-1][0] == 5 and seen[-1][2] == 0.01
    with pytest.raises(ValueError, match="inference_rate is"):
        cu.train(rule, data, knobs={"inference_rate": [(0, 0.1), (9, 0)]}, progress=False)


def test_state_dict_round_trip():
    trained, fresh = run(), PredictiveCoding(cu.MLP([784, 24, 16, 10], seed=9), seed=9)
    fresh.load_state_dict(trained.state_dict())
    data = cu.load_dataset("digits", limit=400)
    x, y = data.x_train[:50], data.y_train[:50]
    assert largest_difference(grads(fresh, x, y), grads(trained, x, y)) == 0


@pytest.mark.parametrize("knobs", [{}, {"state_noise": 0.1}])
def test_a_probed_run_is_bit_equal_to_an_unprobed_one(knobs):
    plain, probed = run(knobs=knobs).state_dict(), run(knobs=knobs, probe_every=64).state_dict()
    assert all(torch.equal(plain[name], probed[name]) for name in plain)


def test_learning_really_happens_in_the_hidden_layers():
    data, accuracy = cu.load_dataset("digits"), {}
    for frozen in (False, True):
        rule = run(data=data, epochs=8, lr=0.05, frozen=frozen)
        accuracy[frozen] = cu.evaluate(rule, data.x_test, data.y_test)
    assert accuracy[False] > accuracy[True] + 0.1 and accuracy[False] > 0.85


def test_shuffled_labels_teach_nothing_about_the_test_set():
    data = cu.load_dataset("digits")
    order = torch.randperm(len(data.y_train), generator=torch.Generator().manual_seed(0))
    rule = run(data=replace(data, y_train=data.y_train[order]))
    chance, n = 0.1, len(data.y_test)
    assert cu.evaluate(rule, data.x_test, data.y_test) < chance + 4 * (chance * (1 - chance) / n) ** 0.5


def settled_share(rule, x, y):
    """How much of the way from its start to its long-run value the energy falls in `inference_steps` sweeps."""
    s = rule.infer(x, y)
    start, after = s.loss.item(), s.energy().item()
    rule.inference_rate /= 2
    for _ in range(400):
        s.sweep()
    return (start - after) / (start - s.energy().item())


def test_the_defaults_settle_most_of_the_way_and_the_near_backprop_settings_do_not():
    data = cu.load_dataset("digits")
    x, y = data.x_train[:200], data.y_train[:200]
    for seed in range(3):
        net = cu.MLP([784, 256, 256, 10], seed=seed)
        assert settled_share(PredictiveCoding(net), x, y) >= 0.8
        assert settled_share(PredictiveCoding(net, inference_steps=20, inference_rate=0.01), x, y) < 0.4
