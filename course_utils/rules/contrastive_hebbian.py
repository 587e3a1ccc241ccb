# Exported from lessons/19_contrastive_hebbian/lesson.md. Edit the lesson, not this file.

import torch
from torch import nn

from course_utils.checks import is_number
from course_utils.doors import only_one_decay
from course_utils.feedback import FeedbackWeights
from course_utils.rule import Knob, Rule, between, one_of, whole
from course_utils.rules.backpropagation import Backprop
from course_utils.rules.equilibrium_propagation import Settling
from course_utils.rules.kolen_pollack import SHARE_LOST

FIRMNESS = "a number above 0, at most 1", lambda value: is_number(value) and 0 < value <= 1
WEAK = Knob(0.03, between(0, 1), slider=(0.0, 1.0, "linear"), live=True)


class ContrastiveHebbian(Settling, Rule):
    """Contrastive Hebbian learning: settle without the answer, settle with it, and contrast the two products.

    Sources: Movellan 1990, doi:10.1016/B978-1-4832-1448-1.50007-X; the factor γ^(l−L): Xie and Seung 2003,
    doi:10.1162/089976603762552988. Settings of `Settling`, and plus_sweeps: of the phase with the answer, which starts
    from the state without, while that goes on for as many; clamp: h, the share of the way to the target that the output
    is held, 1 for all of it. `backward` returns net.loss at the end of the minus phase. ValueError for values out of range.
    """

    title = "Contrastive Hebbian"
    look = ("blue", "-")
    lr = 0.1
    feedback = WEAK
    plus_sweeps = Knob(6, whole(1), slider=(1, 40, "linear"), live=True)
    clamp = Knob(1.0, FIRMNESS, slider=(0.01, 1.0, "log"), live=True)
    plausibility = {
        "weight_transport": "yes, to settle",
        "update_locking": "partly",
        "non_local": "no",
        "separate_phases": "yes",
        "global_error": "nothing",
        "signed_error": "no",
        "needs_derivative": "no",
        "cost": "1 forward + the sweeps of two phases",
    }

    def output(self, a, s, beta, y):
        """Where the output is pulled by its input a; beta: h, 0 without an answer, 1 for the answer alone."""
        return a - beta * self.net.output_error(a, y) if beta else a  # (2)

    def phases(self, x, y):
        """The states without the answer and those with it, of the same age: what is not settled yet is so in both."""
        drives = self.drives(x)
        free = self.settle(x, drives=drives)
        told = [*free[:-1], self.output(free[-1], None, self.clamp, y)]
        minus = self.settle(x, free, self.plus_sweeps, drives=drives)
        return minus, self.settle(x, told, self.plus_sweeps, self.clamp, y, drives)

    @torch.no_grad()
    def backward(self, x, y):
        minus, plus = self.phases(x, y)
        self.contrast(plus, minus, self.clamp)  # (3)
        return self.net.loss(minus[-1], y)


class GeneRec(ContrastiveHebbian):
    """GeneRec: the sender's activity without the answer, times what the answer changes in the receiver.

    Source: O'Reilly 1996, doi:10.1162/neco.1996.8.5.895. feedback_weights[l], of the shape of net.weights[l], brings s_l
    down; a Parameter, drawn from the same distribution; [0] is None. Settings of `ContrastiveHebbian`, and
    symmetric: both synapses of a pair take the sum of their two changes; midpoint: the sender's activity is the mean of
    both phases; decay: the share that both lose at each step (not W_1, not the biases). ValueError for a decay when the
    optimiser has a weight_decay of its own.
    """

    title = "GeneRec"
    look = ("purple", "-")
    plausibility = ContrastiveHebbian.plausibility | {"weight_transport": "no"}
    symmetric = Knob(False, one_of(True, False))
    midpoint = Knob(False, one_of(True, False))
    decay = Knob(0.0, SHARE_LOST, slider=(0.0, 0.01, "linear"), live=True)

    def __init__(self, net, seed=0, **knobs):
        super().__init__(net, seed, **knobs)
        self.feedback_weights = FeedbackWeights([None, *map(nn.Parameter, net.random_feedback(seed)[1:])])

    @property
    def back(self):
        return self.feedback_weights

    def contrast(self, plus, minus, width):
        moved = [m - p for m, p in zip(minus, plus, strict=True)]
        sent = [(m + p) / 2 for m, p in zip(minus, plus, strict=True)] if self.midpoint else minus
        for l in range(self.net.depth):
            share = self.gain(l + 1) / (width * len(plus[0]))
            up = share * moved[l + 1].T @ sent[l]  # (4)
            if l > 0:
                down = share * sent[l + 1].T @ moved[l]  # (5)
                up, down = (up + down, up + down) if self.symmetric else (up, down)
                self.add_grad(self.feedback_weights[l], down)
            self.add_grad(self.net.weights[l], up)
            self.add_grad(self.net.biases[l], share * moved[l + 1].sum(0))

    def step(self, x, y, optimizer):
        only_one_decay(self, optimizer)
        loss = super().step(x, y, optimizer)
        with torch.no_grad():
            for l in range(1, self.net.depth):
                for w in (self.net.weights[l], self.feedback_weights[l]):
                    w.mul_(1 - self.decay * w.requires_grad)  # but for what is frozen
        return loss

    def hidden_parameters(self):
        return [*super().hidden_parameters(), *list(self.feedback_weights)[1:]]  # else the features would go on moving


class AlmeidaPineda(Settling, Rule):
    """Almeida–Pineda, or recurrent backprop: a second, linear network settles, and holds the exact errors at rest.

    Sources: Almeida 1987; Pineda 1987, doi:10.1103/PhysRevLett.59.2229. Settings of `Settling`, and error_sweeps: of the
    linear network, which starts from one backward pass. `backward` returns net.loss at the end of the settling.
    """

    title = "Almeida–Pineda"
    look = ("sky", "-.")
    lr = 0.1
    feedback = WEAK
    error_sweeps = Knob(6, whole(0), slider=(0, 40, "linear"), live=True)
    plausibility = Backprop.plausibility | {"cost": "1 forward + free sweeps + 1 backward + error sweeps"}

    def settle_errors(self, s, drives, y):
        """[None, z_1, …, z_L], (batch, units) each: what each unit's input is worth to the loss."""
        e, W, L = self.net.output_error(s[-1], y) / len(y), self.net.weights, self.net.depth
        slope = [None, *map(self.net.derivative, self.sweep(s, drives)[1:-1]), 1]  # f′ at the drives: states may lag
        z = [*[None] * L, e]
        for l in reversed(range(1, L)):
            z[l] = (z[l + 1] @ W[l]) * slope[l]
        for _ in range(self.error_sweeps):
            pull = [None, *(z[l + 1] @ W[l] for l in range(1, L)), e]
            for l in range(2, L + 1):
                pull[l] = torch.addmm(pull[l], z[l - 1], self.back[l - 1].T, alpha=self.feedback)
            moves = zip(z[1:], pull[1:], slope[1:], strict=True)
            z = [None, *(torch.lerp(old, new * f, self.damping) for old, new, f in moves)]  # (6)
        return z

    @torch.no_grad()
    def backward(self, x, y):
        drives = self.drives(x)
        s = self.settle(x, drives=drives)
        z = self.settle_errors(s, drives, y)
        for l in range(self.net.depth):
            gradient = z[l + 1].T @ s[l]  # (7)
            if l > 0 and self.back[l] is self.net.weights[l]:
                gradient.addmm_(s[l + 1].T, z[l], alpha=self.feedback)  # (7): W brings activity down, too
            self.add_grad(self.net.weights[l], gradient)
            self.add_grad(self.net.biases[l], z[l + 1].sum(0))
        return self.net.loss(s[-1], y)
