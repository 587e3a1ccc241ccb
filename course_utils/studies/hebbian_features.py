# Exported from lessons/11_hebbian_features/lesson.md. Edit the lesson, not this file.

from dataclasses import replace

import torch

from course_utils.data import load_dataset
from course_utils.network import MLP
from course_utils.rules.backpropagation import Backprop
from course_utils.runs import make_rule, run_rule
from course_utils.training import train


def principal(x, k):
    """(variances along all directions, widest first; the k widest directions (k, inputs)) of examples x, in float64."""
    mean = sum(part.double().sum(0) for part in x.split(5_000)) / len(x)  # in parts: all in float64 would take 350 MB
    centred = (part.double() - mean for part in x.split(5_000))
    variances, directions = torch.linalg.eigh(sum(part.T @ part for part in centred) / (len(x) - 1))
    return variances.flip(0), directions.flip(1).T[:k]


def overlap(weights, directions):
    """The share, 0 to 1, of the space of orthonormal directions (k, inputs) that k rows of weights span."""
    basis, _ = torch.linalg.qr(weights.detach().double().T)
    return (directions @ basis).square().sum().item() / len(directions)


def span(name, sizes, lr, seed, dataset="mnist", limit=None, test=False, network=None, **training):
    """A run whose test_accuracy is the `overlap` of its first layer with the widest directions; `dataset` says so."""
    data = load_dataset(dataset, limit=limit)
    rule = make_rule(name, sizes, seed, **(network or {}))
    frame = run_rule(rule, name, data, lr, seed, network=network, **training)
    _, directions = principal(data.x_train, sizes[1])
    frame.loc[frame.index[-1], "test_accuracy"] = overlap(rule.net.weights[0], directions)
    return frame.assign(dataset=f"{data.name}, overlap")


@torch.no_grad()
def through_on_and_off(rule, data):
    """data, with what on and off cells behind the rule's features say in place of its images: twice as many numbers."""

    def cells(x):
        z = rule.features(x)
        return torch.cat([z.relu(), (-z).relu()], 1)

    return replace(data, x_train=cells(data.x_train), x_val=cells(data.x_val), x_test=cells(data.x_test))


def reader(name, sizes, lr, seed, dataset="mnist", limit=None, test=False, network=None, **training):
    """A run of a readout of on and off cells, at rate lr, behind hidden layers that were taught at the rule's own."""
    data = load_dataset(dataset, limit=limit)
    rule = make_rule(name, sizes, seed, **(network or {}))
    train(rule, data, lr=rule.lr, seed=seed, progress=False, **training)
    seen = through_on_and_off(rule, data)
    readout = Backprop(MLP([seen.x_train.shape[1], sizes[-1]], seed=seed))
    frame = run_rule(readout, name, seen, lr, seed, test=test, **training)
    return frame.assign(dataset=f"{data.name}, on and off", sizes="-".join(map(str, sizes)))
