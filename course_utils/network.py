"""The multilayer perceptron that every rule of the course trains.

The maths and the code count layers alike but for one: net.weights[l] is W_{l+1}, from h_l to h_{l+1}.
    h_0 = x,   a_l = h_{l-1} W_lᵀ + b_l,   h_l = f(a_l),   output = a_L  (no f on the last layer)
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from course_utils.checks import (
    check_finite,
    check_first,
    check_gains,
    check_labels,
    check_name,
    check_noise,
    check_seed,
    check_sizes,
)
from course_utils.device import current_device

# name: f, and f′ written in h = f(a), because h is what a neuron has at hand
ACTIVATIONS = {
    "relu": (torch.relu, lambda h: torch.sign(h).clamp_(min=0)),  # faster than (h > 0).to(h.dtype)
    "tanh": (torch.tanh, lambda h: 1 - h * h),
    "sigmoid": (torch.sigmoid, lambda h: h * (1 - h)),
    "linear": (lambda a: a, torch.ones_like),
}
LOSSES = ("cross_entropy", "squared_error")
INITS = ("gaussian", "uniform")


def _linear(h, w, b):
    """h Wᵀ + b; where w is (draws, out, in), to each draw its own; so with a b of (draws, out)."""
    return F.linear(h, w, b) if w.ndim == 2 else torch.matmul(h, w.mT) + b.unsqueeze(-2)


class LayerParameters(nn.ParameterList):
    """One parameter a layer. nn.ParameterList looks each up by its name, every time; a small step feels it."""

    def __iter__(self):
        return iter(self._parameters.values())

    def __getitem__(self, l):
        return list(self._parameters.values())[l]


class MLP(nn.Module):
    """A fully connected network of the given layer sizes, for example [784, 256, 10].

    sizes: list of at least two positive ints, input first. activation: "relu", "tanh", "sigmoid" or "linear"
    (hidden layers; the output layer is linear). loss: "cross_entropy" (softmax on the outputs) or
    "squared_error" (½ Σ over units of (ŷ − y)²), both averaged over the batch. init: "gaussian" or "uniform",
    with standard deviation √(2 / fan_in) for relu and √(1 / fan_in) otherwise; biases start at 0.
    The same seed gives the same weights on every device. Raises ValueError for sizes that make no network and
    for unknown names.
    """

    def __init__(self, sizes, activation="relu", loss="cross_entropy", seed=0, init="gaussian", device=None):
        super().__init__()
        check_sizes(sizes)
        check_name("activation", activation, ACTIVATIONS)
        check_name("loss", loss, LOSSES)
        check_name("init", init, INITS)
        check_seed(seed)
        self.sizes, self.activation_name, self.loss_name, self.init = list(sizes), activation, loss, init
        self._f, self._derivative = ACTIVATIONS[activation]
        self.activity_noise = 0.0  # std of the noise on hidden pre-activations; set by the training loop
        self.noise_seed = 0  # of this step's noise: all passes of one step meet the same noise
        weights = self.draw_weights(seed, device or current_device())
        self.weights = LayerParameters(nn.Parameter(w) for w in weights)
        self.biases = LayerParameters(nn.Parameter(w.new_zeros(len(w))) for w in weights)

    @property
    def depth(self):
        """Number of weight layers L."""
        return len(self.sizes) - 1

    def draw_weights(self, seed, device=None):
        """A fresh set of weights from the network's own initial distribution: (out, in) tensors of its type.

        Drawn on the CPU and then moved, so that a seed means the same numbers on every device.
        """
        made = getattr(self, "weights", None)  # None while __init__ draws the first set
        like = made[0] if made else torch.empty(0, device=device)
        generator = torch.Generator().manual_seed(seed)
        gain = 2.0 if self.activation_name == "relu" else 1.0
        drawn = []
        for fan_in, fan_out in zip(self.sizes[:-1], self.sizes[1:], strict=True):
            std = math.sqrt(gain / fan_in)
            if self.init == "uniform":
                w = (2 * torch.rand(fan_out, fan_in, generator=generator) - 1) * math.sqrt(3) * std
            else:
                w = torch.randn(fan_out, fan_in, generator=generator) * std
            drawn.append(w.to(like))
        return drawn

    def forward(self, x):
        """Outputs (batch, classes): logits under cross entropy, ŷ under squared error."""
        return self.activations(x)[-1]

    def activations(self, x, weights=None, biases=None, noise=None, first=None, gains=None):
        """All layers' activities [h_0 = x, h_1, …, output], each (batch, units).

        weights, biases: lists to use instead of the network's own; a (draws, out, in) tensor with its (draws, out)
        makes that many passes in one, (draws, batch, units). noise: one tensor a layer, (batch, units),
        added to the pre-activations, on top of the activity noise of training; or (draws, batch, units), for that
        many passes in one. first: the pre-activations of layer 1, where they are known, saves their product.
        gains: one tensor a hidden layer, (batch, units), that multiplies its activities, as dropout does.
        Raises ValueError for an x that the network cannot take and for noise, first or gains of another shape.
        """
        x = self.check_input(x)
        if first is not None:
            check_first(first, (len(x), self.sizes[1]))
        if gains is not None:
            check_gains(gains, [(len(x), units) for units in self.sizes[1:-1]])
        weights = self.weights if weights is None else weights
        biases = self.biases if biases is None else biases
        activity_noise = self._draw_activity_noise(x)
        h = [x]
        for l, (w, b) in enumerate(zip(weights, biases, strict=True)):
            a = _linear(h[-1], w, b) if l or first is None else first
            for added in (activity_noise[l], None if noise is None else noise[l]):
                if added is not None:
                    check_noise(added, a)
                    a = a + added
            h.append(a if l == self.depth - 1 else self._f(a))
            if gains is not None and l < self.depth - 1:
                h[-1] = h[-1] * gains[l]
        return h

    def _draw_activity_noise(self, x):
        """Gaussian noise for the pre-activations of the hidden layers, None where there is none."""
        if not self.activity_noise:
            return [None] * self.depth
        generator = torch.Generator(x.device).manual_seed(self.noise_seed)
        like = {"generator": generator, "device": x.device, "dtype": x.dtype}
        return [self.activity_noise * torch.randn(len(x), units, **like) for units in self.sizes[1:-1]] + [None]

    def offsets(self, x):
        """What each layer adds to its product: b_l and, while training, this step's activity noise for these x."""
        noises = self._draw_activity_noise(x)
        return [b if noise is None else b + noise for b, noise in zip(self.biases, noises, strict=True)]

    def nonlinearity(self, a):
        """f of the hidden activation; same shape as a."""
        return self._f(a)

    def derivative(self, h):
        """f′ of the hidden activation, written in h = f(a); same shape as h."""
        return self._derivative(h)

    def output_error(self, out, y):
        """e = ŷ − y, (batch, classes), with ŷ = softmax(out) under cross entropy and ŷ = out otherwise."""
        self.check_target(out, y)
        error = out.softmax(1) if self.loss_name == "cross_entropy" else out.clone()
        if y.dtype == torch.int64:
            error[torch.arange(len(y), device=y.device), y] -= 1
            return error
        return error - y

    def loss(self, out, y, reduction="mean"):
        """Loss of outputs (batch, classes): 0-d ("mean", over the batch) or (batch,) ("none").

        y: (batch,) int64 labels, or (batch, classes) target values.
        """
        self.check_target(out, y)
        if reduction not in ("mean", "none"):
            raise ValueError(f'reduction is {reduction!r}; use "mean" or "none"')
        if self.loss_name == "cross_entropy":
            return F.cross_entropy(out, y, reduction=reduction)
        targets = F.one_hot(y, out.shape[1]).to(out.dtype) if y.dtype == torch.int64 else y
        losses = 0.5 * (out - targets).pow(2).sum(1)
        return losses.mean() if reduction == "mean" else losses

    def check_input(self, x):
        """x as a floating (batch, inputs) tensor of the network's type; ValueError says what is wrong."""
        if not isinstance(x, torch.Tensor):
            raise ValueError(f"x is a {type(x).__name__}; it must be a tensor: torch.as_tensor(x)")
        if x.ndim != 2 or x.shape[1] != self.sizes[0]:
            raise ValueError(
                f"x has shape {tuple(x.shape)}; this network takes (batch, {self.sizes[0]}): "
                f"use x.reshape(-1, {self.sizes[0]}) if each example has that many numbers"
            )
        if len(x) == 0:
            raise ValueError("x is an empty batch; it must hold at least one example")
        weight = self.weights[0]
        if x.device != weight.device:
            raise ValueError(f"x is on {x.device} and the network on {weight.device}: use x.to('{weight.device}')")
        if not x.is_floating_point():
            raise ValueError(f"x holds {x.dtype}; it must hold floating-point numbers: x.float() / 255 for bytes")
        if x.dtype != weight.dtype:
            raise ValueError(f"x holds {x.dtype} and the network {weight.dtype}: use x.to({weight.dtype})")
        if not x.is_contiguous():
            raise ValueError("x is not contiguous in memory, which slows every product with it: x.contiguous()")
        if x.device.type == "cpu":
            check_finite(x)
        return x

    def check_target(self, out, y):
        """Raise ValueError unless y is (batch,) int64 in range, or floating (batch, classes), for these outputs."""
        if not isinstance(y, torch.Tensor):
            raise ValueError(f"y is a {type(y).__name__}; it must be a tensor: torch.as_tensor(y)")
        if y.device != out.device:
            raise ValueError(f"y is on {y.device} and the network on {out.device}: use y.to('{out.device}')")
        if y.is_floating_point():
            if y.shape != out.shape:
                raise ValueError(f"y has shape {tuple(y.shape)}; target values must have shape {tuple(out.shape)}")
            if y.dtype != out.dtype:
                raise ValueError(f"y holds {y.dtype} and the network {out.dtype}: use y.to({out.dtype})")
            if y.device.type == "cpu":
                check_finite(y, "y")
                if self.loss_name == "cross_entropy" and (y.sum(1) - 1).abs().max() > 1e-3:
                    # ŷ − y is the gradient of cross entropy only then.
                    raise ValueError("y holds rows that do not sum to 1, as cross entropy asks")
            return
        if y.dtype != torch.int64:
            raise ValueError(f"y holds {y.dtype}; class labels must be int64: use y.long()")
        if y.shape != out.shape[:1]:
            raise ValueError(f"y has shape {tuple(y.shape)}; it must be ({len(out)},), one label for each example")
        if y.device.type == "cpu":
            check_labels(y, out.shape[1])
