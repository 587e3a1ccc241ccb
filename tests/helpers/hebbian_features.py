"""Inputs whose covariance is known to the last digit, independent sources, and Hebbian rules with one thing wrong."""

import inspect

import torch

from course_utils.network import MLP
from course_utils.rules import Sanger
from course_utils.rules.hebbian_features import HebbianLayers
from helpers import mutant

VARIANCES = torch.tensor([3.0, 2.0, 1.2, 0.7, 0.4, 0.2], dtype=torch.float64)


def exact_inputs(n=40, variances=VARIANCES, seed=0):
    """(x (n, inputs) with mean 0 and covariance exactly diag(variances) in turned axes, the axes as rows)."""
    generator, k = torch.Generator().manual_seed(seed), len(variances)
    white = torch.randn(n, k, generator=generator, dtype=torch.float64)
    white = torch.linalg.qr(white - white.mean(0))[0] * n**0.5
    axes = torch.linalg.qr(torch.randn(k, k, generator=generator, dtype=torch.float64))[0].T
    return (white * variances.sqrt()) @ axes, axes


def linear_net(sizes, scale=0.5, seed=3):
    net = MLP(sizes, activation="linear", seed=seed, device="cpu").double()
    with torch.no_grad():
        net.weights[0].mul_(scale)
    return net


def wrong(old, new):
    """`Sanger` again, with `old` replaced in its own source or in what it shares with other Hebbian rules."""
    if old in inspect.getsource(Sanger):
        return mutant(Sanger, old, new)
    return type("Wrong", (mutant(HebbianLayers, old, new), Sanger), {})


def grown(rule, x, eta=0.05, steps=6000):
    """The first layer's weights after many full-batch steps of the rule's `change`, means left alone."""
    w = rule.net.weights[0]
    with torch.no_grad():
        for _ in range(steps):
            c = x - rule.means[0]
            w += eta * rule.change(0, c, c @ w.T)
    return w.detach()


def cosines(w, axes):
    """|cos| (units, axes) between rows of weights and axes."""
    return (torch.nn.functional.normalize(w, dim=1) @ axes.T).abs()


def sources(kind, n=6_000, k=4, seed=0):
    """(n, k) independent numbers of mean 0 and variance 1: "uniform", "laplace" or "gaussian"."""
    generator = torch.Generator().manual_seed(seed)
    kinds = {"generator": generator, "dtype": torch.float64}
    if kind == "gaussian":
        return torch.randn(n, k, **kinds)
    u = 2 * torch.rand(n, k, **kinds) - 1
    return 3**0.5 * u if kind == "uniform" else -u.sign() * torch.log1p(-u.abs()) / 2**0.5


def amari(found):
    """How far a matrix (units, sources) is from one source a unit: 0 if it is, at most 1. Amari and colleagues 1996."""
    p = found.abs()
    rows, columns = (p / p.amax(1, keepdim=True)).sum() - len(p), (p / p.amax(0)).sum() - len(p)
    return ((rows + columns) / (2 * len(p) * (len(p) - 1))).item()


def flow(w, axes, time):
    """The closed form (4): e^{Ct} w₀ / √(|e^{Ct} w₀|² + 1 − |w₀|²)."""
    pulled = (w @ axes.T * (VARIANCES * time).exp()) @ axes
    return pulled / (pulled.square().sum() + 1 - w.square().sum()).sqrt()


def asymmetry(rule, h=1e-4):
    """‖J − Jᵀ‖ / ‖J‖ of `change` as a field of the weights, by central differences; 0 for every gradient."""
    (x, _), w = exact_inputs(), rule.net.weights[0]
    start, columns = w.detach().clone(), []
    for i in range(w.numel()):
        sides = []
        for sign in (h, -h):
            moved = start.flatten().clone()
            moved[i] += sign
            with torch.no_grad():
                w.copy_(moved.view_as(w))
                sides.append(rule.change(0, x, x @ w.T).flatten())
        columns.append((sides[0] - sides[1]) / (2 * h))
    j = torch.stack(columns)
    return ((j - j.T).norm() / j.norm()).item()
