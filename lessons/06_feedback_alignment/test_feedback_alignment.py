"""The science of FeedbackAlignment: exact facts, and rules made wrong on purpose that must miss them."""

import pytest
import torch
from helpers import ACTIVATIONS, LOSSES, batch, grads, largest_difference, mutant, small_net

import course_utils as cu
from course_utils.metrics import alignment_angle, cosine, true_gradient
from course_utils.rules import Backprop, FeedbackAlignment

EXACT = 1e-12
SIZES = {1: (7, 3), 2: (7, 5, 3), 3: (7, 5, 5, 3), 4: (7, 6, 6, 5, 3)}
SQUARE = (5, 5, 5, 5)  # where a transposed matrix still fits


SENT, DRAWN = "self.feedback_weights[l]", "torch.randn(self.net.weights[l].shape, generator=self.generator).to(x)"
MUTANTS = {
    "redrawn": (SENT, f"{DRAWN} / self.net.sizes[l] ** 0.5"),
    "transposed": (SENT, f"{SENT}.T"),
    "sign": ("(delta @", "-(delta @"),
    "no derivative": (" * self.net.derivative(h[l])", ""),
    "sum over the batch": (" / len(x)", ""),
}


def distance_to_backprop(rule_class, sizes=SIZES[3], activation="tanh", loss="cross_entropy", targets="labels", seed=0):
    """Largest difference to autograd, with B := W."""
    net = small_net(sizes, activation, loss, seed)
    rule, (x, y) = rule_class(net).double(), batch(net, targets=targets, seed=seed)
    for l in range(1, net.depth):
        rule.feedback_weights[l] = net.weights[l]
    return largest_difference(grads(rule, x, y), true_gradient(net, x, y))


@pytest.mark.parametrize("targets", ["labels", "values"])
@pytest.mark.parametrize("depth", SIZES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_feedback_alignment_with_b_equal_to_w_is_autograd(activation, loss, depth, targets):
    assert distance_to_backprop(FeedbackAlignment, SIZES[depth], activation, loss, targets) < EXACT


@pytest.mark.parametrize("wrong", MUTANTS.values(), ids=MUTANTS)
def test_mutants_are_not_backprop(wrong):
    assert distance_to_backprop(FeedbackAlignment, SQUARE) < EXACT
    assert distance_to_backprop(mutant(FeedbackAlignment, *wrong), SQUARE) > 1e-3


@pytest.mark.parametrize("depth", SIZES)
@pytest.mark.parametrize("loss", LOSSES)
def test_output_layer_of_feedback_alignment_is_always_exact(loss, depth):
    net = small_net(SIZES[depth], loss=loss)
    x, y = batch(net)
    ours, true = grads(FeedbackAlignment(net, seed=3).double(), x, y), true_gradient(net, x, y)
    last = [depth - 1, 2 * depth - 1]
    assert largest_difference([ours[i] for i in last], [true[i] for i in last]) < EXACT
    if depth > 1:
        assert (ours[0] - true[0]).abs().max() > 1e-3


def linear_problem(seed=0, sizes=(6, 8, 3), n=30):
    """Centred, whitened inputs and a linear map to learn: bias gradients are then exactly zero throughout."""
    generator = torch.Generator().manual_seed(seed)
    columns = torch.cat([torch.ones(n, 1), torch.randn(n, sizes[0], generator=generator)], 1).double()
    x = (torch.linalg.qr(columns)[0][:, 1:] * n**0.5).contiguous()
    y = x @ torch.randn(sizes[0], sizes[2], generator=generator).double() / sizes[0] ** 0.5
    return x, y, cu.MLP(list(sizes), activation="linear", loss="squared_error", seed=seed).double()


def conserved(net, b):
    w1, w2 = net.weights[0].detach(), net.weights[1].detach()
    return w1 @ w1.T - (b.T @ w2 + w2.T @ b)


def drift(rule_class, lr, time=4.0):
    """How far W₁W₁ᵀ − (BᵀW₂ + W₂ᵀB) moves in the same time lr · steps, relative to its size at the start."""
    x, y, net = linear_problem()
    rule = rule_class(net, seed=1).double()
    first = rule.feedback_weights[1].clone()
    start = conserved(net, first)
    optimizer = torch.optim.SGD(rule.parameters(), lr=lr)
    for _ in range(round(time / lr)):
        rule.step(x, y, optimizer)
    return ((conserved(net, first) - start).norm() / start.norm()).item()


def test_conserved_quantity_drifts_in_proportion_to_the_learning_rate():
    drifts = [drift(FeedbackAlignment, lr) for lr in (0.01, 0.005, 0.0025)]
    assert drifts[0] < 0.02
    assert drifts[0] / drifts[1] == pytest.approx(2, rel=0.1)
    assert drifts[1] / drifts[2] == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("wrong", ["redrawn", "sign"])
def test_mutants_conserve_nothing(wrong):
    drifts = [drift(mutant(FeedbackAlignment, *MUTANTS[wrong]), lr) for lr in (0.01, 0.005)]
    assert drifts[1] > 0.05 and drifts[0] / drifts[1] < 1.5


def test_one_step_moves_the_conserved_quantity_by_its_second_order_term_alone():
    x, y, net = linear_problem()
    rule = FeedbackAlignment(net, seed=1).double()
    b, lr = rule.feedback_weights[1], 0.1
    m = (net(x) - y).detach().T @ x / len(x)  # E[e xᵀ]; ΔW₁ = −η Bᵀ m
    start = conserved(net, b)
    rule.step(x, y, torch.optim.SGD(rule.parameters(), lr=lr))
    assert torch.allclose(conserved(net, b) - start, lr**2 * b.T @ m @ m.T @ b, rtol=0, atol=EXACT)


def aligned_cosines(seed, orthogonal, steps=1500, inputs=12, hidden=16, outputs=5):
    """cos(W₂, pinv(Bᵀ)) and cos(W₂, B) after training from zero; B has condition number 10."""
    generator = torch.Generator().manual_seed(seed)

    def frame(rows, columns):
        return torch.linalg.qr(torch.randn(rows, columns, generator=generator).double())[0]

    x, y, net = linear_problem(seed, (inputs, hidden, outputs), n=40)
    if orthogonal:
        y = x @ frame(inputs, outputs)
    rule = FeedbackAlignment(net).double()
    stretch = torch.logspace(-1, 0, outputs, dtype=torch.float64)
    rule.feedback_weights[1] = frame(outputs, outputs) @ stretch.diag() @ frame(hidden, outputs).T
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
    optimizer = torch.optim.SGD(rule.parameters(), lr=0.05)
    for _ in range(steps):
        loss = rule.step(x, y, optimizer)
    assert loss < 1e-6
    b, w2 = rule.feedback_weights[1], net.weights[1].detach()
    return [cosine(w2.flatten(), v.flatten()) for v in (torch.linalg.pinv(b.T), b)]


def test_readout_aligns_with_the_pseudoinverse_of_an_ill_conditioned_feedback():
    # From zero, W₁ = −BᵀA and W₂ = ½AAᵀB. A map with equal singular values then gives A ∝ s^(−2/3) along each
    # singular direction of B, and W₂ ∝ s^(−1/3): nearer to pinv(Bᵀ), s^(−1), than to B, s.
    s = torch.logspace(-1, 0, 5, dtype=torch.float64)
    theory = [cosine(s ** (-1 / 3), 1 / s), cosine(s ** (-1 / 3), s)]
    assert theory == pytest.approx([0.924, 0.629], abs=1e-3)
    assert aligned_cosines(0, orthogonal=True) == pytest.approx(theory, abs=0.005)
    # Any other map scatters around that; the order stays.
    measured = [aligned_cosines(seed, orthogonal=False) for seed in range(5)]
    assert all(to_pseudoinverse > to_feedback for to_pseudoinverse, to_feedback in measured)
    means = [sum(column) / 5 for column in zip(*measured, strict=True)]
    assert means == pytest.approx([0.91, 0.63], abs=0.05)


def test_feedback_alignment_trains_a_zero_network_and_backprop_has_nothing_to_say_to_its_hidden_layer():
    for rule_class in (Backprop, FeedbackAlignment):
        net = cu.MLP([784, 32, 10], activation="tanh")
        with torch.no_grad():
            for w in net.weights:
                w.zero_()
        data, rule = cu.load_dataset("digits"), rule_class(net)
        first = grads(rule, data.x_train[:64], data.y_train[:64])
        if rule_class is Backprop:
            assert all((g == 0).all() for g in (first[0], first[1], first[2]))  # W₁; W₂ (h is 0); b₁
        else:
            assert (first[0] != 0).any() and (first[2] != 0).any()
        cu.train(rule, data, epochs=6, lr=0.1, batch_size=32, progress=False)
        accuracy = cu.evaluate(rule, data.x_test, data.y_test)
        if rule_class is Backprop:
            assert (net.weights[0] == 0).all() and accuracy < 0.25
        else:
            assert accuracy > 0.8


def test_hidden_angle_of_feedback_alignment_falls_below_chance_in_training():
    data = cu.load_dataset("digits")
    x, y = data.x_train[:256], data.y_train[:256]
    angles = []
    for seed in range(5):  # one seed says little: they end between 60° and 83°
        rule = FeedbackAlignment(cu.MLP([784, 64, 10], seed=seed), seed=seed)
        cu.train(rule, data, epochs=3, lr=0.1, batch_size=32, progress=False)
        angles.append(alignment_angle(grads(rule, x, y)[0], true_gradient(rule.net, x, y)[0]))
    assert max(angles) < cu.metrics.chance_band(784 * 64)[0]
    assert sum(angles) / len(angles) < 75


@pytest.mark.parametrize("scale", [0.1, 3.0])
def test_feedback_scale_scales_the_feedback(scale):
    net = small_net()
    one, scaled = FeedbackAlignment(net, seed=1), FeedbackAlignment(net, seed=1, feedback_scale=scale)
    for l in range(1, net.depth):
        assert torch.allclose(scaled.feedback_weights[l], scale * one.feedback_weights[l])
        assert one.feedback_weights[l].shape == net.weights[l].shape
    assert one.feedback_weights[0] is None


def test_feedback_is_independent_of_the_weights_and_as_large():
    net = cu.MLP([300, 200, 150], seed=4)
    b = FeedbackAlignment(net, seed=4).feedback_weights[1]  # the same seed as the network's
    assert abs(cosine(b.flatten(), net.weights[1].detach().flatten())) < 4 / b.numel() ** 0.5
    assert (b.std() / net.weights[1].std()).item() == pytest.approx(1, rel=0.02)
