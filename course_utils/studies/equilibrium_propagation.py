# Exported from lessons/18_equilibrium_propagation/lesson.md. Edit the lesson, not this file.

import torch

from course_utils.data import load_dataset
from course_utils.feedback import FeedbackWeights
from course_utils.rules import equilibrium_propagation as equilibrium
from course_utils.runs import make_rule, read_call, run_rule


class Euler(equilibrium.EquilibriumPropagation):
    """A hard-sigmoid network that flows down the energy's slope in steps of `damping`, clamped to [0, 1]."""

    def sweep(self, s, drives, beta=0.0, y=None, damping=1.0):
        new, a = [s[0]], drives[0]
        for l in range(1, self.net.depth):
            pulled = torch.addmm(a, s[l + 1], self.back[l], alpha=self.feedback)
            new.append(torch.lerp(s[l], pulled, damping).clamp(0, 1))
            a = torch.addmm(drives[l], s[l], self.net.weights[l].T)
        pull = a - s[-1] - (beta * self.net.output_error(s[-1], y) if beta else 0.0)
        return [*new, s[-1] + damping * pull]


def race(name, sizes, lr, seed, dataset="mnist", limit=None, test=False, network=None, **training):
    """As `runs.one_run`, also for the classes of this file."""
    kind, knobs = read_call(name)
    rule = make_rule(globals().get(kind, kind), sizes, seed, knobs, **(network or {}))
    return run_rule(rule, name, load_dataset(dataset, limit=limit), lr, seed, test=test, network=network, **training)


class OwnFeedback(equilibrium.EquilibriumPropagation):
    """What comes down comes through weights of its own, random and fixed; the rest is as ever."""

    def __init__(self, net, seed=0, **knobs):
        super().__init__(net, seed, **knobs)
        self.feedback_weights = FeedbackWeights(net.random_feedback(seed))

    @property
    def back(self):
        return self.feedback_weights


class Corrected(OwnFeedback):
    """Nudged states whose deviations d travel through the transposed connections: exact for any feedback weights."""

    @torch.no_grad()
    def backward(self, x, y):
        drives, up, down, gain = self.drives(x), self.net.weights, self.back, self.feedback
        free, heard = self.settle(x, drives=drives), []
        for l in range(1, self.net.depth + 1):  # what each layer receives in the free state
            a = drives[0] if l == 1 else torch.addmm(drives[l - 1], free[l - 1], up[l - 1].T)
            heard.append(a if l == self.net.depth else torch.addmm(a, free[l + 1], down[l], alpha=gain))
        plus, minus = (self.nudged(free, heard, beta, y) for beta in (self.nudge, -self.nudge))
        for l in range(self.net.depth):
            post = (minus[l + 1] - plus[l + 1]) / (2 * self.nudge * len(x))
            self.add_grad(up[l], post.T @ free[l])
            self.add_grad(self.net.biases[l], post.sum(0))
        return self.net.loss(free[-1], y)

    def nudged(self, free, heard, beta, y):
        s, up, down, gain, L = free, self.net.weights, self.back, self.feedback, self.net.depth
        for _ in range(self.nudged_sweeps):
            d = [new - old for new, old in zip(s, free, strict=True)]
            a = [h + (gain * d[l] @ down[l].T if l else 0.0) for l, h in enumerate(heard)]
            goals = [self.net.nonlinearity(a[l - 1] + d[l + 1] @ up[l]) for l in range(1, L)]
            goals.append(self.output(a[-1], s[-1], beta, y))
            s = [s[0], *(torch.lerp(old, new, self.damping) for old, new in zip(s[1:], goals, strict=True))]
        return s
