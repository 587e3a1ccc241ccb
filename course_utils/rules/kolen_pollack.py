# Exported from lessons/09_kolen_pollack/lesson.md. Edit the lesson, not this file.

import torch
from torch import nn

from course_utils.rule import FeedbackWeights, Rule
from course_utils.rules.feedback_alignment import FeedbackAlignment


class KolenPollack(Rule):
    """Kolen–Pollack: W and its feedback B get the same change and lose the same share of themselves at every step.

    Source: Kolen and Pollack 1994, doi:10.1109/ICNN.1994.374486; Akrout and colleagues 2019, equations 16 and 17,
    arXiv:1904.05391. feedback_weights[l] has the shape of net.weights[l], from the same distribution; [0] is None.
    decay: the share λ lost a step, by the weights that have feedback (not W_1, not the biases), whatever the learning
    rate; it may move while training runs. The optimiser's own weight_decay must be 0. ValueError for a decay below 0
    or from 1 on.
    """

    title = "Kolen–Pollack"
    lr = 0.2
    knobs = {"decay": (1e-6, 1e-2, "log")}
    live_knobs = ("decay",)
    plausibility = FeedbackAlignment.plausibility | {"non_local": "no"}

    def __init__(self, net, seed=0, decay=5e-4):
        super().__init__(net, seed)
        self.decay = decay
        random = net.draw_weights(seed + 1_000_003)  # no seed a network would have: B must know nothing of W
        self.feedback_weights = FeedbackWeights([None, *map(nn.Parameter, random[1:])])

    @property
    def decay(self):
        return self._decay

    @decay.setter
    def decay(self, value):
        if not 0 <= value < 1:
            raise ValueError(f"decay is {value}; it is the share lost in a step and must be at least 0 and below 1")
        self._decay = value

    @torch.no_grad()
    def backward(self, x, y):
        h = self.net.activations(x)  # (1)
        delta = self.net.output_error(h[-1], y) / len(x)  # (1), top
        for l in reversed(range(self.net.depth)):
            gradient = delta.T @ h[l]  # (2)
            self.add_grad(self.net.weights[l], gradient)
            self.add_grad(self.net.biases[l], delta.sum(0))
            if l > 0:
                self.add_grad(self.feedback_weights[l], gradient)  # (3): the same one
                delta = (delta @ self.feedback_weights[l]) * self.net.derivative(h[l])  # (1)
        return self.net.loss(h[-1], y)

    def step(self, x, y, optimizer):
        loss = super().step(x, y, optimizer)
        with torch.no_grad():
            for l in range(1, self.net.depth):
                for w in (self.net.weights[l], self.feedback_weights[l]):
                    w.mul_(1 - self.decay)  # (3)
        return loss
