"""What a hybrid and its parts are compared by: training, gradients bit for bit, many draws at one batch."""

import torch

from helpers import batch, flat, grads


def trained(rule, steps=15, lr=0.02):
    optimizer = torch.optim.SGD(rule.parameters(), lr=lr, momentum=0.9)
    for t in range(steps):
        rule.step(*batch(rule.net, n=9, seed=t), optimizer)
    return [p.detach().clone() for p in rule.net.parameters()]


def same(ours, theirs):
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def draws_of(rule, x, y, n):
    """(n, d) estimates at one batch."""
    return torch.stack([flat(grads(rule, x, y)) for _ in range(n)])
