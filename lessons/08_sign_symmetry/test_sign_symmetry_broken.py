"""The broken variants of the lesson do what their names say."""

import pytest
import torch
from helpers import batch, grads, largest_difference, small_net

from course_utils.rules import FeedbackAlignment, SignSymmetry
from course_utils.studies.sign_symmetry import Louder, NewFlips, OldSigns, broken_run

SIZES = (7, 6, 6, 5, 3)


def sign_symmetry(**knobs):
    return SignSymmetry(small_net(SIZES), **knobs).double()


def train(rule, steps=6):
    """Where a few large steps lead, and what was sent back before each of them."""
    optimizer, sent = torch.optim.SGD(rule.net.parameters(), lr=2.0), []
    for t in range(steps):
        sent.append(torch.cat([b.flatten() for b in rule.feedback_weights[1:]]))
        rule.step(*batch(rule.net, seed=t), optimizer)
    return [p.detach() for p in rule.net.parameters()], torch.stack(sent)


def test_signs_that_stand_still_are_feedback_alignment():
    """The same network, step by step, whatever share of the signs was wrong; not so for signs of now."""
    for flipped in (0.0, 0.5, 1.0):
        fixed = FeedbackAlignment(small_net(SIZES)).double()
        for l, b in enumerate(sign_symmetry(flipped=flipped).feedback_weights):
            if l > 0:
                fixed.feedback_weights[l] = b
        optimizer = torch.optim.SGD(fixed.net.parameters(), lr=2.0)
        for t in range(6):
            fixed.step(*batch(fixed.net, seed=t), optimizer)
        theirs = [p.detach() for p in fixed.net.parameters()]
        assert largest_difference(train(OldSigns(sign_symmetry(flipped=flipped)))[0], theirs) < 1e-12
        assert largest_difference(train(sign_symmetry(flipped=flipped))[0], theirs) > 1e-3


def test_signs_are_read_every_so_many_steps():
    every_step, every_third = (train(OldSigns(sign_symmetry(), every))[0] for every in (1, 3))
    assert largest_difference(train(sign_symmetry())[0], every_step) == 0
    assert largest_difference(train(sign_symmetry())[0], every_third) > 1e-3
    assert largest_difference(train(OldSigns(sign_symmetry()))[0], every_third) > 1e-3


def test_new_flips_are_new_at_every_step_and_as_many():
    rule = NewFlips(sign_symmetry(flipped=0.5))
    thresholds = []
    for t in range(40):
        rule.step(*batch(rule.net, seed=t), torch.optim.SGD(rule.net.parameters(), lr=0.0))
        thresholds.append(torch.cat([b.flatten() for b in list(rule.thresholds)[1:]]))
    wrong = torch.stack(thresholds) < 0.5
    assert (wrong.diff(dim=0).any(dim=1)).all()
    assert abs(wrong.double().mean().item() - 0.5) < 4 * 0.5 / wrong.numel() ** 0.5


@pytest.mark.parametrize("scale", [0.5, 4.0])
def test_louder_multiplies_the_message_once_a_layer(scale):
    x, y = batch(small_net(SIZES))
    loud, plain = (grads(rule, x, y) for rule in (Louder(sign_symmetry(), scale), sign_symmetry()))
    for l in range(4):
        assert torch.allclose(loud[l], scale ** (3 - l) * plain[l], rtol=1e-12, atol=0)


def test_a_run_reads_its_variant_from_the_name():
    frame = broken_run("OldSigns(every=10, flipped=0.5)", [784, 5, 10], 0.1, 1, dataset="digits", epochs=1)
    assert set(frame.rule) == {"OldSigns(every=10, flipped=0.5)"} and set(frame.seed) == {1}
    other = broken_run("OldSigns(every=10)", [784, 5, 10], 0.1, 1, dataset="digits", epochs=1)
    assert frame.val_accuracy.iloc[-1] != other.val_accuracy.iloc[-1]
    with pytest.raises(KeyError):
        broken_run("Backprop", [784, 5, 10], 0.1, 1, dataset="digits", epochs=1)
