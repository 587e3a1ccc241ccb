# Exported from lessons/16_incremental_predictive_coding/lesson.md. Edit the lesson, not this file.

import torch
from torch import nn

from course_utils.doors import only_one_decay
from course_utils.rule import FeedbackWeights, Knob, above, whole
from course_utils.rules.kolen_pollack import SHARE_LOST
from course_utils.rules.predictive_coding import PredictiveCoding, Settling


class KnobByLayer(Knob):
    """A knob that is one number for all hidden layers, or a list of one for each; allowed: of each number."""

    def __set__(self, rule, value):
        if not isinstance(value, (list, tuple)):
            return super().__set__(rule, value)
        hidden = rule.net.depth - 1
        if len(value) != hidden:
            words = f"{self.allowed[0]}, or a list of one for each hidden layer ({hidden})"
            raise ValueError(f"{self.name} is {value!r}; it must be {words}")
        rule.__dict__[self.name] = [self.check(v) for v in value]


class SettlingWhileLearning(Settling):
    """A batch whose weights move while its neurons settle. e holds the errors times their precision, ξ = Π ε."""

    e: list

    @torch.no_grad()
    def compare(self):
        super().compare()
        for error, precision in zip(self.e[1:-1], self.rule.precisions, strict=True):
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
        hidden = sum(e.pow(2).sum() / p for e, p in zip(self.e[1:-1], self.rule.precisions, strict=True))
        return hidden / 2 / len(self.y) + self.rule.output_weight * self.net.loss(self.output, self.y)  # (1)


class IncrementalPredictiveCoding(PredictiveCoding):
    """Incremental predictive coding: synapses move while neurons settle, by default at every sweep.

    Source: Salvatori and colleagues 2024, arXiv:2212.00720. Arguments as in `PredictiveCoding`, and
    wait: sweeps before each move of the weights; from inference_steps on it is `PredictiveCoding`.
    precision: Π of the hidden layers, one number above 0 for all or a list of one each; the output's is output_weight.
    `step` calls the optimiser ⌈inference_steps / wait⌉ times; `backward` gives the estimate of the first of them.
    An error comes down one layer a sweep: what no error has reached yet gets a gradient of 0.
    """

    title = "Incremental predictive coding"
    look = ("orange", "--")
    lr = 0.01
    plausibility = PredictiveCoding.plausibility | {"update_locking": "no"}
    settling = SettlingWhileLearning
    inference_steps = Knob(8, whole(1), slider=(1, 32, "log"), live=True)
    wait = Knob(1, whole(1), slider=(1, 32, "log"), live=True)
    precision = KnobByLayer(1.0, above(0))

    @property
    def precisions(self):
        """Π of each hidden layer, a list."""
        return self.precision if isinstance(self.precision, list) else [self.precision] * (self.net.depth - 1)

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

    Source of how they learn: Kolen and Pollack 1994, doi:10.1109/ICNN.1994.374486; feedback that learns in predictive
    coding: Millidge and colleagues 2020, arXiv:2010.01047. feedback_weights[l] has the shape of
    net.weights[l], from the same distribution; [0] is None. decay: the share λ that both lose at each move of the weights;
    ValueError for an optimiser whose own weight_decay comes on top of it. Other arguments as in `IncrementalPredictiveCoding`.
    """

    title = "Incremental PC, learned feedback"
    look = ("red", "long dashes")
    plausibility = IncrementalPredictiveCoding.plausibility | {"weight_transport": "no"}
    settling = SettlingByFeedback
    decay = Knob(3e-4, SHARE_LOST, slider=(1e-6, 1e-2, "log"), live=True)

    def __init__(self, net, seed=0, **knobs):
        super().__init__(net, seed, **knobs)
        self.feedback_weights = FeedbackWeights([None, *map(nn.Parameter, net.random_feedback(seed)[1:])])

    def teach(self, s, l):
        super().teach(s, l)
        w, b = self.net.weights[l], self.feedback_weights[l]
        if l > 0 and b.requires_grad and w.grad is not None:
            b.grad = w.grad.clone()  # (6): the same numbers

    def move(self, optimizer):
        only_one_decay(self, optimizer)
        super().move(optimizer)
        for l in range(1, self.net.depth):
            for w in (self.net.weights[l], self.feedback_weights[l]):
                w.mul_(1 - self.decay * w.requires_grad)  # (6), but for what is frozen

    def hidden_parameters(self):
        return [*super().hidden_parameters(), *list(self.feedback_weights)[1:-1]]  # the last B goes with the readout
