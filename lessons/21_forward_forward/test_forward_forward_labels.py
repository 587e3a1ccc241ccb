"""Forward-Forward's labels: which ones it is shown, how it answers with them, and that it learns from them."""

import pytest
import torch
import torch.nn.functional as F
from helpers import batch, clusters, grads, largest_difference, small_net
from helpers.labelled_passes import SETTINGS, make, unit, written

import course_utils as cu
from course_utils.rules import ForwardForward, forward_forward
from course_utils.rules.forward_forward import normalised, wrong_labels

EXACT = 1e-12


def test_wrong_labels_are_never_right_and_come_as_often_as_they_are_believed():
    generator, draws = torch.Generator().manual_seed(0), 20_000
    true = F.one_hot(torch.full((draws,), 2), 5).double()
    for belief in ([1.0, 1.0, 1.0, 1.0, 1.0], [0.05, 0.2, 0.5, 0.15, 0.1]):
        belief = torch.tensor(belief).double()
        share = wrong_labels(true, belief.expand(draws, 5), generator).mean(0)
        p = belief.clone()
        p[2] = 0
        p /= p.sum()
        assert share[2] == 0 and abs(share.sum() - 1) < EXACT
        assert ((share - p).abs() <= 4 * (p * (1 - p) / draws).sqrt()).all()
    permuted = true[torch.randperm(draws, generator=generator)]  # a permutation of labels: some of them are right
    assert (permuted.argmax(1) == 2).any()


def test_hard_negatives_come_from_the_readout():
    rule = make(negatives="hard", depth=2)
    with torch.no_grad():
        rule.net.weights[-1].zero_()
        rule.net.biases[-1].copy_(torch.tensor([0.0, 50.0, 0.0]))  # it believes in 1, always
    x, y = batch(rule.net, n=40)
    seen = []
    original = forward_forward.wrong_labels
    forward_forward.wrong_labels = lambda *a: seen.append(original(*a)) or seen[-1]
    try:
        rule.backward(x, y)
    finally:
        forward_forward.wrong_labels = original
    assert (seen[0].argmax(1)[y != 1] == 1).all() and (seen[0].argmax(1)[y == 1] != 1).all()


@pytest.mark.parametrize("polarity", [1, -1])
def test_prediction_is_the_label_with_the_best_goodness(polarity):
    rule = make(depth=4, polarity=polarity)
    x, _ = batch(rule.net, n=9)
    expected = torch.zeros(9, 3, dtype=torch.float64)
    for c in range(3):
        h = written(rule, x, F.one_hot(torch.full((9,), c), 3).double())
        for w, b in zip(rule.net.weights[:-1], rule.net.biases[:-1], strict=True):
            h = torch.tanh(h @ w.T + b)
            expected[:, c] += polarity * h.square().mean(1)
            h = normalised(h)
    assert largest_difference([rule.predict(x)], [expected]) < EXACT
    assert rule.goodness(x).shape == (3, 9, 3)
    assert torch.equal(polarity * rule.goodness(x).sum(0), rule.predict(x, by="goodness"))
    neutral = written(rule, x, torch.zeros(9, 3, dtype=torch.float64))
    for w, b in zip(rule.net.weights[:-1], rule.net.biases[:-1], strict=True):
        neutral = normalised(torch.tanh(neutral @ w.T + b))
    scores = unit(neutral) @ rule.net.weights[-1].T + rule.net.biases[-1]
    assert largest_difference([rule.predict(x, by="readout")], [scores]) < EXACT
    assert not rule.predict(x).requires_grad


def test_what_stands_in_the_label_s_pixels_does_not_matter():
    rule = make()
    x, y = batch(rule.net)
    other = x.clone()
    other[:, :3] += 5
    assert largest_difference(grads(make(), x, y), grads(make(), other, y)) == 0
    assert torch.equal(rule.predict(x), rule.predict(other))


def test_without_a_hidden_layer_the_readout_is_all():
    rule = make(depth=1)
    x, _ = batch(rule.net)
    assert torch.equal(rule.predict(x), rule.predict(x, by="readout"))


@pytest.mark.parametrize("settings", SETTINGS)
def test_it_learns(settings):
    data = clusters(blank=4)
    rule = ForwardForward(cu.MLP([12, 30, 30, 4]), **SETTINGS[settings])
    untrained = cu.evaluate(rule, data.x_test, data.y_test)
    history = cu.train(rule, data, epochs=20, lr=0.01, optimizer="adam", batch_size=20, progress=False)
    assert cu.evaluate(rule, data.x_test, data.y_test) > max(0.9, untrained + 0.2)
    assert history.frame.val_loss.isna().all()
    scores = rule.predict(data.x_test, by="readout")
    assert (scores.argmax(1) == data.y_test).double().mean() > 0.9


def test_all_passes_of_a_step_meet_the_same_activity_noise():
    def noisy(std):
        rule = make()
        rule.net.activity_noise = std
        return grads(rule, *batch(rule.net))

    assert largest_difference(noisy(0.0), noisy(0.3)) > 1e-3
    assert largest_difference(noisy(0.3), noisy(0.3)) == 0


@pytest.mark.parametrize("sizes", [(3, 5, 3), (2, 5, 3), (7, 5, 1)])
def test_networks_without_room_for_label_and_image_are_refused(sizes):
    with pytest.raises(ValueError, match="sizes is .*more inputs than label pixels"):
        ForwardForward(small_net(sizes))


def test_other_ways_to_predict_are_refused_in_words():
    rule = make()
    with pytest.raises(ValueError, match="by is 'energy'.*readout"):
        rule.predict(batch(rule.net)[0], by="energy")
