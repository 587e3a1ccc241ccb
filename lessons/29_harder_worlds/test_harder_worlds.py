"""Harder worlds: what is done to images, weights and feedback is exact, or noise of its own."""

import math
from dataclasses import replace

import pytest
import torch
from helpers import batch, clusters, mutant, small_net

import course_utils as cu
from course_utils.metrics import gradient_statistics
from course_utils.rules import FeedbackAlignment
from course_utils.studies.harder_worlds import (
    NoisyFeedback,
    has_feedback,
    noisy_images,
    of_classes,
    per_class,
    permuted,
    rotated,
    shake_weights,
)
from course_utils.training import make_optimizer

DIGITS = cu.load_dataset("digits", limit=400)
PARTS = ("train", "val", "test")


def both(data, part):
    return getattr(data, f"x_{part}"), getattr(data, f"y_{part}")


# ---------------------------------------------------------------- transforms


def test_a_class_split_holds_all_images_of_its_classes_and_no_others():
    split = of_classes(DIGITS, [1, 7])
    for part in PARTS:
        (x, y), (x_all, y_all) = both(split, part), both(DIGITS, part)
        wanted = (y_all == 1) | (y_all == 7)
        assert set(y.tolist()) == {1, 7} and torch.equal(y, y_all[wanted]) and torch.equal(x, x_all[wanted])
    for bad in ([], [10], [3, -1]):
        with pytest.raises(ValueError, match="classes is .*choose"):
            of_classes(DIGITS, bad)


def test_a_permutation_is_a_bijection_and_the_same_for_all_images():
    marked = replace(DIGITS, **{f"x_{part}": torch.arange(784.0).repeat(3, 1) for part in PARTS})
    moved = permuted(marked, 4)
    order = moved.x_train[0]
    assert torch.equal(order.sort().values, torch.arange(784.0)) and not torch.equal(order, torch.arange(784.0))
    assert all(torch.equal(row, order) for part in PARTS for row in both(moved, part)[0])
    assert torch.equal(permuted(marked, 4).x_val, moved.x_val)
    assert not torch.equal(permuted(marked, 5).x_val, moved.x_val)
    assert torch.equal(moved.y_train, marked.y_train)
    with pytest.raises(ValueError, match="seed"):
        permuted(DIGITS, -1)


@pytest.mark.parametrize("quarter", [0, 1, 2, 3, 4, -1])
def test_quarter_turns_are_those_of_rot90(quarter):
    turned = rotated(DIGITS, 90 * quarter)
    for part in PARTS:
        expected = torch.rot90(both(DIGITS, part)[0].view(-1, 28, 28), quarter, (1, 2)).flatten(1)
        # Where to look is worked out in float32, to a few times 28 · 2⁻²³ of a pixel; two pixels differ by 1 at most.
        assert torch.allclose(both(turned, part)[0], expected, rtol=0, atol=2e-5)


def test_a_small_turn_keeps_the_middle_and_turns_back():
    dot = torch.zeros(1, 28, 28)
    dot[0, 4:8, 12:16] = 1.0  # above the middle
    marked = replace(DIGITS, x_train=dot.flatten(1))
    turned = rotated(marked, 45).x_train.view(28, 28)
    rows, columns = (turned.sum(1 - d) @ torch.arange(28.0) / turned.sum() for d in (0, 1))
    assert abs(rows - (13.5 - 8 / math.sqrt(2))) < 0.1 and abs(columns - (13.5 - 8 / math.sqrt(2))) < 0.1  # to the left
    assert rotated(DIGITS, 33).x_test.min() >= 0 and rotated(DIGITS, 33).x_test.max() <= 1
    for bad in ("90", math.nan, None):
        with pytest.raises(ValueError, match="degrees is"):
            rotated(DIGITS, bad)
    with pytest.raises(ValueError, match="12 pixels"):
        rotated(clusters(), 10)


def test_few_labels_are_balanced_drawn_by_the_seed_and_leave_the_rest():
    few = per_class(DIGITS, 7, seed=1)
    assert few.y_train.bincount().tolist() == [7] * 10
    assert torch.equal(few.x_val, DIGITS.x_val) and torch.equal(few.x_test, DIGITS.x_test)
    index = [(DIGITS.x_train == x).all(1).nonzero().item() for x in few.x_train]
    assert len(set(index)) == 70 and torch.equal(DIGITS.y_train[index], few.y_train)
    assert torch.equal(per_class(DIGITS, 7, seed=1).x_train, few.x_train)
    assert not torch.equal(per_class(DIGITS, 7, seed=2).x_train, few.x_train)
    for bad in (0, 400, 2.5, None):
        with pytest.raises(ValueError, match="n is .*from 1 to"):
            per_class(DIGITS, bad)


# ---------------------------------------------------------------- noise


def test_noise_has_the_size_it_says_and_none_changes_nothing():
    assert torch.equal(noisy_images(DIGITS, 0.0).x_test, DIGITS.x_test)
    added = noisy_images(DIGITS, 0.3, seed=2).x_test - DIGITS.x_test
    assert (
        abs(added.std() / 0.3 - 1) < 4 / math.sqrt(2 * added.numel())
        and abs(added.mean()) < 4 * 0.3 / added.numel() ** 0.5
    )
    net = cu.MLP([300, 200, 10], seed=2)
    before = [w.detach().clone() for w in net.weights]
    shake_weights(net, 0.0, seed=2)
    assert all(torch.equal(w, old) for w, old in zip(net.weights, before, strict=True))
    shake_weights(net, 0.5, seed=2)
    for w, old in zip(net.weights, before, strict=True):
        added = (w - old).flatten()
        assert abs(added.std() / (0.5 * old.std()) - 1) < 4 / math.sqrt(2 * len(added))
        assert abs(torch.corrcoef(torch.stack([added, old.flatten()]))[0, 1]) < 4 / math.sqrt(
            len(added)
        )  # its own numbers
    assert torch.equal(net.biases[0], torch.zeros(200))


def correlation(a, b):
    return torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1].abs().item()


def in_common_with_weights(noisy):
    """Correlation of the noise on images with the numbers that a network of the same seed begins with."""
    added = noisy(DIGITS, 0.3, seed=2).x_train - DIGITS.x_train
    return correlation(added, torch.randn(added.shape, generator=torch.Generator().manual_seed(2)))


def test_noise_on_images_is_not_that_of_the_first_weights():
    assert in_common_with_weights(noisy_images) < 4 / DIGITS.x_train.numel() ** 0.5
    assert in_common_with_weights(mutant(noisy_images, '"image noise"', '"weights"')) > 0.99


def in_common_between_layers(shake):
    net = cu.MLP([40, 40, 40, 40], seed=2)
    before = [w.detach().clone() for w in net.weights]
    shake(net, 0.5, seed=2)
    first, *others = [w.detach() - old for w, old in zip(net.weights, before, strict=True)]
    return max(correlation(first, other) for other in others)


def test_every_layer_is_shaken_by_numbers_of_its_own():
    assert in_common_between_layers(shake_weights) < 4 / 40
    alike = mutant(shake_weights, "        w +=", "        generator.manual_seed(seed)\n        w +=")
    assert in_common_between_layers(alike) > 0.99


WITH_FEEDBACK = [name for name, c in cu.rules.ALL.items() if has_feedback(c(cu.MLP([12, 6, 5, 4])))]


def taught(name, std, steps=5):
    rule = cu.rules.ALL[name](cu.MLP([12, 6, 5, 4], seed=1), seed=1)
    learner = rule if std is None else NoisyFeedback(rule, std)
    optimizer, data = make_optimizer(learner, "sgd", 0.05, 0.9), clusters()
    for k in range(steps):
        learner.step(data.x_train[8 * k : 8 * k + 8], data.y_train[8 * k : 8 * k + 8], optimizer)
    return rule


def change(one, two):
    return max((a - b).abs().max().item() for a, b in zip(one.net.weights, two.net.weights, strict=True))


@pytest.mark.parametrize("name", WITH_FEEDBACK)
def test_feedback_noise_none_is_none_little_is_little_and_it_does_not_stay(name):
    plain, none, little, much = (taught(name, std) for std in (None, 0.0, 1e-6, 1.0))
    assert all(torch.equal(plain.state_dict()[k], v) for k, v in none.state_dict().items())
    assert change(plain, much) > 1e-4  # the noise reached the learning
    assert change(plain, much) > 10 * change(plain, little)
    if name not in ("ErrorSignDFA",):  # its message is rounded to ±1, so little noise may turn a sign over
        assert change(plain, little) < 1e-4
    if name in ("FeedbackAlignment", "DirectFeedbackAlignment", "DirectRandomTargetProjection"):  # B is fixed
        kept = [b for b in plain.feedback_weights if b is not None]
        assert all(
            torch.equal(a, b) for a, b in zip(kept, [b for b in much.feedback_weights if b is not None], strict=True)
        )
    assert change(much, taught(name, 1.0)) == 0


def test_feedback_noise_is_refused_by_a_rule_without_feedback():
    with pytest.raises(ValueError, match="Backprop has no feedback_weights"):
        NoisyFeedback(cu.rules.Backprop(cu.MLP([3, 2])), 0.1)
    assert {"FeedbackAlignment", "KolenPollack", "SignSymmetry"} <= set(
        WITH_FEEDBACK
    ) and "Backprop" not in WITH_FEEDBACK


def probed(noisy_class):
    """(variance of layer 1's estimates in a probe, what one `backward` leaves changed in the feedback)."""
    rule = FeedbackAlignment(small_net(), seed=1).double()
    noisy, (x, y), before = noisy_class(rule, 0.5), batch(rule.net), rule.feedback_weights[1].clone()
    variance = gradient_statistics(noisy, x, y, draws=20).variance.iloc[0]
    noisy.backward(x, y)
    return variance, (rule.feedback_weights[1] - before).abs().max().item()


def test_a_probe_meets_the_noise_on_the_feedback_and_leaves_no_trace():
    variance, left = probed(NoisyFeedback)
    assert variance > 1e-3 and left == 0
    backward = "return super().backward(x, y)"
    assert probed(mutant(NoisyFeedback, "return self.under_noise(super().backward, x, y)", backward))[0] < 1e-12
    assert probed(mutant(NoisyFeedback, "b.data.copy_(value)", "pass"))[1] > 1e-3


def test_a_rule_under_noise_keeps_its_card_and_its_knobs():
    inside = cu.rules.SignSymmetry(small_net())
    rule = NoisyFeedback(inside, 0.3)
    assert rule.plausibility == inside.plausibility and rule.live_knobs == inside.live_knobs
    rule.flipped = 0.25
    assert inside.flipped == rule.flipped == 0.25
