# Exported from lessons/02_measuring/lesson.md. Edit the lesson, not this file.

import torch

from course_utils.controls import FrozenHidden
from course_utils.data import load_dataset
from course_utils.network import MLP
from course_utils.rule import Rule
from course_utils.rules.backpropagation import Backprop
from course_utils.runs import run_rule


class ClassroomMLP(MLP):
    """An MLP whose output units are sigmoid, as its hidden ones."""

    def onward(self, a, weights=None, biases=None, edit=None):
        h = super().onward(a, weights, biases, edit)
        return [*h[:-1], torch.sigmoid(h[-1])]

    def output_error(self, out, y):
        return super().output_error(out, y) * self.derivative(out)


def classroom(sizes=(784, 500, 10), seed=0):
    """The notebook's network: all weights from a Gaussian of width 0.1; its biases are drawn too, ours begin at 0."""
    net = ClassroomMLP(list(sizes), activation="sigmoid", loss="squared_error", seed=seed)
    with torch.no_grad():
        for w in net.weights:
            w *= 0.1 / w.std()
    return net


class WeightShaker(Rule):
    """Weight perturbation: one shake of all weights a batch."""

    title, sigma = "Weight perturbation", 0.1

    @torch.no_grad()
    def backward(self, x, y):
        net, parameters = self.net, list(self.net.parameters())
        psi = [torch.randn(p.shape, generator=self.generator, device=p.device) for p in parameters]
        shaken = [p + self.sigma * s for p, s in zip(parameters, psi, strict=True)]
        loss = net.loss(net(x), y)
        change = net.loss(net.activations(x, shaken[: net.depth], shaken[net.depth :])[-1], y) - loss
        for p, s in zip(parameters, psi, strict=True):
            self.add_grad(p, change / self.sigma * s)  # (12), left
        return loss


class NodeShaker(Rule):
    """Node perturbation: a shake of every unit an image; of the output units alone when `perturb_hidden` is off."""

    title, sigma, perturb_hidden = "Node perturbation", 0.1, True

    @torch.no_grad()
    def backward(self, x, y):
        net, h = self.net, self.net.activations(x)
        layers = range(0 if self.perturb_hidden else net.depth - 1, net.depth)
        xi = {l: torch.randn(len(x), net.sizes[l + 1], generator=self.generator, device=x.device) for l in layers}
        loss = net.loss(h[-1], y, "none")
        shaken = net.activations(x, edit=lambda l, a: a + self.sigma * xi[l] if l in xi else a)[-1]
        change = net.loss(shaken, y, "none") - loss
        for l in layers:
            blame = change[:, None] / self.sigma * xi[l] / len(x)
            self.add_grad(net.weights[l], blame.T @ h[l])  # (12), right
            self.add_grad(net.biases[l], blame.sum(0))
        return loss.mean()


class SummedBackprop(Backprop):
    """Backprop with the sum over the batch, not the mean."""

    def backward(self, x, y):
        loss = super().backward(x, y)
        for p in self.net.parameters():
            p.grad = len(x) * p.grad
        return loss


def race(name, sizes, lr, seed, dataset="mnist", limit=None, test=False, **training):
    """One contestant in the classroom, as `runs.one_run`: batches of 200, one rate from the first step to the last."""
    contestants = {rule.__name__: rule for rule in (Backprop, SummedBackprop, NodeShaker, WeightShaker)}
    taught = contestants[name.removeprefix("FrozenHidden(").removesuffix(")")](classroom(sizes, seed), seed=seed)
    rule = FrozenHidden(taught) if name.startswith("FrozenHidden(") else taught
    settings = {"batch_size": 200, "momentum": 0.0, "schedule": "constant"} | training
    return run_rule(rule, name, load_dataset(dataset, limit=limit), lr, seed, test=test, **settings)
