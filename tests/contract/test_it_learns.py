"""Does a rule's hidden layer learn? Where it sees no labels: does it find where the inputs vary?"""

import pytest
import torch
from helpers import batch, grads, small_net

import course_utils as cu
from course_utils import rules
from course_utils.controls import FrozenHidden

every_rule = pytest.mark.parametrize("rule_class", rules.ALL.values(), ids=rules.ALL)

# One number for all weights is little.
HELP = {"WeightPerturbation": {"draws": 5}, "WeightForwardGradient": {"draws": 5}}


def signs(shuffled=False):
    """Do two numbers have the same sign? No straight line tells; four others say nothing, the first three are blank."""
    generator = torch.Generator().manual_seed(0)
    x = torch.nn.functional.pad(torch.randn(3_000, 6, generator=generator), (3, 0))
    y = (x[:, -1] * x[:, -2] > 0).long()
    told = y[torch.randperm(len(y), generator=generator)] if shuffled else y
    parts = (x[:2_000], told[:2_000], x[2_000:2_500], y[2_000:2_500], x[2_500:], y[2_500:])
    return cu.data.Dataset("signs", "signs", *parts)


def accuracy(rule, data):
    """After eight epochs with Adam, on new examples."""
    cu.train(rule, data, epochs=8, lr=0.03, batch_size=20, optimizer="adam", progress=False)
    return cu.evaluate(rule, data.x_test, data.y_test)


def network():
    return cu.MLP([9, 12, 3], seed=0)


def wide():
    """Four clusters far apart in a space of two hundred noisy inputs: six random directions hardly see them."""
    generator = torch.Generator().manual_seed(9)  # 0 would draw the weights of network 0
    centres, y = torch.randn(4, 200, generator=generator), torch.randint(0, 4, (3_000,), generator=generator)
    x = centres[y] + 4 * torch.randn(3_000, 200, generator=generator)
    parts = zip(x.split((2_000, 500, 500)), y.split((2_000, 500, 500)), strict=True)
    return cu.data.Dataset("wide", "wide", *(tensor for part in parts for tensor in part))


def sees_labels(rule_class):
    """By experiment: does the gradient of a hidden layer change with the labels?"""
    net = small_net()
    x, y = batch(net)
    one, other = (grads(rule_class(net, seed=1).double(), x, labels) for labels in (y, (y + 1) % 3))
    return not all(torch.equal(one[l], other[l]) for l in range(net.depth - 1))


RANDOM_FEATURES = accuracy(FrozenHidden(rules.Backprop(network())), signs())


@every_rule
def test_its_hidden_layer_learns(rule_class):
    if not sees_labels(rule_class):  # it finds by itself where the inputs vary
        learnt, random = (
            around(rule_class(cu.MLP([200, 6, 4], seed=0))) for around in (lambda rule: rule, FrozenHidden)
        )
        assert accuracy(learnt, wide()) > accuracy(random, wide()) + 0.07
        return
    assert accuracy(rule_class(network(), **HELP.get(rule_class.__name__, {})), signs()) > RANDOM_FEATURES + 0.07


@every_rule
def test_shuffled_labels_teach_nothing(rule_class):
    # Half are right by chance, of 500: four standard errors are 9 points.
    assert accuracy(rule_class(network(), **HELP.get(rule_class.__name__, {})), signs(shuffled=True)) < 0.59
