"""Random numbers: every purpose of a run has its own, and so has every seed. What is compared is what was drawn."""

from dataclasses import replace
from itertools import combinations

import pytest
import torch
from helpers import clusters

import course_utils as cu
from course_utils.rules import Backprop, FeedbackAlignment
from course_utils.studies import harder_worlds

N = 1_600  # numbers compared of each; independent ones correlate by 1 / √N = 0.025
SIZES = [40, 40, 40]


class Listener(Backprop):
    """Keeps the images of its first step, and the activity noise that its network met."""

    def backward(self, x, y):
        if not hasattr(self, "images"):
            self.images, self.noise = x.clone(), self.net.draw_activity_noise(x)[0]
        return super().backward(x, y)


def blank(value=0.0, n=N):
    """Images without anything on them, or with their own number on them."""
    data = clusters(n=n, inputs=SIZES[0], classes=SIZES[-1])
    x = torch.arange(n, dtype=torch.float32)[:, None].expand(n, SIZES[0]) * value
    return replace(data, x_train=x.contiguous(), x_val=torch.zeros(2, 40), y_val=data.y_train[:2])


def heard(seed, data, **noise):
    rule = Listener(cu.MLP(SIZES, seed=seed), seed=seed)
    cu.train(rule, data, epochs=1, batch_size=len(data.x_train), lr=0.0, seed=seed, progress=False, **noise)
    return rule


def shaken(seed):
    """(what shake_weights added to each layer)."""
    net = cu.MLP(SIZES, seed=seed)
    before = [w.detach().clone() for w in net.weights]
    harder_worlds.shake_weights(net, 1.0, seed)
    return [w.detach() - old for w, old in zip(net.weights, before, strict=True)]


def feedback_noise(seed):
    rule = FeedbackAlignment(cu.MLP(SIZES, seed=seed), seed=seed)
    noisy = harder_worlds.NoisyFeedback(rule, 1.0)
    signs = torch.ones(40, 40) - 2 * (torch.arange(40) % 2)
    return noisy.noisy(signs) - signs


def draws(seed):
    """{purpose: the first numbers that a run from this seed draws for it}."""
    net = cu.MLP(SIZES, seed=seed)
    order = heard(seed, blank(1.0)).images[:, 0]
    noisy = heard(seed, blank(), input_noise=1.0, activity_noise=1.0)
    rule = FeedbackAlignment(net, seed=seed)
    one, two = shaken(seed)
    found = {
        "weights": net.weights[0],
        "order": order,
        "feedback": rule.feedback_weights[1],
        "rule": torch.randn(N, generator=rule.generator),
        "training noise": noisy.images,
        "activity noise": noisy.noise,
        "image noise": harder_worlds.noisy_images(blank(), 1.0, seed).x_train,
        "weight noise, layer 1": one,
        "weight noise, layer 2": two,
        "feedback noise": feedback_noise(seed),
    }
    return {(purpose, seed): tensor.detach().flatten()[:N] for purpose, tensor in found.items()}


ALL = draws(0) | draws(1)


@pytest.mark.parametrize("one, other", combinations(ALL, 2), ids=lambda key: f"{key[0]}, seed {key[1]}")
def test_no_two_purposes_and_no_two_seeds_draw_the_same_numbers(one, other):
    assert len(ALL[one]) == len(ALL[other]) == N and ALL[one].std() > 0
    assert abs(torch.corrcoef(torch.stack([ALL[one].double(), ALL[other].double()]))[0, 1]) < 0.15


def test_the_same_seed_draws_the_same_numbers_for_every_purpose():
    again = draws(1)
    assert all(torch.equal(numbers, ALL[key]) for key, numbers in again.items())
