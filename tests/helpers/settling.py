"""Predictive coding's energy, written out once more, and what can be wrong on the way down it."""

import torch

from course_utils.rules import PredictiveCoding
from course_utils.rules.predictive_coding import Settling
from helpers import mutant

# Square hidden layers, so that a transposed matrix still fits; the rest of the sizes are odd and different.
SIZES = {1: (7, 3), 2: (7, 5, 3), 3: (7, 5, 5, 3), 4: (7, 6, 6, 5, 3), 5: (7, 6, 6, 6, 5, 3)}
SQUARE = "self.back[l].shape[0] == self.back[l].shape[1]"
LOSS = "self.loss = self.net.loss(self.output, y)"
SWEEPS = {  # what is wrong: (in the source of `Settling`, instead of it)
    "transposed": ("@ self.back[l]", f"@ (self.back[l].T if {SQUARE} else self.back[l])"),
    "sign": ("value=rate", "value=-rate"),
    "no derivative": ("self.net.derivative(self.h[l])", "torch.ones_like(pull)"),
    "derivative of the state": ("derivative(self.h[l])", "derivative(self.v[l])"),
    "no own error": (".sub_(self.e[l], alpha=rate)", ""),
    "one after the other": ("pull = self.e", "self.compare(); pull = self.e"),
    "averaged twice": ("self.rule.inference_rate,", "self.rule.inference_rate / len(self.y),"),
    "zero start": (LOSS, LOSS + "; [v.zero_() for v in self.v[1:]]; self.compare()"),
    "random start": (LOSS, LOSS + "; [v.normal_(generator=rule.generator) for v in self.v[1:]]; self.compare()"),
}
TEACHERS = {  # the same of `PredictiveCoding`
    "presynaptic without f": ("error.T @ s.h[l]", "error.T @ s.v[l]"),
    "sum": ("(-self.output_weight * len(s.y))", "-self.output_weight"),
}


def wrong(name, base=PredictiveCoding):
    if name in TEACHERS:
        return mutant(base, *TEACHERS[name])
    return type("Wrong", (base,), {"settling": mutant(Settling, *SWEEPS[name])})


def predictions(net, states, x):
    """μ_1 … μ_L of states v_1 … v_{L−1}, written out once more."""
    own = {"linear": lambda v: v, "hard_sigmoid": lambda v: v * (v > 0) * (v < 1) + (v >= 1)}
    f = own.get(net.activation_name) or getattr(torch, net.activation_name)
    below = [x, *map(f, states)]
    return [h @ w.T + b for h, w, b in zip(below, net.weights, net.biases, strict=True)]


def energies(net, states, x, y, c):
    """The energy of each example, (batch,), straight from its definition."""
    *hidden, output = predictions(net, states, x)
    errors = [0.5 * (v - mu).pow(2).sum(1) for v, mu in zip(states, hidden, strict=True)]
    return sum(errors, c * net.loss(output, y, reduction="none"))
