# Exported from lessons/09_kolen_pollack/lesson.md. Edit the lesson, not this file.

import torch
from torch import nn

from course_utils.checks import is_number
from course_utils.doors import only_one_decay
from course_utils.rule import FeedbackWeights, Knob, Rule
from course_utils.rules.feedback_alignment import FeedbackAlignment

SHARE_LOST = "the share lost in a step, at least 0 and below 1", lambda value: is_number(value) and 0 <= value < 1


class KolenPollack(Rule):
    """Kolen–Pollack: W and its feedback B get the same change and lose the same share of themselves at every step.

    Source: Kolen and Pollack 1994, doi:10.1109/ICNN.1994.374486; Akrout and colleagues 2019, equations 16 and 17,
    arXiv:1904.05391. feedback_weights[l] has the shape of net.weights[l], from the same distribution; [0] is None.
    decay: the share λ lost a step, by the weights that have feedback (not W_1, not the biases), whatever the learning
    rate; it may move while training runs. ValueError for a decay below 0 or from 1 on, and for an optimiser whose own
    weight_decay comes on top of it.
    """

    title = "Kolen–Pollack"
    look = ("red", "-.")
    lr = 0.2
    plausibility = FeedbackAlignment.plausibility | {"non_local": "no"}
    decay = Knob(5e-4, SHARE_LOST, slider=(1e-6, 1e-2, "log"), live=True)

    def __init__(self, net, seed=0, **knobs):
        super().__init__(net, seed, **knobs)
        self.feedback_weights = FeedbackWeights([None, *map(nn.Parameter, net.random_feedback(seed)[1:])])

    @torch.no_grad()
    def backward(self, x, y):
        h = self.net.activations(x)  # (1)
        delta = self.net.output_error(h[-1], y) / len(x)  # (1), top
        for l in reversed(range(self.net.depth)):
            gradient = delta.T @ h[l]  # (2)
            self.add_grad(self.net.weights[l], gradient)
            self.add_grad(self.net.biases[l], delta.sum(0))
            if l > 0:
                self.add_grad(self.feedback_weights[l], gradient.clone())  # (3): the same numbers
                delta = (delta @ self.feedback_weights[l]) * self.net.derivative(h[l])  # (1)
        return self.net.loss(h[-1], y)

    def step(self, x, y, optimizer):
        only_one_decay(self, optimizer)
        loss = super().step(x, y, optimizer)
        with torch.no_grad():
            for l in range(1, self.net.depth):
                for w in (self.net.weights[l], self.feedback_weights[l]):
                    w.mul_(1 - self.decay * w.requires_grad)  # (3), but for what is frozen
        return loss

    def hidden_parameters(self):
        return [*super().hidden_parameters(), *list(self.feedback_weights)[1:-1]]  # the last B goes with the readout
