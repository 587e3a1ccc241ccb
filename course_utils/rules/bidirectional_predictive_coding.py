# Exported from lessons/17_bidirectional_predictive_coding/lesson.md. Edit the lesson, not this file.

import torch
import torch.nn.functional as F

from course_utils.device import stream_seed
from course_utils.network import MLP
from course_utils.rule import Knob, Rule, above, at_least, whole
from course_utils.rules.predictive_coding import PredictiveCoding


class TwoStreams:
    """A batch between its two streams: the states v, from the image v[0] to the label v[L], (batch, units) each.

    Lists by layer: h, what the streams read of v; up and down, what they predict of v; e = v − up and g = v − down.
    free: for each layer False (clamped), True, or a tensor of v's shape, 1 where the state may move. up, as an argument:
    what is predicted from below, where that is known already. square: what of (6) stays the same in all sweeps.
    """

    e: list
    g: list

    @torch.no_grad()
    def __init__(self, rule, v, free, up=None):
        self.rule, self.net, self.top_down, self.v, self.free = rule, rule.net, rule.top_down, v, free
        self.L, self.offsets = len(v) - 1, rule.net.offsets(v[0])
        self.h = [v[0], *map(self.net.nonlinearity, v[1:-1]), v[-1]]
        V, c = self.top_down.weights[-1], self.top_down.biases[-1]
        self.square = None if free[0] is not False else ((v[0] - c) @ V, V.T @ V)  # for (6)
        self.up, self.down, self.g = (
            up or [None, *map(self.predict_up, range(self.L))],
            [None] * len(v),
            [None] * len(v),
        )
        for l in range(2 if self.square else 1, self.L + 1):
            self.down[l - 1] = self.predict_down(l)
        self.compare(image=not self.square)

    def predict_up(self, l):
        """What layer l makes layer l + 1 expect."""
        return torch.addmm(self.offsets[l], self.h[l], self.net.weights[l].T)  # (1)

    def predict_down(self, l):
        """What layer l makes layer l − 1 expect."""
        return torch.addmm(self.top_down.biases[-l], self.h[l], self.top_down.weights[-l].T)  # (2)

    def compare(self, image=True):
        """The errors of all layers; image: that of the stream from above in the pixels, too."""
        self.e = [None, *(v - up for v, up in zip(self.v[1:-1], self.up[1:-1], strict=True))]
        self.e.append(-self.net.output_error(self.up[-1], self.v[-1]))
        for l in range(0 if image else 1, self.L):
            self.g[l] = self.v[l] - self.down[l]

    @torch.no_grad()
    def energy(self):
        """F (3) of each example, (batch,)."""
        up = sum(e.pow(2).sum(1) for e in self.e[1:-1]) / 2 + self.net.loss(self.up[-1], self.v[-1], reduction="none")
        return self.rule.discriminative * up + self.rule.generative * sum(g.pow(2).sum(1) for g in self.g[:-1]) / 2


class Settling(TwoStreams):
    """Two streams whose free states move down the energy, all at once.

    What a clamped layer predicts is computed once. A clamped image enters a sweep by V_1ᵀV_1 alone (6), so that no
    sweep touches its pixels; its error g[0] is taken anew when all sweeps are done.
    """

    loss: torch.Tensor  # net.loss of the feed-forward pass, from `infer`

    def pull(self, l):
        """Minus the slope of F in v[l]: equation (4)."""
        up, down = self.rule.discriminative, self.rule.generative
        pull = torch.zeros_like(self.v[l])
        if l < self.L:
            pull = torch.addmm(pull, self.e[l + 1], self.net.weights[l], alpha=up)
        if l == 1 and self.square:
            pull = torch.addmm(pull.add_(self.square[0], alpha=down), self.h[1], self.square[1], alpha=-down)  # (6)
        elif l > 0:
            pull = torch.addmm(pull, self.g[l - 1], self.top_down.weights[-l], alpha=down)
        if 0 < l < self.L:
            pull.mul_(self.net.derivative(self.h[l]))
        if l > 0:
            pull.sub_(self.e[l], alpha=up)
        return pull.sub_(self.g[l], alpha=down) if l < self.L else pull

    def sweep(self):
        moving, noise = [l for l, free in enumerate(self.free) if free is not False], self.rule.state_noise
        for l, step in [(l, self.pull(l).mul_(self.rule.inference_rate)) for l in moving]:  # (4)
            if noise:
                step.add_(torch.empty_like(step).normal_(generator=self.rule.generator), alpha=noise)
            self.v[l].add_(step if self.free[l] is True else step.mul_(self.free[l]))
            self.h[l] = self.net.nonlinearity(self.v[l]) if 0 < l < self.L else self.v[l]
        for l in moving:
            if l < self.L:
                self.up[l + 1] = self.predict_up(l)
            if l > 1 or (l == 1 and not self.square):
                self.down[l - 1] = self.predict_down(l)
        self.compare(image=not self.square)

    @torch.no_grad()
    def settle(self, sweeps):
        for _ in range(sweeps):
            self.sweep()
        self.down[0] = self.predict_down(1)
        self.compare()
        return self


def forward(net, x, offsets):
    """The states of a pass in which nothing is missed: [x, a_1, …, output]."""
    v, h = [x], x
    for w, b in zip(net.weights, offsets, strict=True):
        v.append(torch.addmm(b, h, w.T))
        h = net.nonlinearity(v[-1])
    return v


def clamp(net, y):
    """Labels (batch,) or target values (batch, classes) as states of the last layer."""
    net.check_target(net.weights[0].new_empty(len(y), net.sizes[-1]), y)
    return F.one_hot(y, net.sizes[-1]).to(net.weights[0].dtype) if y.dtype == torch.int64 else y.clone()


def fill_in(rule, x, known):
    """The image; in place of unknown pixels, what the generative stream expects of a digit that may be any."""
    if not isinstance(known, torch.Tensor) or known.dtype != torch.bool or known.shape not in (x.shape, x.shape[1:]):
        raise ValueError(
            f"known must be a bool tensor, one for each pixel, of shape {tuple(x.shape)} or {tuple(x.shape[1:])}"
        )
    any_digit = x.new_full((1, rule.net.sizes[-1]), 1 / rule.net.sizes[-1])
    return torch.where(known, x, rule.top_down(any_digit))


class OpenEnds:
    """What two streams can be asked: each method clamps what it is given, and what is left open settles."""

    net: MLP  # these three the rule brings
    top_down: MLP
    inference_steps: Knob
    settling: type[Settling] = Settling

    @torch.no_grad()
    def infer(self, x, y=None, known=None, steps=None):
        """A batch after `steps` sweeps (None: inference_steps), a `Settling`; what is not given is free.

        y: labels or target values to clamp, or None. known: bool mask of the pixels to clamp, or None for all.
        """
        if y is None and self.net.loss_name != "squared_error":
            raise ValueError('a free label needs a network with loss="squared_error", whose outputs are values')
        if known is not None:
            x = fill_in(self, x, known)
        offsets = self.net.offsets(self.net.check_input(x))
        up = forward(self.net, x, offsets)
        v, free = [x, *(a.clone() for a in up[1:])], [False] + [True] * self.net.depth
        if y is not None:
            v[-1], free[-1] = clamp(self.net, y), False
        if known is not None:
            free[0] = (~known).to(x.dtype).expand_as(x)
        s = self.settling(self, v, free, up)
        s.loss = self.net.loss(up[-1], v[-1])
        return s.settle(self.inference_steps if steps is None else steps)

    def complete(self, x, known, steps=None):
        """Images (batch, inputs) whose pixels stay where `known`, a bool mask, is true, and settle elsewhere."""
        return self.infer(x, known=known, steps=steps).v[0]

    @torch.no_grad()
    def generate(self, y, steps=None):
        """An image (batch, inputs) for each label or row of target values: a pass down, then `steps` sweeps."""
        v = forward(self.top_down, clamp(self.net, y), self.top_down.biases)[::-1]
        s = self.settling(self, v, [True] * self.net.depth + [False])
        return s.settle(self.inference_steps if steps is None else steps).v[0]


class BidirectionalPredictiveCoding(OpenEnds, Rule):
    """Bidirectional predictive coding: one stream predicts every state from below, another from above; both are right.

    Source: Oliviers, Tang and Bogacz 2025, arXiv:2505.23415. `net` holds W, `top_down`, a network of its own that runs
    from label to image, holds V. inference_steps T, inference_rate γ, state_noise: as in `PredictiveCoding`.
    discriminative, generative: how much the errors of either stream count, α and β of equation (3).
    `backward` returns net.loss of the feed-forward pass. x (batch, inputs), y (batch,) labels or (batch, outputs) values.
    ValueError for values out of range.
    """

    title = "Bidirectional predictive coding"
    look = ("green", ":")
    lr = 0.001
    plausibility = PredictiveCoding.plausibility | {"cost": "1 forward + T sweeps of two streams"}
    inference_steps = Knob(8, whole(0), slider=(1, 64, "log"), live=True)
    inference_rate = Knob(0.05, above(0), slider=(0.01, 1.0, "log"), live=True)
    state_noise = Knob(0.0, at_least(0), slider=(0.0, 0.5, "linear"), live=True)
    discriminative = Knob(1.0, at_least(0))
    generative = Knob(3e-3, at_least(0), slider=(1e-5, 1.0, "log"), live=True)

    def __init__(self, net, seed=0, **knobs):
        super().__init__(net, seed, **knobs)
        seed, w = stream_seed("feedback", seed), net.weights[0]  # V knows nothing of W
        self.top_down = MLP(net.sizes[::-1], net.activation_name, "squared_error", seed, net.init, w.device).to(w.dtype)

    @torch.no_grad()
    def backward(self, x, y):
        s, n = self.infer(x, y), len(x)
        for l in range(self.net.depth):
            e, g = s.e[l + 1] * (-self.discriminative / n), s.g[l] * (-self.generative / n)
            self.add_grad(self.net.weights[l], e.T @ s.h[l])  # (5)
            self.add_grad(self.net.biases[l], e.sum(0))
            self.add_grad(self.top_down.weights[-l - 1], g.T @ s.h[l + 1])  # (5)
            self.add_grad(self.top_down.biases[-l - 1], g.sum(0))
        return s.loss

    def hidden_parameters(self):
        down = [p for group in (self.top_down.weights, self.top_down.biases) for p in list(group)[1:]]
        return [*super().hidden_parameters(), *down]  # V_L goes with the readout, between the same two layers
