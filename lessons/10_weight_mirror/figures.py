"""Drawings of lesson 10 that no cell of it makes."""

from matplotlib.figure import Figure

import course_utils as cu
from tools import circuits
from tools.gallery import gallery


def circuit():
    """The two modes of the weight mirror: awake the error goes back over B, asleep noise shows B what W is."""
    figure = Figure(figsize=(9.6, 3.1), layout="constrained")
    awake, asleep = figure.subplots(1, 2)
    back = [None, "back through B₂:\nas in feedback\nalignment"]
    circuits.circuit(awake, ["x", "h₁", "ŷ"], ["W₁", "W₂"], back, title="Awake: an image, an error")
    back = [None, "B₂ learns:\ny at one end,\nξ at the other"]
    circuits.circuit(asleep, ["", "ξ", "y"], ["", "W₂"], back, error="y", title="Asleep: noise, and no error")
    return figure


def play(data):
    """The playground at three decays and without a mirror, for a reader without a kernel."""
    runs = {"no mirror": {"mirror_steps": 0}} | {f"decay {decay:g}": {"decay": decay} for decay in (0.002, 0.02, 0.5)}
    return gallery(cu.rules.WeightMirror, data, runs, accuracies=(80, 100), training={"lr": 0.1})
