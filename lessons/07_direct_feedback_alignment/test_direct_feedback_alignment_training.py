"""Direct feedback in training: where the layers go, and the random numbers that lead them there."""

import pytest
import torch
from helpers import batch, clusters, grads, largest_difference, mutant, small_net

import course_utils as cu
from course_utils.metrics import alignment_angle, cosine, true_gradient
from course_utils.rules import Backprop, DirectFeedbackAlignment, DirectRandomTargetProjection, ErrorSignDFA

RULES = [DirectFeedbackAlignment, ErrorSignDFA, DirectRandomTargetProjection]


def from_zero(rule_class, steps=300, depth=3):
    """A linear network with white inputs and an orthonormal target, trained from zero; (rule, x, y)."""
    generator = torch.Generator().manual_seed(0)
    x = torch.linalg.qr(torch.randn(200, 8, generator=generator).double())[0].contiguous() * 200**0.5
    y = x @ torch.linalg.qr(torch.randn(8, 4, generator=generator).double())[0]
    net = cu.MLP([8, *[20] * (depth - 1), 4], activation="linear", loss="squared_error").double()
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
    rule = rule_class(net).double()
    optimizer = torch.optim.SGD(rule.parameters(), lr=0.03)
    for _ in range(steps):
        rule.step(x, y, optimizer)
    return rule, x, y


def outside_the_feedback(rule):
    """The share of each middle W that is not of the form Bᵀ A B′ of the feedback above and below it."""
    shares = []
    for l in range(1, rule.net.depth - 1):
        below, above = rule.feedback_weights[l], rule.feedback_weights[l + 1]
        w = rule.net.weights[l].detach()
        inside = torch.linalg.pinv(above) @ above @ w @ torch.linalg.pinv(below) @ below
        shares.append(((w - inside).norm() / w.norm()).item())
    return max(shares)


@pytest.mark.parametrize("depth", [3, 4])
def test_from_zero_a_middle_layer_becomes_an_adapter_between_two_feedbacks(depth):
    rule, x, y = from_zero(DirectFeedbackAlignment, depth=depth)
    assert outside_the_feedback(rule) < 1e-10
    angles = [
        alignment_angle(ours, true)
        for ours, true in zip(grads(rule, x, y)[: depth - 1], true_gradient(rule.net, x, y)[: depth - 1], strict=True)
    ]
    assert max(angles) < 60


def test_a_feedback_that_moves_leaves_no_adapter():
    drawn = "torch.randn(self.feedback_weights[l + 1].shape, generator=self.generator, dtype=x.dtype)"
    redrawn = mutant(DirectFeedbackAlignment, "self.feedback_weights[l + 1]", f"{drawn} / self.net.sizes[l + 1] ** 0.5")
    assert outside_the_feedback(from_zero(redrawn)[0]) > 0.1


def test_hidden_angles_of_direct_feedback_fall_below_chance_in_training():
    data = cu.load_dataset("digits")
    x, y = data.x_train[:256], data.y_train[:256]
    for seed in range(2):
        net = cu.MLP([784, 48, 32, 10], activation="tanh", seed=seed)
        rule = DirectFeedbackAlignment(net, seed=seed)
        cu.train(rule, data, epochs=3, lr=0.1, batch_size=32, progress=False)
        ours, true = grads(rule, x, y), true_gradient(net, x, y)
        for l in range(2):
            assert alignment_angle(ours[l], true[l]) < cu.metrics.chance_band(net.weights[l].numel())[0]


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_feedback_has_the_size_of_forward_weights_and_knows_nothing_of_them(activation):
    net = cu.MLP([30, 900, 900, 10], activation=activation, seed=4)
    b = DirectFeedbackAlignment(net, seed=4).feedback_weights  # the same seed as the network's
    assert len(b) == net.depth and b[0] is None
    assert not torch.equal(b[2], DirectFeedbackAlignment(net, seed=5).feedback_weights[2])
    for l in (1, 2):
        assert b[l].shape == (10, 900)
        expected = ((2 if activation == "relu" else 1) / 900) ** 0.5
        assert b[l].std().item() == pytest.approx(expected, rel=4 / (2 * b[l].numel()) ** 0.5)  # 4 standard errors
    for one, other in ((b[1], b[2]), (b[2], net.weights[2].detach())):
        assert abs(cosine(one.flatten(), other.flatten())) < 4 / one.numel() ** 0.5


def test_target_projection_stops_at_the_ceiling_of_tanh_and_not_with_relu():
    def activity(activation, steps):
        data, net = clusters(), cu.MLP([12, 20, 4], activation=activation)
        rule = DirectRandomTargetProjection(net)
        optimizer = torch.optim.SGD(rule.parameters(), lr=0.5)
        for _ in range(steps):
            rule.step(data.x_train, data.y_train, optimizer)
        return net.activations(data.x_val)[1].abs().mean().item()

    assert 0.5 < activity("tanh", 200) < activity("tanh", 400) <= 1
    # Once it is settled who is active for whom, each step adds the same: the activity is proportional to the steps.
    assert activity("relu", 400) / activity("relu", 200) == pytest.approx(2, rel=0.2)


@pytest.mark.parametrize("rule_class", RULES)
@pytest.mark.parametrize("scale", [0.0, 0.1, 3.0])
def test_feedback_scale_scales_the_feedback_and_the_hidden_update(scale, rule_class):
    net = small_net()
    one, scaled = rule_class(net, seed=1).double(), rule_class(net, seed=1, feedback_scale=scale).double()
    for l in range(1, net.depth):
        assert torch.allclose(scaled.feedback_weights[l], scale * one.feedback_weights[l], rtol=1e-6)
    x, y = batch(net)
    ours, theirs = ([grads(rule, x, y)[i] for i in (0, 1, 3, 4)] for rule in (scaled, one))  # W₁, W₂, b₁, b₂
    assert largest_difference(ours, [scale * t for t in theirs]) < 1e-6


@pytest.mark.parametrize("rule_class", RULES)
def test_a_network_without_hidden_layers_is_taught_as_by_backprop(rule_class):
    net = small_net((7, 3))
    x, y = batch(net)
    assert largest_difference(grads(rule_class(net).double(), x, y), grads(Backprop(net), x, y)) < 1e-12
