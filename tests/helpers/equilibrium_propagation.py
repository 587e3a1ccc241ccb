"""Small networks that settle, and rules whose settling has one thing wrong."""

import inspect

import torch

from course_utils.rule import Rule
from course_utils.rules import EquilibriumPropagation
from course_utils.rules.equilibrium_propagation import Settling, Sweeps
from helpers import flat, mutant, small_net

LONG = {"free_sweeps": 500, "nudged_sweeps": 500}


def settling_net(sizes=(6, 8, 7, 3), activation="tanh", loss="squared_error", scale=0.7):
    """A network that rests for gains up to 1; where f has bounds at 0 and 1, between them."""
    net = small_net(sizes, activation, loss)
    with torch.no_grad():
        for w in net.weights:
            w.mul_(scale)
        if activation == "hard_sigmoid":
            for b in list(net.biases)[:-1]:
                b.add_(0.5)
    return net


def wrong(old, new):
    """`EquilibriumPropagation` again, with `old` replaced in its own source or in what it inherits."""
    if old in inspect.getsource(EquilibriumPropagation):
        return mutant(EquilibriumPropagation, old, new)
    if old in inspect.getsource(Settling):
        return on_top(EquilibriumPropagation, mutant(Settling, old, new), Rule)
    return on_top(EquilibriumPropagation, on_top(Settling, mutant(Sweeps, old, new)), Rule)


def on_top(thing, *bases):
    """What stands in a class, on other bases."""
    made = ("knobs", "live_knobs", "__dict__", "__weakref__")
    return type("Wrong", bases, {name: value for name, value in vars(thing).items() if name not in made})


def relative_error(ours, theirs):
    ours, theirs = flat(ours), flat(theirs)
    return ((ours - theirs).norm() / theirs.norm()).item()
