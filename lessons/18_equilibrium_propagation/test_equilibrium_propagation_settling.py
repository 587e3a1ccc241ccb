"""The science of the way to rest: how large a step it bears, Euler's steps, feedback that is not the transpose."""

import pytest
import torch
from helpers import batch, grads, mutant
from helpers.equilibrium_propagation import LONG, relative_error, settling_net, wrong

from course_utils.rules import EquilibriumPropagation
from course_utils.studies.equilibrium_propagation import Corrected, Euler, OwnFeedback


def safe_step(net, gain):
    """Equation (6): 2 / (1 + √γ ‖A‖), A the couplings between the layers that move, with both directions in it."""
    sizes = net.sizes[1:]
    blocks = [[torch.zeros(rows, columns, dtype=torch.float64) for columns in sizes] for rows in sizes]
    for l, w in enumerate(list(net.weights)[1:]):
        blocks[l + 1][l], blocks[l][l + 1] = w.detach(), w.detach().T
    A = torch.cat([torch.cat(row, 1) for row in blocks])
    return 2 / (1 + gain**0.5 * torch.linalg.matrix_norm(A, 2).item())


def rises(rule, x, k, sweeps=60, seed=0):
    """Number of sweeps with step k, from random states, in which an example's energy rises; and the last energy."""
    generator, net = torch.Generator().manual_seed(seed), rule.net
    s = [x, *(torch.rand(len(x), n, generator=generator, dtype=x.dtype) for n in net.sizes[1:])]
    drives, count, old = rule.drives(x), 0, rule.energy(s, x)
    for _ in range(sweeps):
        s = rule.sweep(s, drives, damping=k)
        new = rule.energy(s, x)
        count, old = count + ((new - old) > 1e-11 * (1 + old.abs())).any().item(), new
    return count, old.max().item()


@pytest.mark.parametrize("gain", [0.3, 1.0])
@pytest.mark.parametrize("scale", [0.7, 1.5, 4.0])
@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "hard_sigmoid"])
def test_below_the_safe_step_the_energy_never_rises(activation, scale, gain):
    net = settling_net(activation=activation, scale=scale)
    x, _ = batch(net, n=5)
    step = min(1.0, 0.99 * safe_step(net, gain))
    for seed in range(3):
        assert rises(EquilibriumPropagation(net, feedback=gain), x, step, seed=seed)[0] == 0
    if scale > 1 and gain == 1.0 and activation == "tanh":
        assert rises(EquilibriumPropagation(net, feedback=gain), x, 1.0)[0] > 0
        assert rises(wrong("alpha=self.feedback", "alpha=-self.feedback")(net, feedback=gain), x, step)[0] > 0


def test_half_a_step_is_safe_while_the_couplings_stay_below_three_and_a_whole_one_below_one():
    net = settling_net(scale=1.0)
    x, _ = batch(net, n=5)
    assert 0.5 < safe_step(net, 1.0) < 1.0
    assert rises(EquilibriumPropagation(net, feedback=1.0), x, 0.5)[0] == 0
    assert rises(EquilibriumPropagation(net, feedback=1.0), x, 1.0)[0] > 0


@pytest.mark.parametrize("gain", [0.3, 0.8])
def test_in_a_linear_network_the_safe_step_is_where_settling_turns_into_an_explosion(gain):
    net = settling_net(activation="linear", scale=0.3)
    x, _ = batch(net, n=5)
    rule, step = EquilibriumPropagation(net, feedback=gain), safe_step(net, gain)
    assert step > 1
    calm, wild = (rises(rule, x, factor * step, sweeps=900) for factor in (0.99, 1.02))
    assert calm[0] == 0 and wild[0] > 100 and wild[1] > 1e6


def sweeps_to_rest(rule, x, k, share=0.01):
    """Sweeps until the states are within a share of the way from the forward pass to rest."""
    drives, rest = rule.drives(x), rule.rest(x)
    s = rule.forward_pass(x, drives)
    distance = [sum((a - b).pow(2).sum() for a, b in zip(s, rest, strict=True)).sqrt().item()]
    while distance[-1] > share * distance[0]:
        s = rule.sweep(s, drives, damping=k)
        distance.append(sum((a - b).pow(2).sum() for a, b in zip(s, rest, strict=True)).sqrt().item())
    return len(distance) - 1


def test_euler_comes_to_the_same_rest_and_takes_five_times_the_sweeps_or_more():
    net = settling_net(activation="hard_sigmoid")
    x, y = batch(net, n=5)
    ours, euler = EquilibriumPropagation(net), Euler(net)
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(ours.rest(x), euler.rest(x), strict=True))
    assert all(
        torch.allclose(a, b, atol=1e-9) for a, b in zip(ours.rest(x, 0.3, y), euler.rest(x, 0.3, y), strict=True)
    )
    assert 5 <= sweeps_to_rest(euler, x, 0.1) / sweeps_to_rest(ours, x, 0.5) <= 8
    drifting = mutant(Euler, ".clamp(0, 1)", "")(net)
    assert not torch.allclose(drifting.rest(x)[1], ours.rest(x)[1], atol=1e-3)


def error_with_own_feedback(rule_class, nudge, activation="tanh", loss="squared_error"):
    """Relative error of `.grad` against the gradient at rest, feedback weights held."""
    net = settling_net(activation=activation, loss=loss)
    x, y = batch(net, n=5)
    rule = rule_class(net, seed=1, feedback=0.5, nudge=nudge, **LONG).double()
    return relative_error(grads(rule, x, y), rule.reference_gradient(x, y))


@pytest.mark.parametrize("activation, loss", [("tanh", "squared_error"), ("sigmoid", "cross_entropy")])
def test_feedback_of_its_own_leaves_a_bias_that_no_nudge_removes_and_the_correction_removes_it(activation, loss):
    kind = {"activation": activation, "loss": loss}
    plain = [error_with_own_feedback(OwnFeedback, beta, **kind) for beta in (0.1, 0.01)]
    assert plain[1] > 0.1 and abs(plain[0] / plain[1] - 1) < 0.05
    exact = [error_with_own_feedback(Corrected, beta, **kind) for beta in (0.1, 0.05)]
    assert exact[0] < 0.02 and 3.8 < exact[0] / exact[1] < 4.3
    for old, new in (("d[l + 1] @ up[l]", "gain * d[l + 1] @ down[l]"), ("gain * d[l] @ down[l].T", "d[l] @ up[l].T")):
        assert error_with_own_feedback(mutant(Corrected, old, new), 0.01, **kind) > 0.02


def test_with_the_transpose_for_feedback_it_is_the_rule_itself():
    net = settling_net()
    x, y = batch(net, n=5)
    own = OwnFeedback(net).double()
    for l in range(1, net.depth):
        own.feedback_weights[l] = net.weights[l]
    assert relative_error(grads(own, x, y), grads(EquilibriumPropagation(net), x, y)) == 0
