"""Drawings of lesson 05 that no cell of it makes."""

import math

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

import course_utils as cu
from course_utils import plots
from tools import circuits
from tools.gallery import gallery


def circuit():
    """Lesson 03's two tries beside a generation of a cloud: its mean moves, and its shape."""
    figure = Figure(figsize=(9.6, 3.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    moved = ["W₁ ± σψ₁", "W₂ ± σψ₂"]
    circuits.circuit(
        left, ["x", "h₁", "ŷ"], moved, [None, None], error="ΔL", title="Weight perturbation: one jiggle, both ways"
    )
    for end in (1.0, 3.0):
        circuits.arrow(left, (3.66, -1.3), (end, -0.12), plots.RED, "--")
    left.text(1.5, -1.1, "one number\nto every synapse", color=plots.RED, ha="right", va="center", fontsize=11)
    draws = np.random.default_rng(36).normal(size=(24, 2))
    fitter = draws[:, 0] + 0.4 * draws[:, 1] > np.median(draws[:, 0] + 0.4 * draws[:, 1])
    right.plot(*draws[~fitter].T, "o", color=plots.GREY, markerfacecolor="white", label="mutants")
    right.plot(*draws[fitter].T, "o", color=plots.BLUE, label="the fitter half")
    right.add_patch(Ellipse((0, 0), 4, 4, fill=False, color=plots.GREY, linestyle=":"))
    middle = draws[fitter].mean(0)
    right.add_patch(
        Ellipse(middle, 5.4, 3.0, angle=math.degrees(math.atan(0.4)), fill=False, color=plots.RED, linewidth=2)
    )
    circuits.arrow(right, (0, 0), tuple(middle), plots.RED)
    right.text(3.0, -1.7, "the next cloud", color=plots.RED, ha="center", fontsize=11)
    right.set(xlim=(-3.4, 4.2), ylim=(-2.4, 2.6), aspect="equal", title="Evolution: a cloud that moves and stretches")
    right.legend(loc="upper left", frameon=False, fontsize="small")
    right.axis("off")
    return figure


def play(data):
    """The playground at four widths of a mutation, for a reader without a kernel."""
    widths = {f"σ = {std:g}": {"perturbation_std": std} for std in (1e-4, 1e-2, 0.1, 1.0)}
    training = {"lr": 3e-3, "optimizer": "adam"}
    return gallery(cu.rules.EvolutionStrategy, data, widths, [784, 32, 10], angles=(86, 92), training=training)
