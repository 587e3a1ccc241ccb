# Exported from lessons/20_target_propagation/lesson.md. Edit the lesson, not this file.

from typing import Any

import torch
from torch import nn

from course_utils.rule import FeedbackWeights, Knob, Rule, above


class Inverses:
    """The feedback half of a rule: layers that run backwards, h → f(h B + c), and learn to reconstruct.

    feedback_weights[l], B, has the shape of net.weights[l] and is drawn from the same distribution; feedback_biases[l],
    c, has that of net.biases[l - 1]. Both are parameters for the l in `inverted`, None for the others.
    jitter: standard deviation s of the noise from which they learn. feedback_rate: their learning rate, as a multiple of
    the network's.
    """

    # What the rule brings:
    net: Any
    seed: int
    generator: torch.Generator
    add_grad: Any
    feedback_weights: FeedbackWeights
    feedback_biases: FeedbackWeights
    jitter = Knob(0.1, above(0), slider=(0.001, 3.0, "log"), live=True)
    feedback_rate = Knob(1.0, above(0), slider=(0.01, 30.0, "log"))

    def make_feedback(self):
        weights, biases = self.net.random_feedback(self.seed), [torch.zeros_like(b) for b in self.net.biases]
        layers = [l if l in self.inverted else None for l in range(self.net.depth)]
        self.feedback_weights = FeedbackWeights([l and nn.Parameter(weights[l]) for l in layers])
        self.feedback_biases = FeedbackWeights([l and nn.Parameter(biases[l - 1]) for l in layers])

    @property
    def inverted(self):
        """The l whose net.weights[l] has something that runs back beside it: all but the first layer and the readout."""
        return range(1, self.net.depth - 1)

    def inverse(self, l, h):
        """What layer l is taken to be, (batch, units), where the layer above is h."""
        return self.net.nonlinearity(torch.addmm(self.feedback_biases[l], h, self.feedback_weights[l]))  # (4)

    def forth(self, l, h, offset):
        """Layer l + 1, (batch, units), where layer l is h."""
        a = h @ self.net.weights[l].T + offset
        return a if l == self.net.depth - 1 else self.net.nonlinearity(a)

    def jittered(self, h):
        """Noise for h, of its shape."""
        return self.jitter * torch.randn(h.shape, generator=self.generator, device=h.device, dtype=h.dtype)

    def teach_inverse(self, l, h, offset):
        """Fill `.grad` of B and c: from what layer l + 1 makes of a jittered layer l, reconstruct that."""
        noisy = h[l] + self.jittered(h[l])
        up = self.forth(l, noisy, offset)
        back = self.inverse(l, up)
        self.add_feedback_grad(l, up, back, (back - noisy) / noisy.numel())  # (8)

    def add_feedback_grad(self, l, given, back, slope):
        """The gradient of B and c, where the loss has this slope with respect to what the inverse made of `given`."""
        error = slope * self.net.derivative(back)
        self.add_grad(self.feedback_weights[l], given.T @ error)
        self.add_grad(self.feedback_biases[l], error.sum(0))

    def feedback_parameters(self):
        return [p for p in [*self.feedback_weights, *self.feedback_biases] if p is not None]


class DifferenceTargetPropagation(Inverses, Rule):
    """Difference target propagation: a target for each hidden layer, made from the one above by a learned inverse.

    Source: Lee, Zhang, Fischer and Bengio 2015, arXiv:1412.7525. The last hidden layer's target is a step of gradient
    descent, through the readout's own weights. With one hidden layer nothing is left to invert: that is backprop.
    target_step: how far down the gradient the topmost targets are (η̂); jitter and feedback_rate: of `Inverses`.
    `.grad` is held against the gradient of net.loss, although no more is promised than that it points downhill.
    """

    title = "Difference target propagation"
    look = ("green", "dash dot")
    lr = 0.1
    target_step = Knob(0.1, above(0), slider=(0.001, 10.0, "log"), live=True)
    plausibility = {
        "weight_transport": "yes", "update_locking": "yes", "non_local": "no", "separate_phases": "yes",
        "global_error": "nothing", "signed_error": "no", "needs_derivative": "yes",
        "cost": "1 forward + 2 backward + 1 there and back",
    }  # fmt: skip

    def __init__(self, net, seed=0, **knobs):
        super().__init__(net, seed, **knobs)
        self.make_feedback()

    @torch.no_grad()
    def backward(self, x, y):
        net, h = self.net, self.net.activations(x)  # (1)
        shifts = self.shifts(h, net.output_error(h[-1], y))
        for l in range(net.depth):
            slope = 1 if l == net.depth - 1 else net.derivative(h[l + 1])
            error = -shifts[l + 1] / self.target_step * slope
            self.add_grad(net.weights[l], error.T @ h[l] / len(x))  # (2)
            self.add_grad(net.biases[l], error.mean(0))  # (2)
        offsets = net.offsets(x)
        for l in self.inverted:
            self.teach_inverse(l, h, offsets[l])
        return net.loss(h[-1], y)

    def shifts(self, h, e):
        """From each layer to its target, [None, t_1 − h_1, …, t_L − h_L], each (batch, units)."""
        found = [-self.target_step * e]  # (3)
        for l in reversed(range(1, self.net.depth)):
            found.insert(0, self.shift(l, h, found[0]))
        return [None, *found]

    def shift(self, l, h, wish):
        """From layer l to its target, (batch, units), given that of the layer above, (batch, units above)."""
        if l not in self.inverted:
            return wish @ self.net.weights[l]  # (3)
        return self.inverse(l, h[l + 1] + wish) - self.inverse(l, h[l + 1])  # (6)

    def hidden_parameters(self):
        return [*super().hidden_parameters(), *self.feedback_parameters()]

    def parameter_groups(self, lr):
        own = {"params": self.feedback_parameters(), "lr": lr * self.feedback_rate}
        return [{"params": list(self.net.parameters()), "lr": lr}, own]


class LocalDRL(DifferenceTargetPropagation):
    """Local difference reconstruction learning (L-DRL): the same targets, from feedback that learns to transpose.

    Source: Ernoult, Normandin, Moudgil, Spinney, Belilovsky, Rish, Richards and Bengio 2022, arXiv:2201.13415. Every
    layer but the first has feedback of its own, the readout too, so that no synapse reads another one's weight.
    """

    title = "Local difference reconstruction"
    look = ("blue", "long dashes")
    feedback_rate = Knob(3.0, above(0), slider=(0.01, 30.0, "log"))
    plausibility = DifferenceTargetPropagation.plausibility | {
        "weight_transport": "no",
        "cost": "1 forward + 2 backward + 3 there and back",
    }

    @property
    def inverted(self):
        """As there, with the readout."""
        return range(1, self.net.depth)

    def teach_inverse(self, l, h, offset):
        """Fill `.grad` of B and c: layer l shall answer layer l + 1 as layer l + 1 answers layer l, transposed."""
        xi, zeta = self.jittered(h[l]), self.jittered(h[l + 1])
        given = torch.cat([self.forth(l, h[l] + xi, offset), h[l + 1] + zeta, h[l + 1]])
        back = self.inverse(l, given)
        _, shaken, still = back.chunk(3)
        slope = torch.cat([-xi, shaken - still, xi - (shaken - still)])  # (9)
        self.add_feedback_grad(l, given, back, slope / (self.jitter**2 * xi.numel()))
