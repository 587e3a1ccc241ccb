"""The science of predictive coding. Each fact is a function that a wrong rule must fail."""

import pytest
import torch
from helpers import ACTIVATIONS, LOSSES, batch, grads, largest_difference, small_net
from helpers.settling import SIZES, SWEEPS, TEACHERS, energies, wrong

import course_utils as cu
from course_utils.rules import ZIL, Backprop, FixedPrediction, PredictiveCoding

EXACT = 1e-12
RULES = [PredictiveCoding, FixedPrediction, ZIL]


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


@pytest.mark.parametrize("name", [*SWEEPS, *TEACHERS])
def test_mutants_do_not_descend_on_the_energy(name):
    assert distance_to_autograd(wrong(name)) > 1e-3


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
    twice = wrong("averaged twice")(net).double()
    assert (twice.infer(x, y).e[1][2:3] - twice.infer(x[2:3], y[2:3]).e[1]).abs().max() > 1e-3


@pytest.mark.parametrize("rule_class", RULES)
def test_backward_returns_the_loss_of_the_feed_forward_pass(rule_class):
    net = small_net()
    rule, (x, y) = rule_class(net, seed=3).double(), batch(net)
    assert abs(rule.backward(x, y) - net.loss(net(x), y)) < EXACT


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


def test_knobs_may_move_while_training_runs_and_are_read_at_every_step():
    seen = []

    class Watched(PredictiveCoding):
        def infer(self, x, y):
            seen.append((self.inference_steps, self.inference_rate, self.state_noise))
            return super().infer(x, y)

    rule, data = Watched(cu.MLP([784, 24, 10])), cu.load_dataset("digits", limit=400)
    cu.train(rule, data, epochs=1, batch_size=100, lr=0.05, progress=False)
    assert set(seen) == {(12, 0.2, 0.0)}
    seen.clear()
    schedules = {"inference_steps": [(0, 2), (200, 5)], "inference_rate": 0.3, "state_noise": [(0, 0.0), (100, 0.01)]}
    cu.train(rule, data, epochs=1, batch_size=100, lr=0.05, knobs=schedules, progress=False)
    assert seen[0] == (2, 0.3, 0.0) and seen[-1][0] == 5 and seen[-1][2] == 0.01
    with pytest.raises(ValueError, match="inference_rate is"):
        cu.train(rule, data, knobs={"inference_rate": [(0, 0.1), (9, 0)]}, progress=False)
