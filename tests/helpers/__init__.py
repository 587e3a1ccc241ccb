"""Small networks, batches and rules that several tests share. Sizes are odd and all different on purpose."""

import inspect
import math
import sys
import textwrap

import torch
from torch.utils.flop_counter import FlopCounterMode

from course_utils.data import Dataset
from course_utils.network import MLP
from course_utils.rule import Knob, Rule, above, between, one_of, whole

ACTIVATIONS = ["relu", "tanh", "sigmoid", "hard_sigmoid", "linear"]
LOSSES = ["cross_entropy", "squared_error"]


def flop_counter():
    """Torch's own counter, which overlooks products that are added in place."""

    def flops(shape, left, right, **_):
        return 2 * math.prod(left) * right[-1]

    in_place = {torch.ops.aten.addmm_: flops, torch.ops.aten.baddbmm_: flops}
    return FlopCounterMode(display=False, custom_mapping=in_place)


def small_net(sizes=(7, 6, 5, 3), activation="tanh", loss="cross_entropy", seed=0, dtype=torch.float64):
    """A network whose biases are random too, so that no term hides behind a zero."""
    net = MLP(list(sizes), activation=activation, loss=loss, seed=seed).to(dtype)
    generator = torch.Generator().manual_seed(seed + 100)
    with torch.no_grad():
        for b in net.biases:
            b.copy_(0.3 * torch.randn(b.shape, generator=generator, dtype=dtype))
    return net


def batch(net, n=4, targets="labels", seed=0):
    """Random inputs and labels, or target values (rows that sum to 1, which suits both losses)."""
    generator = torch.Generator().manual_seed(seed + 200)
    dtype, classes = net.weights[0].dtype, net.sizes[-1]
    x = torch.randn(n, net.sizes[0], generator=generator, dtype=dtype)
    if targets == "labels":
        return x, torch.randint(0, classes, (n,), generator=generator)
    return x, torch.randn(n, classes, generator=generator, dtype=dtype).softmax(1)


def clusters(n=203, n_val=41, inputs=12, classes=4, seed=0, blank=0):
    """A data set that trains in milliseconds: noisy points around a centre a class; the first `blank` inputs are 0."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, inputs, generator=generator)

    def draw(count):
        y = torch.randint(0, classes, (count,), generator=generator)
        x = centres[y] + 0.5 * torch.randn(count, inputs, generator=generator)
        x[:, :blank] = 0
        return x, y

    return Dataset("clusters", "clusters", *draw(n), *draw(n_val), *draw(n_val))


def grads(rule, x, y):
    """What `backward` puts into `.grad` of the network's parameters, from None."""
    for p in rule.parameters():
        p.grad = None
    rule.backward(x, y)
    return [None if p.grad is None else p.grad.clone() for p in rule.net.parameters()]


def unused_biases(rule):
    """Hidden biases that a rule does without and says so: `taught` names the weights beside them, and not them."""
    taught, net = {id(p) for _, p in rule.taught()}, rule.net
    pairs = zip(net.weights[:-1], net.biases[:-1], strict=True)
    return [b for w, b in pairs if id(w) in taught and id(b) not in taught]


def largest_difference(ours, theirs):
    assert len(ours) == len(theirs)
    return max((a - b).abs().max().item() for a, b in zip(ours, theirs, strict=True))


def flat(tensors):
    return torch.cat([t.flatten() for t in tensors])


def by_name(net, g):
    """{row of the frame: flat gradient}: each layer's weights and biases together, and all of them."""
    depth = net.depth
    return {**{str(l + 1): flat([g[l], g[depth + l]]) for l in range(depth)}, "all": flat(g)}


def snapshot(rule):
    """Everything that must not change behind a user's back, ready for ==."""

    def plain(tensor):
        return None if tensor is None else (tuple(tensor.shape), tensor.tolist())

    return {
        "state": {name: plain(v) for name, v in rule.state_dict().items() if not name.endswith("_extra_state")},
        "grad": [plain(p.grad) for p in rule.parameters()],
        "generator": rule.generator.get_state().tolist(),
        "torch": torch.get_rng_state().tolist(),
        "activity_noise": rule.net.activity_noise,
    }


class AutogradRule(Rule):
    """A rule as a user would write it: autograd's gradient, changed by `change`."""

    title = "Autograd"

    def change(self, gradient):
        return gradient

    def backward(self, x, y):
        loss = self.net.loss(self.net(x), y)
        parameters = list(self.net.parameters())
        for p, g in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            self.add_grad(p, self.change(g))
        return loss.detach()


class NoisyGradient(AutogradRule):
    """The true gradient plus isotropic Gaussian noise of known standard deviation."""

    def __init__(self, net, seed=0, sigma=0.1):
        super().__init__(net, seed)
        self.sigma = sigma

    def change(self, gradient):
        noise = torch.randn(gradient.shape, generator=self.generator, dtype=gradient.dtype)
        return gradient + self.sigma * noise


class ScaledGradient(AutogradRule):
    def __init__(self, net, seed=0, factor=2.0):
        super().__init__(net, seed)
        self.factor = factor

    def change(self, gradient):
        return self.factor * gradient


class SignGradient(AutogradRule):
    def change(self, gradient):
        return gradient.sign()


class Knobby(AutogradRule):
    """A rule with knobs of several kinds."""

    title = "Knobby"
    gain = Knob(1.0, above(0), slider=(0.1, 10, "log"), live=True)
    tries = Knob(2, whole(1))
    mode = Knob("slow", one_of("slow", "fast"))
    share = Knob(0.5, between(0, 1), live=True)


def mutant(thing, old, new):
    """A class or function again, from its own source with `old` replaced by `new` everywhere.

    A mutant drifts with its original: it fails here as soon as `old` is no longer in the source.
    """
    source = textwrap.dedent(inspect.getsource(thing))
    assert old in source, f"{old!r} is not in the source of {thing.__name__}"
    namespace = dict(vars(sys.modules[thing.__module__]))
    exec(compile(source.replace(old, new), f"<mutant of {thing.__name__}>", "exec"), namespace)
    return namespace[thing.__name__]
