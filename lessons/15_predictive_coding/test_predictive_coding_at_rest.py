"""Predictive coding on its way to rest, and there. Each fact is a function that a wrong rule must fail."""

import math
from itertools import pairwise

import pytest
import torch
from helpers import LOSSES, batch, grads, small_net
from helpers.settling import SIZES, energies, wrong

import course_utils as cu
from course_utils.metrics import true_gradient
from course_utils.rules import PredictiveCoding


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
    assert equilibrium_error(1e-3, wrong("no derivative")) > 0.1
    assert equilibrium_error(1e-3, wrong("presynaptic without f")) > 0.1


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
        assert off(wrong("transposed")) > 1e-4
    if depth > 1:
        assert off(wrong("sign")) > 1e-4 or math.isnan(off(wrong("sign")))


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
    assert not falls(energy_path(net, x, y, 0.5 * bound, 200, wrong("sign")))


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
