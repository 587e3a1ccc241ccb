# Exported from lessons/05_evolution/lesson.md. Edit the lesson, not this file.

import functools
import math
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from course_utils.rule import Knob, Rule, above, one_of, whole
from course_utils.rules.weight_perturbation import WeightPerturbation, random_directions

AT_ONCE = 2**18  # activities of one layer at once, 1 MiB in float32: what stays in a core's cache


def mutations(weights, biases, draws, rank, generator):
    """For each layer (A, B): draw k moves its [W b] along Ψ = A[k] B[k]; a bias is a weight from a unit that is 1.

    rank r: A (draws, out, r) and B (draws, r, in + 1), Gaussian. rank 0: A is Ψ itself, (draws, out, in + 1), all its
    numbers independent, the same as lesson 03 draws from the same generator, and B is None.
    """
    if rank == 0:
        psi = random_directions([*weights, *biases], draws, "gaussian", generator)
        pairs = zip(psi[: len(weights)], psi[len(weights) :], strict=True)
        return [(torch.cat([w, b.unsqueeze(-1)], -1), None) for w, b in pairs]

    def normal(like, *shape):
        return torch.randn(draws, *shape, generator=generator, dtype=like.dtype, device=like.device)

    shapes = [(w, *w.shape) for w in weights]
    return [(normal(w, out, rank), normal(w, rank, given + 1) / math.sqrt(rank)) for w, out, given in shapes]  # (6)


def in_parts(psi, most):
    """The same mutations, so many draws at a time."""
    parts = range(-(-len(psi[0][0]) // most))
    layers = [(a.split(most), [None for _ in parts] if b is None else b.split(most)) for a, b in psi]
    return [[(a[i], b[i]) for a, b in layers] for i in parts]


def along(h, mutation):
    """Where pre-activations go when [W b] moves along Ψ: Ψ [h; 1], (draws, out, batch), of h (…, units, batch)."""
    a, b = mutation
    if b is None:
        return a[..., :-1] @ h + a[..., -1:]
    return a @ (b[..., :-1] @ h + b[..., -1:])  # no Ψ is ever made


def outputs_nearby(net, x, h, psi, steps):
    """For each step the outputs (draws, classes, batch) with [W b] of the last layers moved step × Ψ.

    h: what the first layer that moves is given, (units, batch): examples are columns here, which is twice as fast.
    """
    begin, offsets = net.depth - len(psi), [o.view(-1, o.shape[-1]).T for o in net.offsets(x)]
    here, moved = net.weights[begin] @ h + offsets[begin], along(h, psi[0])  # the same for every step
    found = []
    for step in steps:
        a = torch.add(here, moved, alpha=step)
        for l, mutation in enumerate(psi[1:], begin + 1):
            h = net.nonlinearity(a)
            a = (net.weights[l] @ h + offsets[l]).add_(along(h, mutation), alpha=step)
        found.append(a)
    return torch.stack(found)


def judged(net, out, y, fitness):
    """Of each draw's outputs (draws, classes, batch) the mean loss, or the share of examples read wrongly: (draws,)."""
    if fitness == "errors":
        return (out.argmax(1) != (y if y.ndim == 1 else y.argmax(1))).to(out.dtype).mean(1)
    if net.loss_name == "cross_entropy" and y.ndim == 1:
        return F.cross_entropy(out, y.expand(len(out), -1), reduction="none").mean(1)  # much faster than by rows
    told = y.repeat(len(out), *[1] * (y.ndim - 1))
    return net.loss(out.mT.flatten(0, 1), told, "none").view(len(out), -1).mean(1)


def centred_ranks(losses):
    """From −½ for the smallest to +½ for the largest, (n,); equal losses share the mean of their places."""
    in_order = losses.sort().values
    first, behind = (torch.searchsorted(in_order, losses, right=right) for right in (False, True))
    return ((first + behind - 1) / 2).to(losses.dtype) / (len(losses) - 1) - 0.5  # (4)


class EvolutionStrategy(Rule):
    """An evolution strategy: pairs of opposite mutants are tried, and the mean moves towards the fitter ones.

    Source: Salimans, Ho, Chen, Sidor and Sutskever 2017, arXiv:1703.03864; mutations of low rank: Sarkar and colleagues
    2025, arXiv:2511.16652. x (batch, inputs), y (batch,) labels or (batch, outputs) targets. perturbation_std: σ, above
    0. draws: K pairs a batch. rank: of each layer's mutation of [W b]; 0: all its numbers are independent. shaping:
    "raw" estimates the gradient of the smoothed loss; "ranked" puts the losses' ranks in their place, and `.grad` then
    has the direction but not the length. fitness: "loss", or "errors", the share of the batch read wrongly; `backward`
    returns the loss in both cases. ValueError for anything else.
    """

    title = "Evolution strategy"
    look = ("red", "-")
    lr = 0.003
    perturbation_std = Knob(0.01, above(0), slider=(1e-4, 1.0, "log"), live=True)
    draws = Knob(32, whole(1), slider=(1, 256, "log"), live=True)
    rank = Knob(1, whole(0), slider=(0, 8, "linear"), live=True)
    shaping = Knob("raw", one_of("raw", "ranked"))
    fitness = Knob("loss", one_of("loss", "errors"))
    perturb_hidden = True  # False: the readout alone mutates
    plausibility = WeightPerturbation.plausibility

    @torch.no_grad()
    def backward(self, x, y):
        h, begin = self.net.activations(x), 0 if self.perturb_hidden else self.net.depth - 1
        loss = self.net.loss(h[-1], y)
        weights, biases = list(self.net.weights)[begin:], list(self.net.biases)[begin:]
        self.net.offsets(x)  # what refuses autocast does so before anything is drawn
        psi = mutations(weights, biases, self.draws, self.rank, self.generator)
        credit = self.credit(self.fitnesses(x, y, h[begin].T, psi))
        for w, bias, (a, b) in zip(weights, biases, psi, strict=True):
            good = credit.view(-1, 1, 1) * a
            g = good.sum(0) if b is None else good.transpose(0, 1).flatten(1) @ b.flatten(0, 1)  # the mean over draws
            self.add_grad(w, g[:, :-1])
            self.add_grad(bias, g[:, -1])
        return loss

    def fitnesses(self, x, y, h, psi):
        """Of the mutants at w + σψ and at w − σψ, (2, draws); less is fitter."""
        at_once = max(1, AT_ONCE // (len(x) * max(self.net.sizes[1:])))
        both = (self.perturbation_std, -self.perturbation_std)
        out = torch.cat([outputs_nearby(self.net, x, h, part, both) for part in in_parts(psi, at_once)], 1)
        return judged(self.net, out.flatten(0, 1), y, self.fitness).view(2, -1)

    def credit(self, fitnesses):
        """By what each direction is multiplied, (draws,)."""
        if self.shaping == "raw":
            plus, minus = fitnesses
            return (plus - minus) / (2 * self.perturbation_std * self.draws)  # (2)
        plus, minus = centred_ranks(fitnesses.flatten()).view(2, -1)
        return (plus - minus) / (2 * self.draws)  # (4)


@functools.cache
def constants(n, population, diagonal):
    """The constants of Hansen's tutorial for n numbers, with positive weights only, as a namespace.

    weights (best half of the population,) sum to 1; mass: μ_eff; c_sigma, d_sigma: memory and damping of the step size;
    c_c, c_1, c_mu: of the path and of the covariance, which is faster where it is diagonal (Ros and Hansen 2008).
    """
    ranks = torch.arange(1, population // 2 + 1, dtype=torch.float64)
    weights = math.log((population + 1) / 2) - ranks.log()
    weights = weights / weights.sum()
    mass = 1 / weights.pow(2).sum().item()
    faster = (n + 2) / 3 if diagonal else 1
    c_1 = min(1, faster * 2 / ((n + 1.3) ** 2 + mass))
    c_sigma = (mass + 2) / (n + mass + 5)
    return SimpleNamespace(
        weights=weights,
        mass=mass,
        c_sigma=c_sigma,
        d_sigma=1 + 2 * max(0, math.sqrt((mass - 1) / (n + 1)) - 1) + c_sigma,
        c_c=(4 + mass / n) / (n + 4 + 2 * mass / n),
        c_1=c_1,
        c_mu=min(1 - c_1, faster * 2 * (mass - 2 + 1 / mass) / ((n + 2) ** 2 + mass)),
        length=math.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n * n)),  # of a Gaussian draw, on average
    )


class MutationCloud(nn.Module):
    """What CMA-ES knows of its mutations: size σ, shape C, and the paths that its mean has taken.

    n: how many numbers mutate. population: λ mutants a generation. like: a tensor for type and device.
    diagonal: C is then a vector, the variance of each number.
    """

    def __init__(self, n, population, std, diagonal=False, like=None):
        super().__init__()
        like = torch.empty(0) if like is None else like
        self.n, self.population, self.diagonal = n, population, diagonal
        self.C = nn.Buffer(like.new_ones(n) if diagonal else torch.eye(n).to(like))
        self.p_sigma, self.p_c = nn.Buffer(like.new_zeros(n)), nn.Buffer(like.new_zeros(n))
        self.std, self.generations = nn.Buffer(like.new_tensor(std)), nn.Buffer(like.new_tensor(0.0))

    @property
    def constants(self):
        return constants(self.n, self.population, self.diagonal)

    def draw(self, generator):
        """Gaussian z and steps y = C^½ z, (λ, n) each."""
        z = torch.randn(self.population, self.n, generator=generator, dtype=self.C.dtype, device=self.C.device)
        if self.diagonal:
            return z, z * self.C.sqrt()
        values, vectors = torch.linalg.eigh(self.C)
        root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T  # the symmetric one: no axis is preferred
        return z, z @ root  # (8)

    def mean_of(self, best):
        """The weighted mean of a generation's better half, (n,); best (μ, n), the fittest first."""
        return self.constants.weights.to(best) @ best

    @torch.no_grad()
    def adapt(self, z, y):
        """Move paths, shape and size after the better half of a generation, z and y (μ, n), the fittest first."""
        k = self.constants
        self.generations.add_(1)
        faded, gain = 1 - k.c_sigma, math.sqrt(k.c_sigma * (2 - k.c_sigma) * k.mass)
        self.p_sigma.mul_(faded).add_(gain * self.mean_of(z))  # (10), where z is C^-½ y
        length = self.p_sigma.norm() / k.length
        usual = (1.4 + 2 / (self.n + 1)) * (1 - faded ** (2 * self.generations)).sqrt()
        steady = (length < usual).to(length)  # 0 while the path is too long for C to learn from it
        self.p_c.mul_(1 - k.c_c).add_(steady * math.sqrt(k.c_c * (2 - k.c_c) * k.mass) * self.mean_of(y))  # (10)
        kept = 1 - k.c_1 - k.c_mu + (1 - steady) * k.c_1 * k.c_c * (2 - k.c_c)
        if self.diagonal:
            self.C.mul_(kept).add_(k.c_1 * self.p_c**2 + k.c_mu * self.mean_of(y**2))  # (11), its diagonal
        else:
            many = (y.T * k.weights.to(y)) @ y
            self.C.mul_(kept).add_(k.c_1 * torch.outer(self.p_c, self.p_c) + k.c_mu * many)  # (11)
        self.std.mul_((k.c_sigma / k.d_sigma * (length - 1)).exp())  # (12)


class FewNumbers:
    """What a rule needs that mutates all numbers of a small network in one row, or (frozen) those of its readout."""

    net: Any
    title: str
    fresh_cloud: Any  # (numbers, like): what draws the mutants
    largest = 1_000  # numbers in the network: a covariance holds their square

    @property
    def perturb_hidden(self):
        """False: the readout alone mutates. To set it begins with a fresh cloud."""
        return len(self.mutating) == 2 * self.net.depth

    @perturb_hidden.setter
    def perturb_hidden(self, value):
        begin = 0 if value else self.net.depth - 1
        self.mutating = [*list(self.net.weights)[begin:], *list(self.net.biases)[begin:]]
        self.counts = [p.numel() for p in self.mutating]
        if sum(self.counts) > self.largest:
            raise ValueError(f"net has {sum(self.counts):,} numbers to learn; {self.title} takes {self.largest:,}")
        self.cloud = self.fresh_cloud(sum(self.counts), self.mutating[0])

    def judge(self, x, y, numbers):
        """The losses of mutants, (λ,), that are given as rows of numbers (λ, n)."""
        parts = zip(numbers.split(self.counts, 1), self.mutating, strict=True)
        mutants = [part.unflatten(1, p.shape) for part, p in parts]
        weights, biases, moved = list(self.net.weights), list(self.net.biases), len(mutants) // 2
        weights[-moved:], biases[-moved:] = mutants[:moved], mutants[moved:]
        x = self.net.check_input(x)  # an MLP's: the activations of a Net of one's own take no other weights
        return judged(self.net, self.net.activations(x, weights, biases)[-1].mT, y, "loss")


class CMAES(FewNumbers, Rule):
    """CMA-ES: mutants from one Gaussian cloud, whose middle, size and shape follow the fitter half of each generation.

    Source: Hansen 2016, arXiv:1604.00772; its diagonal form: Ros and Hansen 2008, doi:10.1007/978-3-540-87700-4_30.
    x (batch, inputs), y (batch,) labels or (batch, outputs) targets. The network holds the cloud's middle m; `.grad` is
    m − m_new, so SGD with lr 1 and no momentum makes the step of the tutorial, and lr is its c_m. `step` adapts the
    cloud. population: λ. initial_std: σ at first. covariance: "full" or "diagonal". ValueError for a network of more
    than `largest` numbers, and for anything else.
    """

    title = "CMA-ES"
    look = ("black", "long dashes")
    lr = 1.0
    population = Knob(20, whole(4), slider=(4, 256, "log"))
    initial_std = Knob(0.3, above(0), slider=(0.01, 3.0, "log"))
    covariance = Knob("full", one_of("full", "diagonal"))
    not_as_there = {"non_local": "yes", "signed_error": "no", "cost": "1 forward a mutant"}
    plausibility = WeightPerturbation.plausibility | not_as_there

    def __init__(self, net, seed=0, **knobs):
        super().__init__(net, seed, **knobs)
        self.perturb_hidden = True

    def fresh_cloud(self, n, like):
        return MutationCloud(n, self.population, self.initial_std, self.covariance == "diagonal", like)

    @torch.no_grad()
    def generation(self, x, y):
        """A generation's better half, draws z and steps (μ, n), the fittest first; the loss of the mean. Fills .grad."""
        loss, mean = self.net.loss(self.net(x), y), torch.cat([p.flatten() for p in self.mutating])
        z, steps = self.cloud.draw(self.generator)
        fitter = self.judge(x, y, mean + self.cloud.std * steps).argsort(stable=True)[: len(z) // 2]  # (8)
        z, steps = z[fitter], steps[fitter]
        step = self.cloud.std * self.cloud.mean_of(steps)  # (9)
        for p, part in zip(self.mutating, step.split(self.counts), strict=True):
            self.add_grad(p, -part.view_as(p))
        return z, steps, loss

    def backward(self, x, y):
        return self.generation(x, y)[-1]

    def step(self, x, y, optimizer):
        optimizer.zero_grad(set_to_none=True)
        z, steps, loss = self.generation(x, y)
        optimizer.step()
        self.cloud.adapt(z, steps)
        return loss
