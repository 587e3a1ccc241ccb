# Exported from lessons/16_incremental_predictive_coding/lesson.md. Edit the lesson, not this file.

import torch
from torch import nn

from course_utils.checks import is_number
from course_utils.rule import FeedbackWeights
from course_utils.rules.predictive_coding import Checked, PredictiveCoding, Settling


class SettlingWhileLearning(Settling):
    """A batch whose weights move while its neurons settle. e holds the errors times their precision, ξ = Π ε."""

    e: list

    @torch.no_grad()
    def compare(self):
        super().compare()
        for error, precision in zip(self.e[1:-1], self.rule.precision, strict=True):
            error.mul_(precision)  # (2)

    @torch.no_grad()
    def renew(self):
        """The errors of the states as they are, after the weights have moved."""
        self.offsets = self.net.offsets(self.v[0])
        torch.addmm(self.offsets[0], self.v[0], self.net.weights[0].T, out=self.first)  # constant only while W_1 is
        self.compare()

    @torch.no_grad()
    def energy(self):
        """F with the precisions in it, averaged over the batch, a 0-d tensor."""
        hidden = sum(e.pow(2).sum() / p for e, p in zip(self.e[1:-1], self.rule.precision, strict=True))
        return hidden / 2 / len(self.y) + self.rule.output_weight * self.net.loss(self.output, self.y)  # (1)


class CheckedByLayer(Checked):
    """An attribute of one number for each hidden layer; a single number stands for all of them."""

    def __set__(self, rule, value):
        hidden = rule.net.depth - 1
        values = list(value) if isinstance(value, (list, tuple)) else [value] * hidden
        if len(values) != hidden or not all(is_number(v) and self.good(v) for v in values):
            raise ValueError(f"{self.name} is {value!r}; it must be {self.words} ({hidden})")
        rule.__dict__[f"_{self.name}"] = values


class IncrementalPredictiveCoding(PredictiveCoding):
    """Incremental predictive coding: synapses move while neurons settle, by default at every sweep.

    Source: Salvatori and colleagues 2024, arXiv:2212.00720. Arguments as in `PredictiveCoding`, and
    wait: sweeps before each move of the weights; from inference_steps on it is `PredictiveCoding`.
    precision: Π of the hidden layers, one number above 0 for all or a list of one each; the output's is output_weight.
    `step` calls the optimiser ⌈inference_steps / wait⌉ times; `backward` gives the estimate of the first of them.
    An error comes down one layer a sweep: what no error has reached yet gets a gradient of 0.
    """

    title = "Incremental predictive coding"
    lr = 0.01
    knobs = PredictiveCoding.knobs | {"inference_steps": (1, 32, "log"), "wait": (1, 32, "log")}
    live_knobs = tuple(knobs)
    plausibility = PredictiveCoding.plausibility | {"update_locking": "no"}
    settling = SettlingWhileLearning
    inference_steps = Checked("a whole number, 1 or larger", lambda value: isinstance(value, int) and value >= 1)
    wait = Checked("a whole number, 1 or larger", lambda value: isinstance(value, int) and value >= 1)
    precision = CheckedByLayer("a number above 0, or a list of one for each hidden layer", lambda value: value > 0)

    def __init__(
        self, net, seed=0, inference_steps=8, inference_rate=0.2, state_noise=0.0, output_weight=1.0, wait=1, precision=1.0
    ):  # fmt: skip
        super().__init__(net, seed, inference_steps, inference_rate, state_noise, output_weight)
        self.wait, self.precision = wait, precision

    @torch.no_grad()
    def backward(self, x, y):
        s = self.settling(self, x, y)
        self.sweep_and_teach(s, 0)
        return s.loss

    @torch.no_grad()
    def step(self, x, y, optimizer):
        s = self.settling(self, x, y)
        for done in range(0, self.inference_steps, self.wait):
            if done > 0:
                s.renew()
            optimizer.zero_grad(set_to_none=True)
            self.sweep_and_teach(s, done)
            self.move(optimizer)
        return s.loss

    def sweep_and_teach(self, s, done):
        """Sweeps up to the next move, and its `.grad`."""
        for _ in range(done, min(done + self.wait, self.inference_steps)):
            s.sweep()  # (3)
        for l in range(self.net.depth):
            self.teach(s, l)  # (4)

    def move(self, optimizer):
        optimizer.step()


class SettlingByFeedback(SettlingWhileLearning):
    """As there, but errors come down through feedback weights."""

    def __init__(self, rule, x, y):
        super().__init__(rule, x, y)
        self.back = rule.feedback_weights


class LearnedFeedbackPC(IncrementalPredictiveCoding):
    """Incremental predictive coding without weight transport: errors come down through weights that learn as W does.

    Source of how they learn: Kolen and Pollack 1994, doi:10.1109/ICNN.1994.374486. feedback_weights[l] has the shape of
    net.weights[l], from the same distribution; [0] is None. decay: the share λ that both lose at each move of the weights;
    the optimiser's own weight_decay must be 0. Other arguments as in `IncrementalPredictiveCoding`.
    """

    title = "Incremental PC, learned feedback"
    knobs = IncrementalPredictiveCoding.knobs | {"decay": (1e-6, 1e-2, "log")}
    live_knobs = tuple(knobs)
    plausibility = IncrementalPredictiveCoding.plausibility | {"weight_transport": "no"}
    settling = SettlingByFeedback
    decay = Checked("the share lost in a move, at least 0 and below 1", lambda value: 0 <= value < 1)

    def __init__(
        self, net, seed=0, inference_steps=8, inference_rate=0.2, state_noise=0.0, output_weight=1.0, wait=1,
        precision=1.0, decay=3e-4,
    ):  # fmt: skip
        super().__init__(net, seed, inference_steps, inference_rate, state_noise, output_weight, wait, precision)
        self.decay = decay
        random = net.draw_weights(seed + 1_000_003)  # no seed a network would have: B must know nothing of W
        self.feedback_weights = FeedbackWeights([None, *map(nn.Parameter, random[1:])])

    def teach(self, s, l):
        super().teach(s, l)
        if l > 0:
            self.feedback_weights[l].grad = self.net.weights[l].grad  # (5)

    def move(self, optimizer):
        super().move(optimizer)
        for l in range(1, self.net.depth):
            for w in (self.net.weights[l], self.feedback_weights[l]):
                w.mul_(1 - self.decay)  # (5)
