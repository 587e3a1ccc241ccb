"""Drawings of lesson 03 that no cell of it makes."""

from matplotlib.figure import Figure

import course_utils as cu
from course_utils import plots
from tools import circuits
from tools.gallery import gallery


def circuit():
    """Backprop beside weight perturbation: an error for every unit, or one number for every synapse."""
    figure = Figure(figsize=(9.6, 3.1), layout="constrained")
    left, right = figure.subplots(1, 2)
    names, back = ["x", "h₁", "ŷ"], "back through W₂ᵀ:\nan error for\nevery unit"
    circuits.circuit(left, names, ["W₁", "W₂"], [None, back], False, title="Backprop")
    moved = ["W₁ ± σψ₁", "W₂ ± σψ₂"]
    circuits.circuit(right, names, moved, [None, None], error="ΔL", title="Weight perturbation")
    for end in (1.0, 3.0):
        circuits.arrow(right, (3.66, -1.3), (end, -0.12), plots.RED, "--")
    right.text(1.5, -1.1, "one number\nto every synapse", color=plots.RED, ha="right", va="center", fontsize=11)
    return figure


def play(data):
    """The playground at four sizes of the jiggle, for a reader without a kernel."""
    jiggles = {f"σ = {std:g}": {"perturbation_std": std, "draws": 10} for std in (1e-10, 1e-7, 1e-3, 0.3)}
    training = {"lr": 3e-3, "optimizer": "adam"}
    return gallery(cu.rules.WeightPerturbation, data, jiggles, [784, 32, 10], angles=(86, 93), training=training)
