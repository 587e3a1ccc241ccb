# Exported from lessons/01_backpropagation/lesson.md. Edit the lesson, not this file.

import math

import torch

from course_utils.rule import FeedbackWeights, Knob, Rule, between, one_of


class Backprop(Rule):
    """Backpropagation, by hand: the error goes back through the transposed forward weights.

    Source: Rumelhart, Hinton and Williams 1986, equations 4 to 7, doi:10.1038/323533a0.
    x (batch, inputs), y (batch,) labels or (batch, outputs) targets. ValueError for input of any other kind.
    """

    title = "Backprop"
    look = ("black", "-")
    lr = 0.1
    plausibility = {
        "weight_transport": "yes",
        "update_locking": "yes",
        "non_local": "yes",
        "separate_phases": "yes",
        "global_error": "vector",
        "signed_error": "yes",
        "needs_derivative": "yes",
        "cost": "1 forward + 1 backward",
    }

    @torch.no_grad()
    def backward(self, x, y):
        h = self.net.activations(x)  # (1)
        delta = self.net.output_error(h[-1], y) / len(x)  # (3a)
        for l in reversed(range(self.net.depth)):
            self.add_grad(self.net.weights[l], delta.T @ h[l])  # (2a)
            self.add_grad(self.net.biases[l], delta.sum(0))  # (2b)
            if l > 0:
                delta = (delta @ self.net.weights[l]) * self.net.derivative(h[l])  # (3b)
        return self.net.loss(h[-1], y)


class TiltedFeedback(Rule):
    """Backprop through B, which is W turned by feedback_angle degrees towards a random matrix.

    A measuring instrument, not a proposal: B is made from the current W, so that the angle is exact at every step.
    redraw False: one random matrix of each weight's shape, drawn at the start; True: a fresh one at every backward.
    feedback_angle may move while training runs. ValueError for an angle outside [0, 180] and for a hidden layer
    that sends on a single number, where there is no second direction.
    """

    title = "Tilted feedback"
    look = ("sky", "long dashes")
    lr = 0.03
    plausibility = Backprop.plausibility
    feedback_angle = Knob(0.0, between(0, 180), slider=(0.0, 120.0, "linear"), live=True)
    redraw = Knob(False, one_of(False, True))

    def __init__(self, net, seed=0, **knobs):
        super().__init__(net, seed, **knobs)
        if any(w.numel() < 2 for w in list(net.weights)[1:]):
            raise ValueError(f"sizes is {net.sizes}; a weight that is one number cannot be tilted: use wider layers")
        self.directions = FeedbackWeights(net.random_feedback(seed))  # D, which knows nothing of W

    @torch.no_grad()
    def feedback(self, l):
        """B for layer l, of the shape of net.weights[l], made from what the weights are now."""
        w, d = self.net.weights[l], self.directions[l]
        if self.redraw:
            d = torch.randn(w.shape, generator=self.generator, device=w.device, dtype=w.dtype)
        r = d - (d * w).sum() / (w * w).sum().clamp(min=1e-30) * w  # (5)
        theta = math.radians(self.feedback_angle)
        return math.cos(theta) * w + math.sin(theta) * w.norm() / r.norm() * r  # (4)

    @torch.no_grad()
    def backward(self, x, y):
        h = self.net.activations(x)  # (1)
        delta = self.net.output_error(h[-1], y) / len(x)  # (3a)
        for l in reversed(range(self.net.depth)):
            self.add_grad(self.net.weights[l], delta.T @ h[l])  # (2a)
            self.add_grad(self.net.biases[l], delta.sum(0))  # (2b)
            if l > 0:
                delta = (delta @ self.feedback(l)) * self.net.derivative(h[l])  # (3b), with B for W
        return self.net.loss(h[-1], y)
