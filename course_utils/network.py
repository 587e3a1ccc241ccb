"""The multilayer perceptron that every rule of the course trains.

The maths and the code count layers alike but for one: net.weights[l] is W_{l+1}, from h_l to h_{l+1}.
    h_0 = x,   a_l = h_{l-1} W_lᵀ + b_l,   h_l = f(a_l),   output = a_L  (no f on the last layer)
"""

import math
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import nn

from course_utils import checks
from course_utils.device import current_device, stream_seed


def _step_derivative(h):
    return torch.sign(h).clamp_(min=0)  # faster than (h > 0).to(h.dtype)


def _tanh_derivative(h):
    return 1 - h * h


def _sigmoid_derivative(h):
    return h * (1 - h)


def _hard_sigmoid(a):
    return a.clamp(0, 1)


def _hard_sigmoid_derivative(h):
    return ((h > 0) & (h < 1)).to(h.dtype)


# name: f, and f′ written in h = f(a), because h is what a neuron has at hand. Named functions, which can be pickled.
ACTIVATIONS = {
    "relu": (torch.relu, _step_derivative),
    "tanh": (torch.tanh, _tanh_derivative),
    "sigmoid": (torch.sigmoid, _sigmoid_derivative),
    "hard_sigmoid": (_hard_sigmoid, _hard_sigmoid_derivative),
    "linear": (torch.positive, torch.ones_like),
}
LOSSES = ("cross_entropy", "squared_error")
INITS = ("gaussian", "uniform")


def _linear(h, w, b):
    """h Wᵀ + b; where w is (draws, out, in), to each draw its own; so with a b of (draws, out)."""
    return F.linear(h, w, b) if w.ndim == 2 else torch.matmul(h, w.mT) + b.unsqueeze(-2)


class Net(Protocol):
    """What rules, metrics and controls ask of a network, an nn.Module: `MLP` has it, and so may one of your own.

    weights, biases: for each layer a parameter, of any shape, from the first layer to the readout. The methods: as
    those of `MLP`. What else a rule asks for (`random_feedback`, …) it says in a sentence.
    """

    weights: Any
    biases: Any

    @property
    def depth(self) -> int: ...
    def activations(self, x): ...
    def derivative(self, h): ...
    def output_error(self, out, y): ...
    def loss(self, out, y): ...


class LayerParameters(nn.ParameterList):
    """One parameter a layer. nn.ParameterList looks each up by its name, every time; a small step feels it."""

    def __iter__(self):
        return iter(self._parameters.values())

    def __getitem__(self, l):
        return list(self._parameters.values())[l]


class MLP(nn.Module):
    """A fully connected network of the given layer sizes, for example [784, 256, 10].

    sizes: list of at least two positive ints, input first. activation: "relu", "tanh", "sigmoid", "hard_sigmoid"
    (a between 0 and 1) or "linear" (hidden layers; the output layer is linear). loss: "cross_entropy" (softmax on
    the outputs) or "squared_error" (½ Σ over units of (ŷ − y)²), both averaged over the batch. init: "gaussian" or
    "uniform", with standard deviation √(2 / fan_in) for relu and √(1 / fan_in) otherwise; biases start at 0.
    The same seed gives the same weights on every device. Raises ValueError for sizes that make no network and
    for unknown names.
    """

    def __init__(self, sizes, activation="relu", loss="cross_entropy", seed=0, init="gaussian", device=None):
        super().__init__()
        sizes, seed = checks.check_sizes(sizes), checks.check_seed(seed)
        checks.check_name("activation", activation, ACTIVATIONS)
        checks.check_name("loss", loss, LOSSES)
        checks.check_name("init", init, INITS)
        self.sizes, self.activation_name, self.loss_name, self.init = sizes, activation, loss, init
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
        like = self.weights[0] if hasattr(self, "weights") else torch.empty(0, device=device)  # __init__ has none yet
        generator = torch.Generator().manual_seed(seed)
        gain = 2.0 if self.activation_name == "relu" else 1.0
        drawn = []
        for fan_in, fan_out in zip(self.sizes[:-1], self.sizes[1:], strict=True):
            draw = torch.rand if self.init == "uniform" else torch.randn
            w = draw(fan_out, fan_in, generator=generator)
            w = (2 * w - 1) * math.sqrt(3) if self.init == "uniform" else w
            drawn.append((w * math.sqrt(gain / fan_in)).to(like))
        return drawn

    def random_feedback(self, seed):
        """[None, B_2, …]: a tensor like each layer's weights, of the same distribution, that knows nothing of them."""
        return [None, *self.draw_weights(stream_seed("feedback", seed))[1:]]

    def forward(self, x):
        """Outputs (batch, classes): logits under cross entropy, ŷ under squared error."""
        return self.activations(x)[-1]

    def activations(self, x, weights=None, biases=None, edit=None):
        """All layers' activities [h_0 = x, h_1, …, output], each (batch, units).

        weights, biases: lists to use instead of the network's own; a (draws, out, in) tensor with its (draws, out)
        makes that many passes in one, (draws, batch, units). edit(l, a): is handed the pre-activations a of each layer,
        l = 0 … depth − 1, activity noise included, and returns what takes their place: noise, masks, tilts; (batch,
        units), or (draws, batch, units) for that many passes in one.
        Raises ValueError for an x that the network cannot take and for an edit of another shape.
        """
        x = self.check_input(x)
        w, b = (self.weights if weights is None else weights)[0], (self.biases if biases is None else biases)[0]
        return [x, *self.onward(_linear(x, w, b), weights, biases, edit)]

    def onward(self, a, weights=None, biases=None, edit=None):
        """[h_1, …, output] from the first layer's pre-activations a, where passes share them. Arguments as above."""
        if a.ndim not in (2, 3) or a.shape[-1] != self.sizes[1]:
            raise ValueError(f"a has shape {tuple(a.shape)}; layer 1's pre-activations are (…, batch, {self.sizes[1]})")
        weights = self.weights if weights is None else weights
        biases = self.biases if biases is None else biases
        noises = self.draw_activity_noise(a)
        h: list[torch.Tensor] = []
        for l, (w, b) in enumerate(zip(weights, biases, strict=True)):
            a = _linear(h[-1], w, b) if l else a
            a = a if noises[l] is None else a + noises[l]
            if edit is not None:
                shape, a = a.shape, edit(l, a)
                if a.shape[-2:] != shape[-2:] or a.ndim > 3:
                    raise ValueError(f"edit gave shape {tuple(a.shape)} for layer {l}, which has {tuple(shape)}")
            h.append(a if l == self.depth - 1 else self._f(a))
        return h

    def draw_activity_noise(self, like):
        """This step's noise on the pre-activations, (batch, units) a layer or None; like: any (…, batch, units)."""
        if not self.activity_noise:
            return [None] * self.depth
        generator = torch.Generator(like.device).manual_seed(self.noise_seed)
        kind = {"generator": generator, "device": like.device, "dtype": like.dtype}
        draws = [torch.randn(like.shape[-2], units, **kind) for units in self.sizes[1:-1]]
        return [*(self.activity_noise * noise for noise in draws), None]

    def offsets(self, x):
        """What each layer adds to its product: b_l and, while training, this step's activity noise for these x."""
        if torch.is_autocast_enabled(x.device.type):
            raise ValueError("autocast is on, but neurons settle in one precision: net.bfloat16() and x.bfloat16() do")
        noises = self.draw_activity_noise(x)
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
            return error.scatter_add_(1, y[:, None], error.new_full((len(y), 1), -1.0))  # quicker than an index
        return error - y

    def loss(self, out, y, reduction="mean"):
        """Loss of outputs (batch, classes): 0-d ("mean", over the batch) or (batch,) ("none").

        y: (batch,) int64 labels, or (batch, classes) target values.
        """
        self.check_target(out, y)
        checks.check_name("reduction", reduction, ("mean", "none"))
        if self.loss_name == "cross_entropy":
            return F.cross_entropy(out, y, reduction=reduction)
        targets = F.one_hot(y, out.shape[1]).to(out.dtype) if y.dtype == torch.int64 else y
        losses = 0.5 * (out - targets).pow(2).sum(1)
        return losses.mean() if reduction == "mean" else losses

    def check_input(self, x):
        """x, a floating (batch, inputs) tensor of the network's type; else ValueError says what is wrong."""
        return checks.check_input(x, self.sizes[0], self.weights[0])

    def check_target(self, out, y):
        """Raise ValueError unless y is (batch,) int64 in range, or floating (batch, classes), for these outputs."""
        checks.check_target(y, out, self.loss_name)
