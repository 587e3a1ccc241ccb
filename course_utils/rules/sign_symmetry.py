# Exported from lessons/08_sign_symmetry/lesson.md. Edit the lesson, not this file.

import math

import torch

from course_utils.checks import check_name
from course_utils.rule import FeedbackWeights, Rule
from course_utils.rules.feedback_alignment import FeedbackAlignment

MAGNITUDES = ("uniform", "fixed_magnitude", "batch_magnitude")

def first_buffers(net, seed, magnitude):
    """Magnitudes and thresholds of a rule that begins: two lists like net.weights, with [0] None."""
    drawn = net.draw_weights(seed + 1_000_003)[1:]  # no seed a network would have: B knows nothing of W's sizes
    generator = torch.Generator().manual_seed(seed + 1_000_003)
    thresholds = [torch.rand(b.shape, generator=generator).to(b) for b in drawn]
    if magnitude != "fixed_magnitude":
        gain = 2.0 if net.activation_name == "relu" else 1.0
        drawn = [torch.full_like(b, math.sqrt(gain / b.shape[1])) for b in drawn]  # s: W's first standard deviation
    return [None, *(b.abs() for b in drawn)], [None, *thresholds]

def unit_magnitudes(w, init, generator):
    """|ξ| of w's shape, ξ of variance 1 from the distribution that W began with, "gaussian" or "uniform"."""
    like = {"generator": generator, "device": w.device, "dtype": w.dtype}
    return math.sqrt(3) * torch.rand(w.shape, **like) if init == "uniform" else torch.randn(w.shape, **like).abs()

class SignSymmetry(Rule):
    """Sign symmetry: the error goes back through weights that share nothing with W but the sign, one bit each.

    Source: Liao, Leibo and Poggio 2016, arXiv:1510.05067.
    magnitude: the sizes of the feedback weights. "uniform": all s, the standard deviation that W began with;
    "fixed_magnitude": those of another draw from W's first distribution; "batch_magnitude": a new draw at every
    backward. flipped: the share of signs that arrive wrong; may move while training runs, and who is wrong at 0.1
    is wrong at 0.2, too. The sign is that of W now, at each backward; 0 counts as positive.
    To edit, shaped like net.weights[l], with [0] None: magnitudes[l]; thresholds[l], the share above which a sign
    arrives wrong. feedback_weights, what the next backward will use, is worked out from them at each look.
    ValueError for an unknown magnitude and for a share outside 0 … 1.
    """

    title = "Sign symmetry"
    lr = 0.2
    knobs = {"flipped": (0.0, 1.0, "linear")}
    live_knobs = ("flipped",)
    plausibility = FeedbackAlignment.plausibility | {"weight_transport": "1 bit a weight"}

    def __init__(self, net, seed=0, magnitude="uniform", flipped=0.0):
        super().__init__(net, seed)
        check_name("magnitude", magnitude, MAGNITUDES)
        self.magnitude, self.flipped = magnitude, flipped
        self.magnitudes, self.thresholds = map(FeedbackWeights, first_buffers(net, seed, magnitude))

    @property
    def flipped(self):
        return self._flipped

    @flipped.setter
    def flipped(self, value):
        if not 0 <= value <= 1:
            raise ValueError(f"flipped is {value}; it is the share of signs that arrive wrong, from 0 to 1")
        self._flipped = value

    @torch.no_grad()
    def draw_feedback(self, generator):
        drawn: list = [None]
        for w, m, threshold in list(zip(self.net.weights, self.magnitudes, self.thresholds, strict=True))[1:]:
            if self.magnitude == "batch_magnitude":
                m = m * unit_magnitudes(w, self.net.init, generator)  # (3)
            drawn.append(torch.copysign(m, torch.where(threshold < self.flipped, -w, w)))  # (2), (6): m, signed
        return tuple(drawn)

    @property
    def feedback_weights(self):
        return self.draw_feedback(self.generator.clone_state())  # a look leaves the generator where it is

    @torch.no_grad()
    def backward(self, x, y):
        h, feedback = self.net.activations(x), self.draw_feedback(self.generator)
        delta = self.net.output_error(h[-1], y) / len(x)  # (1), top
        for l in reversed(range(self.net.depth)):
            self.add_grad(self.net.weights[l], delta.T @ h[l])  # (1)
            self.add_grad(self.net.biases[l], delta.sum(0))  # (1)
            if l > 0:
                delta = (delta @ feedback[l]) * self.net.derivative(h[l])  # (1)
        return self.net.loss(h[-1], y)
