"""How good is an estimate of the gradient? Angle, bias, variance and their errors, with no trace left behind.

g is the true gradient, ĝ one estimate of it, Σ the covariance of ĝ over draws, all flattened to d numbers.
"""

import math
from contextlib import contextmanager

import numpy as np
import pandas as pd
import torch

from course_utils.checks import check_seed, or_none, require, whole
from course_utils.doors import check_net, check_rule, untaught

BLOCKS = 10  # standard errors come from leaving out one tenth of the draws at a time


def alignment_angle(update, reference):
    """Angle in degrees, [0, 180], between two tensors or lists of tensors of equal shapes.

    A zero vector has no direction: the angle is then NaN. Raises ValueError when the shapes differ.
    """
    shapes, expected = ([tuple(t.shape) for t in _listed(tensors)] for tensors in (update, reference))
    if shapes != expected:
        raise ValueError(f"update has shapes {shapes} and reference {expected}; they must have the same")
    u, r = (v / v.norm() for v in map(_vector, (update, reference)))
    # Kahan's formula: the arc cosine would lose half the digits near 0° and 180°.
    return math.degrees(2 * math.atan2((u - r).norm(), (u + r).norm()))


def cosine(u, v):
    """Cosine of the angle between two flat tensors, a float; NaN when one of them is zero."""
    u, v = _vector(u), _vector(v)
    norms = u.norm() * v.norm()
    return (u @ v / norms).item() if norms > 0 else math.nan


def chance_band(dimensions):
    """(low, high) in degrees: where 95 % of random directions in that many dimensions lie around 90°.

    90° ± 1.96·(180/π)/√d: the cosine of two independent Gaussian vectors has standard deviation 1/√d.
    """
    half = 1.96 * math.degrees(1) / math.sqrt(dimensions)
    return 90 - half, 90 + half


def true_gradient(net, x, y):
    """Autograd's gradient of net.loss at (x, y), without activity noise: a tensor a parameter, weights then biases.

    Zeros for parameters with requires_grad False.
    """
    check_net(net, "true_gradient")
    parameters = [*net.weights, *net.biases]
    asked = [p for p in parameters if p.requires_grad]
    noise, net.activity_noise = getattr(net, "activity_noise", 0.0), 0.0
    try:
        with torch.enable_grad():
            loss = net.loss(net.activations(x)[-1], y)
            found = iter(torch.autograd.grad(loss, asked, materialize_grads=True) if asked else ())
            return [next(found) if p.requires_grad else torch.zeros_like(p) for p in parameters]
    finally:
        net.activity_noise = noise


def gradients(net):
    """What `.grad` holds now, a tensor a parameter, weights then biases; zeros where a rule does not teach it."""
    check_net(net, "gradients")
    return _filled([*net.weights, *net.biases])


def estimate_of(rule):
    """What `.grad` holds now, a tensor for each of `rule.taught()`; zeros where nothing was filled."""
    return _filled([p for _, p in rule.taught()])


def _filled(parameters):
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]


def reference_of(rule, x, y):
    """The rule's `reference_gradient`; ValueError where it is none of what the rule teaches."""
    reference = rule.reference_gradient(x, y)
    shapes, taught = [tuple(g.shape) for g in reference], [tuple(p.shape) for _, p in rule.taught()]
    if shapes != taught:
        raise ValueError(f"{rule.title}.reference_gradient has shapes {shapes}, and what taught() lists {taught}")
    return reference


def layer_angles(taught, update, reference):
    """Angle of each layer's update (W and b together) to the reference.

    taught: a network, both lists then run as `true_gradient` does; or a rule, and they run as its `taught` does.
    """
    pairs = zip(_by_layer(taught, update), _by_layer(taught, reference), strict=True)
    return [alignment_angle(u, r) for u, r in pairs]


@contextmanager
def no_trace(rule):
    """Whatever happens inside, the rule's .grad, parameters, buffers and generators are as before afterwards."""
    state = {name: value.clone() for name, value in rule.state_dict().items()}
    grads = [(p, p.grad) for p in rule.parameters()]
    found = [getattr(module, "generator", None) for module in rule.modules()]  # a rule may hold rules
    generators = {generator: generator.get_state() for generator in found if isinstance(generator, torch.Generator)}
    rule.zero_grad()
    try:
        yield
    finally:
        rule.load_state_dict(state)
        for p, gradient in grads:
            p.grad = gradient
        for generator, old in generators.items():
            generator.set_state(old)


def gradient_statistics(rule, x, y, draws=100, batch_size=None, seed=0):
    """Bias, variance and angle of a rule's estimates ĝ against the true gradient g of all of (x, y).

    g is the rule's `reference_gradient`: autograd's, of net.loss, unless the rule names another.
    batch_size None: the rule's own noise, at the fixed (x, y). An integer: each draw is a random mini-batch of
    x (without replacement, from `seed`), so that data noise comes on top. draws: at least 20.
    Returns a frame with one row a layer and one "all":
    bias ‖E ĝ − g‖/‖g‖, corrected for the Monte-Carlo part tr Σ/n (bias_reads says "not resolved" when it
    cannot be told from 0); projection E ĝ·g/‖g‖², 1 where unbiased; variance tr Σ/‖g‖²;
    snr ‖E ĝ‖²/tr Σ; cosine of one draw; cosine_of_mean; norm_ratio E‖ĝ‖/‖g‖; each with `_se`, the standard
    error from 10 blocks (jackknife). A layer whose true gradient is 0 reads NaN.
    Memory does not grow with draws. Raises ValueError for too few draws or a batch larger than the data.
    """
    check_rule(rule)
    draws = require("draws", draws, whole(2 * BLOCKS))  # fewer cannot tell bias from variance
    batch_size = require("batch_size", batch_size, or_none(whole(1, len(x))))
    rounding = 100 * torch.finfo(rule.net.weights[0].dtype).eps  # a bias below is the arithmetic's, not the rule's
    sums = [_Sums(g, rounding) for g in _vectors(rule, reference_of(rule, x, y))]
    picker = torch.Generator().manual_seed(check_seed(seed))
    with no_trace(rule):
        for draw in range(draws):
            rule.zero_grad()
            some: slice | torch.Tensor = slice(None)
            if batch_size is not None:
                some = torch.randperm(len(x), generator=picker)[:batch_size].to(x.device)
            rule.backward(x[some], y[some])
            if draw == 0 and (sentence := untaught(rule)):
                raise ValueError(sentence)
            for layer_sums, estimate in zip(sums, _vectors(rule, estimate_of(rule)), strict=True):
                layer_sums.add(estimate, draw % BLOCKS)
    names = [*map(str, range(1, len(sums))), "all"]
    return pd.DataFrame([{"layer": name, **s.statistics()} for name, s in zip(names, sums, strict=True)])


def statistics_table(rules, x, y, draws=60, batch_size=128):
    """`gradient_statistics` of several rules, {name: rule}, one under the other: without snr and the errors.

    Columns: when (the name), layer, bias, bias_reads, projection, variance, cosine, cosine_of_mean, norm_ratio.
    """
    frames = [gradient_statistics(rule, x, y, draws, batch_size).assign(when=name) for name, rule in rules.items()]
    columns = "when layer bias bias_reads projection variance cosine cosine_of_mean norm_ratio".split()
    return pd.concat(frames, ignore_index=True)[columns]


class _Sums:
    """Running sums over draws, kept apart in ten blocks: all that the statistics of one layer need."""

    def __init__(self, reference, rounding):
        self.g, self.rounding = reference, rounding
        self.g2 = (self.g @ self.g).item() or math.nan  # without a gradient every ratio to it is NaN
        # Σ (ĝ − g), so that a small bias keeps its digits; then: draws, Σ‖ĝ − g‖², Σ cos, Σ‖ĝ‖
        self.sums = self.g.new_zeros(BLOCKS, len(self.g) + 4)

    def add(self, estimate, block):
        difference, norm = estimate - self.g, estimate.norm()
        cos = cosine(estimate, self.g) if norm > 0 else 0.0  # a draw of zero points nowhere: it helps as little as 90°
        self.sums[block] += torch.cat([difference, self.g.new_tensor([1.0, difference @ difference, cos, norm])])

    def statistics(self):
        total = self.sums.sum(0)
        without = [self._ratios(total - block) for block in self.sums]
        with np.errstate(invalid="ignore"):  # without noise snr is infinite, and its error NaN
            errors = pd.DataFrame(without).std(ddof=0) * math.sqrt(BLOCKS - 1)  # jackknife
        row = {}
        for name, value in self._ratios(total).items():
            row[name], row[f"{name}_se"] = value, errors[name]
        # Judged by the square: it is unbiased, and without bias scatters evenly around 0, which the root does not.
        square, square_se = row.pop("bias_squared"), row.pop("bias_squared_se")
        resolved = square > 2 * square_se and row["bias"] > self.rounding
        row["bias_reads"] = f"{row['bias']:.3g} ± {row['bias_se']:.2g}" if resolved else "not resolved"
        return row

    def _ratios(self, sums):
        n, squares, cos_sum, norm_sum = sums[-4:].tolist()
        shift = sums[:-4] / n  # E ĝ − g, as measured
        shift2 = (shift @ shift).item()
        trace = max(0.0, (squares - n * shift2) / (n - 1))  # tr Σ, unbiased
        bias2 = shift2 - trace / n
        mean2 = (self.g + shift).pow(2).sum().item()
        along = self.g2 + (shift @ self.g).item()
        return {
            "bias_squared": bias2 / self.g2,
            "bias": math.sqrt(max(0.0, bias2) / self.g2),
            "projection": along / self.g2,
            "variance": trace / self.g2,
            "snr": max(0.0, mean2 - trace / n) / trace if trace > 0 else math.inf,
            "cosine": cos_sum / n if norm_sum > 0 else math.nan,
            "cosine_of_mean": along / math.sqrt(self.g2 * mean2) if mean2 > 1e-24 * self.g2 else math.nan,
            "norm_ratio": norm_sum / n / math.sqrt(self.g2),
        }


def _listed(tensors):
    return [tensors] if isinstance(tensors, torch.Tensor) else list(tensors)


def _vector(tensors):
    """All numbers in one float64 vector: float32 sums over 400,000 products lose the digits that tell 0° from 0.03°."""
    flat = torch.cat([t.reshape(-1) for t in _listed(tensors)])
    return flat.cpu().double() if flat.device.type == "mps" else flat.double()  # Apple's mps has no float64


def layer_sizes(taught):
    """How many numbers each layer of a network holds, weights and biases; or each layer that a rule has taught."""
    parameters = [p for _, p in taught.taught()] if hasattr(taught, "taught") else [*taught.weights, *taught.biases]
    return [sum(p.numel() for p in layer) for layer in _by_layer(taught, parameters)]


def _by_layer(taught, tensors):
    """The tensors of each layer: [[W_1, b_1], …] of a list that runs as the rule's `taught`, or as the network's."""
    places = [l for l, _ in taught.taught()] if hasattr(taught, "taught") else [*range(taught.depth)] * 2
    layers: dict = {l: [] for l in sorted(places)}
    for l, tensor in zip(places, tensors, strict=True):
        layers[l].append(tensor)
    return list(layers.values())


def _vectors(rule, tensors):
    """A vector of each layer's numbers, W and b together, and one of all."""
    layers = [_vector(layer) for layer in _by_layer(rule, tensors)]
    return [*layers, torch.cat(layers)]
