"""The science of Oja's and Sanger's rule: closed forms. A wrong rule must fail each fact."""

import pytest
import torch
from helpers import batch, flat, grads, largest_difference, mutant, small_net
from helpers.hebbian_features import VARIANCES, asymmetry, cosines, exact_inputs, flow, grown, linear_net, wrong

from course_utils.metrics import true_gradient
from course_utils.rules import Sanger

OJA = "torch.tril(y.T @ y)"


def one_neuron(rule_class=Sanger, length=0.5, seed=3):
    """(a rule with one hidden neuron of that length, exact inputs, their axes)."""
    rule, (x, axes) = rule_class(linear_net([6, 1, 2], seed=seed)), exact_inputs()
    with torch.no_grad():
        w = rule.net.weights[0]
        w.mul_(length / w.norm())
    return rule, x, axes


def error_of_norm_law(rule_class):
    """|2 w·Δw − 2 ⟨y²⟩ (1 − |w|²)|, at a length that is not 1 and on a batch of no special kind."""
    rule, (x, _) = rule_class(linear_net([7, 1, 3])), batch(small_net())
    w = rule.net.weights[0].detach()
    y = x @ w.T
    growth = 2 * (w * rule.change(0, x, y)).sum()
    return (growth - 2 * y.square().mean() * (1 - w.square().sum())).abs().item()


def test_a_neuron_grows_as_its_power_times_what_it_lacks_of_length_one():
    assert error_of_norm_law(Sanger) < 1e-14
    for new in ("torch.tril(y.T @ y, -1)", "(y.T @ y).sqrt()"):  # no decay; decay by |y|
        assert error_of_norm_law(mutant(Sanger, OJA, new)) > 1e-3


def distance_to_flow(rule_class, eta, time=2.0, length=0.5):
    rule, x, axes = one_neuron(rule_class, length)
    start = rule.net.weights[0].detach().clone()
    return (grown(rule, x, eta, round(time / eta)) - flow(start, axes, time)).norm().item()


@pytest.mark.parametrize("length", [0.2, 1.0, 1.6])
def test_the_whole_way_has_a_closed_form_which_small_steps_approach_in_proportion_to_their_size(length):
    far, near = (distance_to_flow(Sanger, eta, length=length) for eta in (0.002, 0.001))
    assert near < 2e-3 and abs(far / near - 2) < 0.1
    no_square = mutant(Sanger, OJA, "(y.T @ y).sqrt()")
    assert distance_to_flow(no_square, 0.001, length=length) > 0.02


def test_plain_hebb_grows_by_the_widest_direction_s_variance_without_end():
    rule, x, axes = one_neuron(mutant(Sanger, f" - {OJA} @ self.net.weights[l]", ""))
    start = rule.net.weights[0].detach() @ axes[0]
    growth = (grown(rule, x, 0.01, 500) @ axes[0] / start).item()
    assert abs(growth / (1 + 0.01 * 3.0) ** 500 - 1) < 1e-10
    rule, x, axes = one_neuron()
    assert (grown(rule, x, 0.01, 500) @ axes[0] / start).item() < 10


def restlessness(eta, momentum=0.0, steps=200):
    """How far from length 1 a neuron still is that starts a thousandth off, taught by `step` with torch's SGD."""
    rule, x, axes = one_neuron()
    with torch.no_grad():
        rule.net.weights[0].copy_(1.001 * axes[:1])
    rate = eta / rule.rate / VARIANCES[0].item()
    optimizer, y = torch.optim.SGD([rule.net.weights[0]], lr=rate, momentum=momentum), torch.zeros(len(x)).long()
    lengths = []
    for _ in range(steps):
        rule.step(x, y, optimizer)
        lengths.append((rule.net.weights[0].norm() - 1).abs().item())
    return max(lengths[-20:])


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_it_comes_to_rest_below_a_rate_of_one_over_the_largest_variance_and_with_momentum_a_little_later(momentum):
    edge = 1 + momentum
    assert restlessness(0.95 * edge, momentum) < 1e-4
    assert not restlessness(1.05 * edge, momentum) < 0.02  # it may also have grown beyond all numbers


def test_on_the_sphere_oja_climbs_the_share_of_variance_and_elsewhere_no_hill():
    rule, x, _ = one_neuron(length=1.0)
    w = rule.net.weights[0].detach().clone().requires_grad_()
    y = x @ w.T
    (slope,) = torch.autograd.grad(y.square().mean() / w.square().sum(), w)
    change = rule.change(0, x, y).detach()
    assert (change - slope / 2).abs().max() < 1e-14

    for units in (1, 3):
        assert asymmetry(Sanger(linear_net([6, units, 2], scale=1.5))) > 0.1


def apart_from_oja_on_what_is_left(rule_class):
    """Largest difference between `change` and, neuron by neuron, Oja's rule on x − Σ_{j<i} y_j w_j."""
    rule, (x, _) = rule_class(linear_net([6, 4, 2])), exact_inputs()
    w = rule.net.weights[0].detach()
    y, rows, left = x @ w.T, [], x
    for i in range(len(w)):
        rows.append((y[:, i : i + 1] * (left - y[:, i : i + 1] * w[i])).mean(0))
        left = left - y[:, i : i + 1] * w[i]
    return (rule.change(0, x, y) - torch.stack(rows)).abs().max().item()


WRONG_TRIANGLES = ["torch.triu(y.T @ y)", "torch.tril(y.T @ y).T", "y.T @ y", "torch.diag(torch.diag(y.T @ y))"]


def test_sanger_is_oja_on_what_the_neurons_before_leave_over():
    assert apart_from_oja_on_what_is_left(Sanger) < 1e-13
    for triangle in WRONG_TRIANGLES:
        assert apart_from_oja_on_what_is_left(mutant(Sanger, OJA, f"({triangle})")) > 1e-2


def settled(rule_class, units=3):
    rule, (x, axes) = rule_class(linear_net([6, units, 2])), exact_inputs()
    w = grown(rule, x)
    return w, cosines(w, axes)[:, :units]


def test_the_neurons_become_the_widest_directions_in_order_each_of_length_one():
    w, found = settled(Sanger)
    eye = torch.eye(3, dtype=torch.float64)
    assert (found - eye).abs().max() < 1e-6 and (w @ w.T - eye).abs().max() < 1e-12


@pytest.mark.parametrize("triangle", WRONG_TRIANGLES[:2])
def test_a_triangle_upside_down_turns_the_order_round_and_spans_the_same_space(triangle):
    w, found = settled(mutant(Sanger, OJA, f"({triangle})"))
    right, _ = settled(Sanger)
    assert (found.flip(0) - torch.eye(3, dtype=torch.float64)).abs().max() < 1e-6
    assert (w.T @ w - right.T @ right).abs().max() < 1e-6


def test_a_whole_square_spans_the_space_in_no_order_and_a_diagonal_makes_all_neurons_one():
    w, found = settled(mutant(Sanger, OJA, f"({WRONG_TRIANGLES[2]})"))
    right, _ = settled(Sanger)
    assert (w.T @ w - right.T @ right).abs().max() < 1e-12 and found.diagonal().min() < 0.95
    assert (settled(mutant(Sanger, OJA, f"({WRONG_TRIANGLES[3]})"))[1][:, 0] - 1).abs().max() < 1e-12


def error_of_reference(rule_class, seed=3):
    """`reference_gradient` against autograd of Σ_i ½|x − Σ_{j<i} y_j w_j − y_i w_i|², what comes before held."""
    net = linear_net([6, 4, 2], seed=seed)
    rule, (x, _), labels = rule_class(net, rate=0.3), exact_inputs(), torch.arange(40) % 2
    w = net.weights[0].detach().clone().requires_grad_()
    y, left, loss = x @ w.T, x, 0
    for i in range(len(w)):
        error = left - y[:, i : i + 1] * w[i]
        loss, left = loss + 0.5 * error.square().sum(1).mean(), error.detach()
    hidden = 0.3 * torch.autograd.grad(loss, w)[0]
    reference = rule.reference_gradient(x, labels)
    out = rule.features(x).detach() @ net.weights[1].T + net.biases[1]
    readout = torch.autograd.grad(net.loss(out, labels), [net.weights[1], net.biases[1]])
    return largest_difference(reference, [hidden, *readout])


def test_the_reference_is_the_gradient_of_what_each_neuron_leaves_over():
    assert error_of_reference(Sanger) < 1e-13
    assert error_of_reference(mutant(Sanger, "torch.tril(w @ w.T).T", "torch.tril(w @ w.T)")) > 1e-3
    assert error_of_reference(mutant(Sanger, "y - y @", "y @")) > 1e-3
    assert error_of_reference(wrong("-self.rate", "-1.0")) > 1e-3


def test_what_the_rule_leaves_out_of_it_vanishes_where_the_weights_are_orthonormal():
    net, (x, _) = linear_net([6, 4, 2]), exact_inputs()
    rule, labels = Sanger(net), torch.arange(40) % 2
    off = [a - b for a, b in zip(grads(rule, x, labels)[:1], rule.reference_gradient(x, labels)[:1], strict=True)]
    w = net.weights[0].detach()
    exact = rule.rate * (torch.eye(4) - torch.tril(w @ w.T)) @ w @ (x.T @ x / len(x))  # (8)
    assert (off[0] - exact).abs().max() < 1e-14 and exact.norm() > 0.05
    with torch.no_grad():
        net.weights[0].copy_(torch.linalg.qr(w.T)[0].T)
    assert largest_difference(grads(rule, x, labels)[:1], rule.reference_gradient(x, labels)[:1]) < 1e-14


def moved(rule_class, steps=3):
    """How far means and variances are from the running means that the text tells, after some steps of deep layers."""
    net = small_net((7, 6, 5, 3), "tanh")
    rule = rule_class(net)
    with torch.no_grad():
        for value in (*rule.means, *rule.variances):
            value.add_(0.3)
    optimizer, off = torch.optim.SGD(rule.parameters(), lr=0.1), 0.0
    for n in range(1, steps + 1):
        means, variances = ([v.clone() for v in values] for values in (rule.means, rule.variances))
        x, y = batch(net, n=9, seed=n)
        rule.step(x, y, optimizer)
        h = x
        for l in range(2):
            said = (h - means[l]) @ net.weights[l].T  # weights after the step, means before
            new = means[l] + (h.mean(0) - means[l]) / n, variances[l] + (said.square().mean(0) - variances[l]) / n
            off = max(off, largest_difference(new, (rule.means[l], rule.variances[l])))
            h = torch.tanh(said / (variances[l] + 1e-3 * variances[l].mean()).sqrt())
    return off


def test_step_moves_running_means_and_backward_none():
    assert moved(Sanger) < 1e-12
    for old, new in (("came_in.mean(0)", "came_in.sum(0)"), (".square()", ".abs()"), ("1e-3 *", "1e-1 *")):
        assert moved(wrong(old, new)) > 1e-3
    assert moved(mutant(Sanger, "self.move_statistics(x)", "pass")) > 1e-3


def test_after_many_batches_the_memory_is_a_hundred():
    rule, (x, _) = Sanger(linear_net([6, 3, 2])), exact_inputs()
    rule.seen.fill_(1000)
    rule.move_statistics(x + 1)
    assert torch.allclose(rule.means[0], torch.full((6,), 0.01, dtype=torch.float64), atol=1e-12)


def error_of_readout(rule_class, activation="tanh", loss="cross_entropy"):
    """The readout's `.grad`, loss and scores against autograd on the features, which `predict` reads as well."""
    net = small_net((7, 6, 5, 3), activation, loss)
    rule, (x, y) = rule_class(net), batch(net, n=9)
    rule.move_statistics(x)
    z = rule.features(x).detach()
    out = z @ net.weights[-1].T + net.biases[-1]
    found = grads(rule, x, y)
    assert found[3] is None and found[4] is None  # hidden biases
    truth = torch.autograd.grad(net.loss(out, y), [net.weights[-1], net.biases[-1]])
    told = [rule.predict(x).detach(), rule.backward(x, y)]
    return largest_difference([found[2], found[5], *told], [*truth, out.detach(), net.loss(out, y).detach()])


@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
@pytest.mark.parametrize("activation", ["linear", "relu", "tanh"])
def test_the_readout_learns_by_the_delta_rule_on_what_predict_reads(activation, loss):
    assert error_of_readout(Sanger, activation, loss) < 1e-13
    assert error_of_readout(wrong("error.T @ z", "error.T @ layers[-1][2]"), activation, loss) > 1e-3


def test_without_the_mean_taken_off_the_first_neuron_becomes_the_mean():
    x, axes = exact_inputs()
    offset = 5 * torch.linspace(-1, 1, 6, dtype=torch.float64) ** 2
    right, blind = Sanger(linear_net([6, 2, 2])), Sanger(linear_net([6, 2, 2]))
    right.means[0] = offset
    assert (grown(right, x + offset, 0.005) @ axes[0])[0].abs() > 0.999
    w = grown(blind, x + offset, 0.005)[:1]
    assert cosines(w, offset[None] / offset.norm()).item() > 0.99


def test_no_label_reaches_the_hidden_layer_and_no_gradient_of_the_loss_is_followed():
    net = small_net((30, 20, 10, 3), "linear")
    rule, (x, y) = Sanger(net), batch(net, n=200)
    one, other = grads(rule, x, y), grads(rule, x, (y + 1) % 3)
    assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1]) and not torch.equal(one[2], other[2])
    truth = true_gradient(net, x, y)
    assert abs(torch.cosine_similarity(flat(one[:1]), flat(truth[:1]), 0)) < 4 / 600**0.5
