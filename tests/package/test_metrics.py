"""Gradients and angles against closed forms, and that measuring leaves no trace."""

import math

import pytest
import torch
from helpers import AutogradRule, batch, by_name, clusters, grads, largest_difference, small_net, snapshot

import course_utils as cu
from course_utils.controls import Around
from course_utils.metrics import (
    alignment_angle,
    chance_band,
    cosine,
    gradient_statistics,
    layer_angles,
    no_trace,
    true_gradient,
)
from course_utils.network import MLP
from course_utils.rules import Backprop, FeedbackAlignment


def test_true_gradient_is_autograds_and_touches_nothing():
    net = small_net()
    rule, (x, y) = Backprop(net), batch(net)
    before = snapshot(rule)
    net.activity_noise = 0.5  # the true gradient is the one without noise
    ours = true_gradient(net, x, y)
    assert net.activity_noise == 0.5
    net.activity_noise = 0.0
    with torch.no_grad():
        assert largest_difference(ours, true_gradient(net, x, y)) == 0
    assert snapshot(rule) == before
    net.loss(net(x), y).backward()
    assert largest_difference(ours, [p.grad for p in net.parameters()]) == 0


def test_angles_of_known_pairs():
    u, v = torch.tensor([1.0, 2.0, -3.0]), torch.tensor([3.0, 0.0, 1.0])
    assert alignment_angle(u, u) == pytest.approx(0, abs=1e-5)
    assert alignment_angle(u, 1e-6 * u) == pytest.approx(0, abs=1e-5)
    assert alignment_angle(u, -7 * u) == pytest.approx(180, abs=1e-5)
    assert alignment_angle(u, v) == pytest.approx(90, abs=1e-5)
    assert alignment_angle(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0])) == pytest.approx(45, abs=1e-5)
    assert alignment_angle([u, v], [u, -v]) == pytest.approx(math.degrees(math.acos(4 / 24)), abs=1e-5)
    big = torch.randn(500_000)
    assert alignment_angle(big, big) == pytest.approx(0, abs=1e-5)
    tilted = torch.tensor([1.0, 1e-9], dtype=torch.float64)
    assert alignment_angle(tilted, torch.tensor([1.0, 0.0])) == pytest.approx(math.degrees(1e-9), rel=1e-6)


def test_zero_update_has_no_angle():
    assert math.isnan(alignment_angle(torch.zeros(3), torch.ones(3)))
    assert math.isnan(alignment_angle(torch.ones(3), torch.zeros(3)))
    assert "NaN" in alignment_angle.__doc__


@pytest.mark.parametrize(
    "update, reference",
    [
        (torch.ones(3), torch.ones(4)),
        (torch.ones(2, 3), torch.ones(3, 2)),  # as many numbers, but transposed
        ([torch.ones(3), torch.ones(2)], [torch.ones(2), torch.ones(3)]),
        ([torch.ones(3)], [torch.ones(3), torch.ones(1)]),
    ],
)
def test_angle_refuses_different_shapes(update, reference):
    with pytest.raises(ValueError, match="update has .* reference"):
        alignment_angle(update, reference)


def test_chance_band_holds_95_percent_of_random_pairs():
    d, pairs = 400, 4_000
    generator = torch.Generator().manual_seed(0)
    u, v = (torch.randn(pairs, d, generator=generator, dtype=torch.float64) for _ in range(2))
    angle = torch.rad2deg(torch.arccos((u * v).sum(1) / (u.norm(dim=1) * v.norm(dim=1))))
    low, high = chance_band(d)
    assert (low, high) == pytest.approx((90 - 1.96 * 180 / math.pi / 20, 90 + 1.96 * 180 / math.pi / 20))
    inside = ((low < angle) & (angle < high)).double().mean().item()
    assert inside == pytest.approx(0.95, abs=4 * (0.95 * 0.05 / pairs) ** 0.5)


def test_layer_angles_join_weights_and_biases_of_a_layer():
    net = small_net()
    x, y = batch(net)
    ours, true = grads(FeedbackAlignment(net), x, y), true_gradient(net, x, y)
    expected = [
        alignment_angle(u, t)
        for (_, u), (_, t) in zip(
            list(by_name(net, ours).items())[:-1], list(by_name(net, true).items())[:-1], strict=True
        )
    ]
    assert layer_angles(net, ours, true) == pytest.approx(expected)
    assert expected[-1] < 1e-5 < expected[0]


def test_no_trace_puts_back_what_is_changed_inside():
    rule = FeedbackAlignment(small_net())
    before = snapshot(rule)
    with no_trace(rule):
        rule.backward(*batch(rule.net))
        torch.rand(1, generator=rule.generator)
        rule.feedback_weights[1] = 0 * rule.feedback_weights[1]
    assert snapshot(rule) == before


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_probed_training_is_bit_equal_to_unprobed_training(noise):
    def trained(probe_every):
        rule = FeedbackAlignment(small_net((12, 9, 8, 4), dtype=torch.float32))
        history = cu.train(
            rule,
            clusters(),
            epochs=2,
            lr=0.1,
            batch_size=16,
            probe_every=probe_every,
            input_noise=noise,
            activity_noise=noise,
            progress=False,
        )
        return rule.state_dict(), history

    (plain, without), (probed, with_probes) = trained(0), trained(16)
    assert all(torch.equal(plain[name], probed[name]) for name in plain)
    shared = ["epoch", "samples", "train_loss", "train_accuracy", "val_loss", "val_accuracy"]
    assert without.frame[shared].equals(with_probes.frame[shared])
    assert {"angle_1", "angle_2", "angle_3", "probe_seconds"} <= set(with_probes.frame)
    assert not any(name.startswith(("angle", "probe")) for name in without.frame)


def test_cosine_is_exact_enough_for_float32():
    u = torch.randn(300_000)
    assert cosine(u, u) == pytest.approx(1, abs=1e-12) and isinstance(cosine(u, u), float)


class Opposed(AutogradRule):
    """Follows −2 g, and says so."""

    def change(self, gradient):
        return -2 * gradient

    def reference_gradient(self, x, y):
        return [self.change(g) for g in super().reference_gradient(x, y)]


class Silent(Opposed):
    """The same, without saying so."""

    def reference_gradient(self, x, y):
        return AutogradRule.reference_gradient(self, x, y)


def test_a_rule_may_name_the_gradient_that_it_follows():
    x, y = batch(small_net())
    for rule_class, projection, angle in ((Opposed, 1, 0), (Silent, -2, 180)):
        for rule in (rule_class(small_net()), Around(rule_class(small_net()))):
            row = gradient_statistics(rule, x, y, draws=20).iloc[-1]
            assert abs(row.projection - projection) < 1e-9
            history = cu.train(rule_class(MLP([12, 5, 4])), clusters(), epochs=1, probe_every=64, progress=False)
            assert (abs(history.frame[["angle_1", "angle_2"]] - angle) < 0.1).all(axis=None)
