"""Two streams and their energy, written out once more."""

import torch

from course_utils.rules import BidirectionalPredictiveCoding
from helpers import small_net

# Square hidden layers, so that a transposed matrix still fits; the rest of the sizes are odd and different.
SIZES = {1: (7, 3), 2: (7, 5, 3), 3: (7, 5, 5, 3), 4: (7, 6, 6, 5, 3)}
STEPS, RATE = 6, 0.07


def make(sizes=SIZES[3], activation="tanh", loss="squared_error", rule_class=BidirectionalPredictiveCoding, **knobs):
    """A rule in float64 whose two streams both have random biases."""
    net = small_net(sizes, activation, loss)
    given = {"inference_steps": STEPS, "inference_rate": RATE, "discriminative": 0.9, "generative": 0.4} | knobs
    rule = rule_class(net, **given).double()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for b in rule.top_down.biases:
            b.copy_(0.3 * torch.randn(b.shape, generator=generator, dtype=b.dtype))
    return rule


def energy(rule, v):
    """The energy of each example, written down a second time, plainly."""
    net, top_down, L = rule.net, rule.top_down, rule.net.depth
    h = [v[0], *(net.nonlinearity(a) for a in v[1:-1]), v[-1]]
    total = 0
    for l in range(L):
        up = h[l] @ net.weights[l].T + net.biases[l]
        missed = net.loss(up, v[L], reduction="none") if l == L - 1 else (v[l + 1] - up).pow(2).sum(1) / 2
        down = h[l + 1] @ top_down.weights[L - 1 - l].T + top_down.biases[L - 1 - l]
        total = total + rule.discriminative * missed + rule.generative * (v[l] - down).pow(2).sum(1) / 2
    return total


def slopes(rule, v, wanted):
    """Autograd's gradient of the summed energy in the states `wanted`, a list of layers."""
    leaves = [a.detach().clone().requires_grad_(l in wanted) for l, a in enumerate(v)]
    with torch.enable_grad():
        return torch.autograd.grad(energy(rule, leaves).sum(), [leaves[l] for l in wanted])


def some_known(x, seed=3):
    return torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) > 0.5
