"""PEPITA's masks and its F: what is drawn, what a wrong draw teaches, and what comes of it in training."""

import math

import pytest
import torch
from helpers import batch, grads, mutant, small_net

import course_utils as cu
from course_utils.metrics import alignment_angle, cosine
from course_utils.rules import Pepita

EXACT = 1e-12
OTHER_MASK = mutant(Pepita, "first, gains)  # (2)", "first, self.gains(x))  # (2)")
SIGN = mutant(Pepita, "feedback = self.feedback_scale", "feedback = -self.feedback_scale")
SWAPPED = mutant(Pepita, "h[l + 1] - second[l + 1]", "second[l + 1] - h[l + 1]")


def left_without_feedback(rule_class):
    net = small_net((7, 5, 3))
    rule, (x, y) = rule_class(net, feedback_scale=0.0, dropout=0.5).double(), batch(net)
    return grads(rule, x, y)[0].abs().max().item()


def test_with_another_mask_the_difference_is_dropout_s_and_not_the_error_s():
    assert left_without_feedback(Pepita) == 0
    assert left_without_feedback(OTHER_MASK) > 0.1


def test_a_silent_unit_learns_nothing():
    net = small_net((7, 50, 3))
    rule, (x, y) = Pepita(net, feedback_scale=0.5, dropout=0.5).double(), batch(net, n=1)
    state = rule.generator.get_state()
    (gain,) = rule.gains(x)
    rule.generator.set_state(state)
    change = grads(rule, x, y)[0].abs().sum(1)
    assert torch.equal(change == 0, gain[0] == 0) and 10 < (change == 0).sum() < 40


def test_gains_are_right_in_the_mean_and_leave_predict_alone():
    rule = Pepita(small_net((7, 400, 3)), dropout=0.2)
    x, _ = batch(rule.net, n=500)
    (gain,) = rule.gains(x)
    assert gain.dtype == torch.float64 and set(gain.unique().tolist()) == {0.0, 1.25}
    spread = math.sqrt(0.2 / 0.8 / gain.numel())  # of the mean
    assert abs(gain.mean().item() - 1) < 4 * spread
    assert torch.equal(rule.predict(x), rule.net(x))


def test_without_dropout_it_draws_nothing():
    net = small_net()
    rule, (x, y) = Pepita(net, dropout=0.0).double(), batch(net)
    before = rule.generator.get_state()
    loss = rule.backward(x, y)
    assert torch.equal(rule.generator.get_state(), before)
    assert loss.item() == pytest.approx(net.loss(net(x), y).item(), abs=EXACT)


def test_the_feedback_is_the_published_one():
    rule = Pepita(cu.MLP([784, 30, 10]), seed=3)
    f = rule.feedback_scale * rule.feedback
    limit = 0.05 * math.sqrt(6 / 784)
    assert f.shape == (784, 10) and f.abs().max() <= limit and f.abs().max() > 0.99 * limit
    assert abs(f.mean().item()) < 4 * limit / math.sqrt(3 * f.numel())
    assert f.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.03)
    assert "feedback" not in dict(rule.named_parameters())
    other = Pepita(cu.MLP([784, 30, 10]), seed=4).feedback
    assert abs(cosine(rule.feedback.flatten(), other.flatten())) < 4 / math.sqrt(f.numel())


def aligned(rule_class, seed=0):
    """The angle of W₂ to −(W₁F)ᵀ before and after training, and the validation accuracy."""
    rule = rule_class(cu.MLP([784, 32, 10], seed=seed), seed=seed, feedback_scale=0.2, dropout=0.0)

    def angle():
        w1, w2 = (w.detach() for w in rule.net.weights)
        return alignment_angle(w2, -(w1 @ rule.feedback).T)

    before = angle()
    frame = cu.train(rule, cu.load_dataset("digits"), epochs=8, lr=0.2, batch_size=32, progress=False).frame
    return before, angle(), frame.val_accuracy.iloc[-1]


def test_w2_comes_to_align_with_minus_w1_f():
    low, high = cu.metrics.chance_band(320)
    before, after, accuracy = aligned(Pepita)
    assert low - 3 < before < high + 3 and after < before - 20 and accuracy > 0.9
    for wrong in (SIGN, SWAPPED):
        assert aligned(wrong)[1] > after + 20, wrong


def test_the_earlier_code_s_feedback_is_not_finite_by_the_tenth_batch():
    """A default linear layer as F: uniform ± 1/√10, bias included, no scale; squared error, no softmax."""
    data = cu.load_dataset("digits")

    def batches_survived(rule):
        optimizer = torch.optim.SGD(rule.parameters(), lr=0.01)
        for n in range(40):
            x, y = data.x_train[32 * n % 1280 :][:32], data.y_train[32 * n % 1280 :][:32]
            try:
                loss = rule.step(x, y, optimizer)
            except ValueError:
                return n
            if not torch.isfinite(loss):
                return n
        return 40

    def net():
        return cu.MLP([784, 120, 10], loss="squared_error")

    limit_ratio = math.sqrt(1 / 10) / math.sqrt(6 / 784)  # 3.61 times the unit scale, 72 times the published one
    assert limit_ratio / 0.05 == pytest.approx(72, abs=1)
    assert batches_survived(Pepita(net(), feedback_scale=limit_ratio, dropout=0.0)) <= 20
    assert batches_survived(Pepita(net(), dropout=0.0)) == 40
