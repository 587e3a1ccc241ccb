"""The door of a network: what it refuses, by name, and that it looks at a batch once."""

import math

import numpy as np
import pytest
import torch
from helpers import LOSSES, batch, grads, small_net

from course_utils import checks
from course_utils.data import Dataset
from course_utils.network import MLP
from course_utils.rules import Backprop
from course_utils.settings import Settings
from course_utils.training import steps

X = torch.zeros(4, 7)


BAD_INPUTS = {
    "wrong width": (torch.zeros(4, 8), r"x has shape \(4, 8\).*\(batch, 7\)"),
    "one example without its batch": (torch.zeros(7), r"x has shape \(7,\)"),
    "images": (torch.zeros(4, 1, 7), r"x has shape \(4, 1, 7\)"),
    "NaN": (X.index_fill(0, torch.tensor(2), math.nan), "x holds NaN"),
    "inf": (X.index_fill(0, torch.tensor(2), math.inf), "x holds NaN or infinite"),
    "inf and -inf": (torch.tensor([[math.inf, -math.inf] + 5 * [0.0]]), "x holds NaN or infinite"),
    "empty batch": (torch.zeros(0, 7), "x is an empty batch"),
    "whole numbers": (torch.zeros(4, 7, dtype=torch.uint8), "x holds torch.uint8"),
    "double": (X.double(), "x holds torch.float64 and the network torch.float32"),
    "half": (X.half(), "x holds torch.float16"),
    "array": (np.zeros((4, 7), np.float32), "x is a ndarray"),
    "list": ([[0.0] * 7], "x is a list"),
    "None": (None, "x is a NoneType"),
}


@pytest.mark.parametrize("what", BAD_INPUTS)
def test_bad_inputs_are_refused_by_name(what):
    x, message = BAD_INPUTS[what]
    net = MLP([7, 6, 3])
    with pytest.raises(ValueError, match=message):
        net(x)
    with pytest.raises(ValueError, match=message):
        net.activations(x)


def test_large_finite_values_are_not_mistaken_for_infinite_ones():
    MLP([7, 6, 3])(torch.full((4, 7), 3e38))  # their sum overflows


BAD_TARGETS = {
    "too large": (torch.tensor([0, 1, 3, 0]), "labels from 0 to 3.*classes 0 to 2"),
    "negative": (torch.tensor([0, -1, 2, 0]), "labels from -1 to 2"),
    "int32": (torch.zeros(4, dtype=torch.int32), "y holds torch.int32"),
    "bool": (torch.zeros(4, dtype=torch.bool), "y holds torch.bool"),
    "wrong length": (torch.zeros(5, dtype=torch.int64), r"y has shape \(5,\); it must be \(4,\)"),
    "a column": (torch.zeros(4, 1, dtype=torch.int64), r"y has shape \(4, 1\)"),
    "whole one-hot": (torch.zeros(4, 3, dtype=torch.int64), r"y has shape \(4, 3\)"),
    "floating labels": (torch.zeros(4), r"y has shape \(4,\); target values must have shape \(4, 3\)"),
    "wrong width": (torch.zeros(4, 2), r"y has shape \(4, 2\)"),
    "NaN": (torch.full((4, 3), math.nan), "y holds NaN"),
    "inf": (torch.full((4, 3), math.inf), "y holds NaN or infinite"),
    "double": (torch.full((4, 3), 1 / 3, dtype=torch.float64), "y holds torch.float64 and the network"),
    "array": (np.zeros(4, np.int64), "y is a ndarray"),
    "None": (None, "y is a NoneType"),
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("what", BAD_TARGETS)
def test_bad_targets_are_refused_by_name(what, loss):
    y, message = BAD_TARGETS[what]
    net = MLP([7, 6, 3], loss=loss)
    out = net(torch.randn(4, 7))
    with pytest.raises(ValueError, match=message):
        net.output_error(out, y)
    with pytest.raises(ValueError, match=message):
        net.loss(out, y)


def test_cross_entropy_asks_for_probabilities_because_its_error_is_exact_only_then():
    net = MLP([7, 6, 3])
    out, y = net(torch.randn(4, 7)), torch.full((4, 3), 0.5)
    with pytest.raises(ValueError, match="sum to 1"):
        net.output_error(out, y)
    MLP([7, 6, 3], loss="squared_error").output_error(out, y)


@pytest.mark.parametrize("sizes", [[], [7], [7, 0, 3], [7, -1, 3], [7, 6.0, 3], ["7", 3], [True, 3], 7, None, "73"])
def test_sizes_that_make_no_network_are_refused(sizes):
    with pytest.raises(ValueError, match="sizes is"):
        MLP(sizes)


@pytest.mark.parametrize("argument", ["activation", "loss", "init"])
@pytest.mark.parametrize("value", ["gelu", "", None, 3, ["relu"]])
def test_unknown_names_are_refused(argument, value):
    with pytest.raises(ValueError, match=f"{argument} is .*use one of"):
        MLP([7, 3], **{argument: value})


@pytest.mark.parametrize("seed", [-1, 0.5, "0", None])
def test_a_bad_seed_is_refused(seed):
    with pytest.raises(ValueError, match="seed is"):
        MLP([7, 3], seed=seed)


@pytest.mark.parametrize("reduction", ["sum", None])
def test_unknown_reductions_are_refused(reduction):
    net = small_net()
    x, y = batch(net)
    with pytest.raises(ValueError, match="reduction is"):
        net.loss(net(x), y, reduction=reduction)


def test_x_need_not_lie_in_one_piece():
    net = small_net()
    x, y = batch(net)
    wide = torch.cat([x, x[:, :2]], 1)
    assert not wide[:, :-2].is_contiguous() and torch.equal(net(wide[:, :-2]), net(x))
    rule = Backprop(net)
    assert all(torch.equal(a, b) for a, b in zip(grads(rule, wide[:, :-2], y), grads(rule, x, y), strict=True))


def looks_at(monkeypatch):
    """How often the door looks into a tensor from here on: a list that grows."""
    looks = []
    for name in ("check_finite", "check_labels"):
        original = getattr(checks, name)
        monkeypatch.setattr(checks, name, lambda *a, original=original, name=name: looks.append(name) or original(*a))
    return looks


def test_a_batch_passes_the_door_once_however_many_passes_a_step_makes(monkeypatch):
    net, looks = small_net(), looks_at(monkeypatch)
    x, y = batch(net)
    for _ in range(3):
        out = net.activations(x)[-1]
        net.output_error(out, y), net.loss(out, y)
    assert looks == ["check_finite", "check_labels"]
    net(x + 1)
    assert len(looks) == 3  # another tensor is another batch


def test_train_looks_at_the_data_once_and_at_no_batch_of_them(monkeypatch):
    net, looks = small_net(dtype=torch.float32), looks_at(monkeypatch)
    x, y = torch.rand(40, net.sizes[0]), torch.arange(40) % net.sizes[-1]
    data = Dataset("small", "small", x, y, x[:8], y[:8], x[:8], y[:8])
    runner = steps(Backprop(net), data, Settings(epochs=2, batch_size=8, lr=0.1))
    next(runner)
    looks.clear()
    for _ in range(4):
        next(runner)
    assert looks == []


def test_what_is_let_in_is_looked_at_again_once_it_has_changed():
    net = small_net()
    x, y = batch(net)
    checks.let_in(net, x, y)
    out = net(x).detach()
    x[0, 0], y[0] = math.nan, 3
    with pytest.raises(ValueError, match="x holds NaN"):
        net(x)
    with pytest.raises(ValueError, match="labels from"):
        net.loss(out, y)


def test_a_batch_that_was_changed_in_place_is_looked_at_again():
    net = small_net()
    x, y = batch(net)
    out = net(x).detach()
    net.loss(out, y)
    x[0, 0], y[0] = math.nan, 3
    with pytest.raises(ValueError, match="x holds NaN"):
        net(x)
    with pytest.raises(ValueError, match="labels from"):
        net.loss(out, y)


def test_a_batch_that_one_network_took_is_not_taken_by_every_other():
    x, y = batch(small_net())
    small_net()(x)
    with pytest.raises(ValueError, match="x has shape"):
        small_net((8, 5, 3))(x)
    with pytest.raises(ValueError, match="x holds torch.float64"):
        small_net(dtype=torch.float32)(x)
    small_net().loss(torch.zeros(4, 3, dtype=torch.float64), torch.tensor([2, 2, 2, 2]))
    labels = torch.tensor([2, 2, 2, 2])
    small_net().loss(torch.zeros(4, 3, dtype=torch.float64), labels)
    with pytest.raises(ValueError, match="labels from 2 to 2"):
        small_net().loss(torch.zeros(4, 2, dtype=torch.float64), labels)
