# Exported from lessons/05_evolution/lesson.md. Edit the lesson, not this file.

import dataclasses
import itertools
import math

import pandas as pd
import torch
import torch.nn.functional as F

from course_utils.data import load_dataset
from course_utils.network import MLP
from course_utils.rules.backpropagation import Backprop
from course_utils.runs import SCHEMA, make_rule, provenance, run_rule
from course_utils.training import evaluate


def evolve(cloud, f, mean, seed):
    """Generations of a cloud on f, from (λ, n) to (λ,): yields the mean (n,) and the best value so far after each."""
    generator, best = torch.Generator().manual_seed(seed), math.inf
    while True:
        z, y = cloud.draw(generator)
        values = f(mean + cloud.std * y)  # (8)
        fitter = values.argsort(stable=True)[: len(z) // 2]
        mean = mean + cloud.std * cloud.mean_of(y[fitter])  # (9)
        cloud.adapt(z[fitter], y[fitter])
        best = min(best, values.min().item())
        yield mean, best


def one_plus_one(f, w, std, seed, tries):
    """A parent and a child, in several runs at once: yields f of the parents (runs,) after each try; w (runs, n).

    The 1/5 rule: σ grows by e^{1/3} where the child is at least as fit, and shrinks by e^{-1/12} where it is not.
    """
    generator, value = torch.Generator().manual_seed(seed), f(w)
    std = torch.full((len(w), 1), std, dtype=w.dtype)
    for _ in range(tries):
        child = w + std * torch.randn(w.shape, generator=generator, dtype=w.dtype)
        trial = f(child)
        better = trial <= value
        w, value = torch.where(better[:, None], child, w), torch.where(better, trial, value)
        std = std * torch.where(better, math.exp(1 / 3), math.exp(-1 / 12))[:, None].to(std)
        yield value


def resized(data, size, standardised=False):
    """The same images on size × size pixels, each the mean of what it covers; standardised by the training images."""
    parts = {name: getattr(data, name) for name in ("x_train", "x_val", "x_test")}
    parts = {name: F.adaptive_avg_pool2d(x.view(-1, 28, 28), size).flatten(1) for name, x in parts.items()}
    if standardised:
        shift, scale = parts["x_train"].mean(0), parts["x_train"].std(0).clamp(min=0.05)
        parts = {name: (x - shift) / scale for name, x in parts.items()}
    return dataclasses.replace(data, **parts)


def few_numbers(name, sizes, lr, seed, dataset="mnist", limit=None, test=False, **training):
    """As `runs.one_run`, on 7 × 7 standardised pixels."""
    data = resized(load_dataset(dataset, limit=limit), 7, standardised=True)
    return run_rule(make_rule(name, sizes, seed), name, data, lr, seed, test=test, **training)


# The 36 blocks of 2 × 2: −1, 0 or 1 on the diagonal, 0 or 1 above it, 0 or −1 below.
NUMBERS = itertools.product((-1, 0, 1), (0, 1), (0, -1), (-1, 0, 1))
BLOCKS = torch.tensor([[[a, b], [c, d]] for a, b, c, d in NUMBERS]).float()


def developed(weights, blocks):
    """The weight matrices that genomes spell, Σ_c a_c Q_c1 ⊗ … ⊗ Q_cJ, (population, rows, columns).

    weights a (population, codons); blocks (population, codons, J): which of the 36. Of the first half of a codon's
    blocks only the upper row counts, so that there are 2^(J/2) rows for 2^J columns.
    """
    matrices, half = BLOCKS.to(weights)[blocks], blocks.shape[-1] // 2
    product = weights[..., None, None]  # (population, codons, 1, 1)
    for j in range(blocks.shape[-1]):
        q = matrices[:, :, j, :1] if j < half else matrices[:, :, j]
        product = torch.einsum("pcmn,pcrs->pcmrns", product, q).flatten(4, 5).flatten(2, 3)  # (13)
    return product.sum(1)


def random_genomes(count, codons, length, generator):
    weights = torch.randn(count, codons, generator=generator)
    return weights, torch.randint(len(BLOCKS), (count, codons, length), generator=generator)


def children_of(weights, blocks, count, std, generator):
    """Children of the given parents: each codon from one of two, then mutations, of blocks and (by std) of weights."""
    first, second = torch.randint(len(weights), (2, count), generator=generator)
    swap = torch.rand(count, weights.shape[1], generator=generator) < 0.3
    weights = torch.where(swap, weights[second], weights[first])
    blocks = torch.where(swap[..., None], blocks[second], blocks[first])
    moved = torch.rand(weights.shape, generator=generator) < 0.3
    weights = weights + moved * std * torch.randn(weights.shape, generator=generator)
    other = torch.randint(len(BLOCKS), blocks.shape, generator=generator)
    return weights, torch.where(torch.rand(blocks.shape, generator=generator) < 1 / 64, other, blocks)


def generations(data, seed, inherit=True, std=0.1, codons=16, population=100, parents=20, images=1_000):
    """Yields each generation's champion, (weights, blocks); inherit False: children are random genomes instead."""
    generator = torch.Generator().manual_seed(seed)
    weights, blocks = random_genomes(population, codons, 8, generator)
    while True:
        some = torch.randint(len(data.x_train), (images,), generator=generator)
        scores = data.x_train[some] @ developed(weights, blocks)[:, :10].mT  # (population, images, 10)
        labels = data.y_train[some].expand(population, -1)
        fitter = F.cross_entropy(scores.mT, labels, reduction="none").mean(1).argsort()[:parents]
        yield weights[fitter[0]], blocks[fitter[0]]
        weights, blocks, new = weights[fitter], blocks[fitter], population - parents
        if inherit:
            young = children_of(weights, blocks, new, std, generator)
        else:
            young = random_genomes(new, codons, 8, generator)
        weights, blocks = torch.cat([weights, young[0]]), torch.cat([blocks, young[1]])


def born(weights, blocks):
    """A network without hidden layers whose weights are what the genome spells."""
    net = MLP([256, 10], device="cpu")
    with torch.no_grad():
        net.weights[0].copy_(developed(weights[None], blocks[None])[0, :10])
    return Backprop(net)


def genetic(name, sizes, lr, seed, dataset="mnist", limit=None, test=False, count=200, every=20):
    """A row every so many generations, `samples` being evaluations; lr is the std of the weights' mutations."""
    data, rows = resized(load_dataset(dataset, limit=limit, device="cpu"), 16), []
    champions = itertools.islice(generations(data, seed, name == "GeneticAlgorithm", std=lr), count)
    for done, champion in enumerate(champions, 1):
        if done % every == 0:
            rule = born(*champion)
            rows.append({"samples": 100 * done, "val_accuracy": evaluate(rule, data.x_val, data.y_val)})
    facts = {"rule": name, "dataset": data.name, "sizes": "256-10", "seed": seed, "lr": lr, "noise": 0.0, "epoch": 0.0}
    facts |= {"seconds": math.nan, "test_accuracy": math.nan, **provenance(data.x_val.device)}
    frame = pd.DataFrame(rows).assign(**facts)
    if test:
        frame.loc[frame.index[-1], "test_accuracy"] = evaluate(rule, data.x_test, data.y_test)
    return frame[SCHEMA]
