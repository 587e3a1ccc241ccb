# Exported from lessons/15_predictive_coding/lesson.md. Edit the lesson, not this file.

import torch

from course_utils.rule import Knob, Rule, above, at_least, whole
from course_utils.rules.backpropagation import Backprop


class Settling:
    """A batch while its neurons settle. rule: gives the network, γ, c and the noise. x (batch, inputs), y as ever.

    Lists by layer, (batch, units) each: v, the states, and h = f(v), from the input to the last hidden layer, where
    v[0] = h[0] = x; e, the errors, one more for the output, where e[0] is None. output: the prediction of y. first: that of
    v[1], constant while x and W_1 stand still. back: the weights that errors come down through. offsets: what is added to
    each layer's product, b_l and this step's activity noise, if there is any. loss: net.loss at the start.
    """

    e: list

    @torch.no_grad()
    def __init__(self, rule, x, y):
        self.rule, self.net, self.y, self.back = rule, rule.net, y, rule.net.weights
        self.v, self.e, self.offsets = [self.net.check_input(x)], [None], self.net.offsets(x)
        self.h = self.v[:]
        for w, b in zip(self.net.weights, self.offsets, strict=True):
            self.v.append(torch.addmm(b, self.h[-1], w.T))  # (1), and v = μ: the feed-forward pass
            self.h.append(self.net.nonlinearity(self.v[-1]))
            self.e.append(torch.zeros_like(self.v[-1]))
        self.first, self.output = self.v[1].clone(), self.v.pop()
        self.h.pop()
        self.e[-1] = -rule.output_weight * self.net.output_error(self.output, y)  # (2)
        self.loss = self.net.loss(self.output, y)

    @torch.no_grad()
    def sweep(self):
        """All states take a step (4) at once, then all errors are taken anew."""
        rate, noise = self.rule.inference_rate, self.rule.state_noise
        for l in range(1, self.net.depth):
            pull = self.e[l + 1] @ self.back[l]
            self.v[l].addcmul_(pull, self.net.derivative(self.h[l]), value=rate).sub_(self.e[l], alpha=rate)  # (4)
            if noise:
                self.v[l].add_(torch.empty_like(self.v[l]).normal_(generator=self.rule.generator), alpha=noise)
        self.compare()

    @torch.no_grad()
    def compare(self):
        """The errors of the states as they are, of the weights as they are."""
        for l in range(1, self.net.depth):
            self.h[l] = self.net.nonlinearity(self.v[l])
            if l == 1:
                torch.sub(self.v[1], self.first, out=self.e[1])  # (1)
            else:
                torch.sub(self.v[l], self.offsets[l - 1], out=self.e[l])
                torch.addmm(self.e[l], self.h[l - 1], self.net.weights[l - 1].T, alpha=-1, out=self.e[l])  # (1)
        self.output = torch.addmm(self.offsets[-1], self.h[-1], self.net.weights[-1].T)
        self.e[-1] = -self.rule.output_weight * self.net.output_error(self.output, self.y)  # (2)

    @torch.no_grad()
    def energy(self):
        """F, averaged over the batch, a 0-d tensor."""
        hidden = sum(e.pow(2).sum() for e in self.e[1:-1]) / 2 / len(self.y)
        return hidden + self.rule.output_weight * self.net.loss(self.output, self.y)  # (3)


class PredictiveCoding(Rule):
    """Predictive coding: the neurons settle so that an energy falls, then each synapse lowers what is left of it.

    Sources: Rao and Ballard 1999, doi:10.1038/4580; Whittington and Bogacz 2017, doi:10.1162/NECO_a_00949.
    inference_steps: T sweeps, 0 or more, from the feed-forward pass on; inference_rate: γ, above 0; state_noise: the
    standard deviation of what is added to every state at every sweep. All three may move while training runs.
    output_weight: c, of net.loss in the energy F; `.grad` is ∂F/∂θ / c, an estimate of ∂L/∂θ whatever c is.
    `backward` returns net.loss of the feed-forward pass. ValueError for values out of range.
    """

    title = "Predictive coding"
    look = ("blue", "-.")
    lr = 0.2
    plausibility = Backprop.plausibility | {
        "weight_transport": "yes, to settle", "update_locking": "partly", "non_local": "no", "separate_phases": "partly",
        "global_error": "nothing", "cost": "1 forward + T sweeps",
    }  # fmt: skip
    settling = Settling
    inference_steps = Knob(12, whole(0), slider=(1, 64, "log"), live=True)
    inference_rate = Knob(0.2, above(0), slider=(0.01, 1.0, "log"), live=True)
    state_noise = Knob(0.0, at_least(0), slider=(0.0, 0.5, "linear"), live=True)
    output_weight = Knob(1.0, above(0))

    @torch.no_grad()
    def backward(self, x, y):
        s = self.infer(x, y)
        for l in range(self.net.depth):
            self.teach(s, l)
        return s.loss

    def infer(self, x, y):
        """The batch after `inference_steps` sweeps, a `Settling`."""
        s = self.settling(self, x, y)
        for _ in range(self.inference_steps):
            s.sweep()
        return s

    def teach(self, s, l):
        """Fill `.grad` of net.weights[l] and net.biases[l] from the settled batch."""
        error = s.e[l + 1] / (-self.output_weight * len(s.y))
        self.add_grad(self.net.weights[l], error.T @ s.h[l])  # (5)
        self.add_grad(self.net.biases[l], error.sum(0))


class SettlingAroundForward(Settling):
    """A batch whose predictions and slopes stay those of the feed-forward pass: only the errors e move."""

    @torch.no_grad()
    def sweep(self):
        for l in range(1, self.net.depth):  # upwards: e[l + 1] is still the old one
            told = (self.e[l + 1] @ self.net.weights[l]) * self.net.derivative(self.h[l])
            self.e[l].lerp_(told, self.rule.inference_rate)  # (6)
            if self.rule.state_noise:
                noise = torch.empty_like(self.e[l]).normal_(generator=self.rule.generator)
                self.e[l].add_(noise, alpha=self.rule.state_noise)


class FixedPrediction(PredictiveCoding):
    """Predictive coding whose predictions are held at the feed-forward pass while the errors settle.

    Source: Millidge, Tschantz and Buckley 2020, arXiv:2006.04182; Rosenbaum 2022, arXiv:2106.13082. Arguments as there.
    Each neuron has to keep the activity and slope of the feed-forward pass while its error settles: the card says so.
    """

    title = "Fixed-prediction PC"
    look = ("blue", ":")
    plausibility = PredictiveCoding.plausibility | {"non_local": "partly", "separate_phases": "yes"}
    settling = SettlingAroundForward


class ZIL(PredictiveCoding):
    """Zero-divergence inference learning: γ = 1, and each layer learns at the one sweep at which its error arrives.

    Source: Song, Lukasiewicz, Xu and Bogacz 2020, Can the brain do backpropagation? (NeurIPS 33).
    A clock has to tell each layer when to learn, so its card is not that of `PredictiveCoding`. It has no knobs.
    """

    title = "Z-IL"
    look = ("sky", "-")
    plausibility = PredictiveCoding.plausibility | {
        "update_locking": "yes", "separate_phases": "yes", "cost": "1 forward + L − 1 sweeps",
    }  # fmt: skip
    inference_rate, state_noise, output_weight = 1.0, 0.0, 1.0

    @property
    def inference_steps(self):
        return self.net.depth - 1

    @torch.no_grad()
    def backward(self, x, y):
        s = self.settling(self, x, y)
        for l in reversed(range(self.net.depth)):
            self.teach(s, l)
            if l > 0:
                s.sweep()
        return s.loss
