"""Drawings of lesson 20 that no cell of it makes."""

import math

import torch
from matplotlib.figure import Figure

import course_utils as cu
from course_utils import plots
from tools import circuits
from tools.gallery import gallery


def circuit():
    """Backprop's errors beside targets that come down through a learned inverse."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    names, weights = ["x", "h₁", "h₂", "ŷ"], ["W₁", "W₂", "W₃"]
    for ax, title in (
        (left, "Backprop: errors, through copies of W"),
        (right, "Target propagation: wishes, through inverses"),
    ):
        circuits.circuit(ax, names, weights, [None] * 3, title=title)
    for x, name in ((4, "W₃ᵀ"), (2, "W₂ᵀ")):
        circuits.arrow(left, (x + 1.64, -1.3), (x + 0.1, -1.3), plots.RED, "--")
        circuits.arrow(left, (x, -1.3), (x, -0.42), plots.RED, "--")
        left.text(x + 0.9, -1.4, name, color=plots.RED, fontsize=11, ha="center", va="top")
    for x, name in ((4, "t₂"), (2, "t₁")):
        circuits.node(right, (x, -1.5), name)
        circuits.arrow(right, (x, -1.1), (x, -0.42), plots.GREEN, arrowstyle="<|-|>")
    circuits.arrow(right, (5.66, -1.34), (4.42, -1.5), plots.RED, "--")
    right.text(5.1, -1.62, "W₃ᵀ", color=plots.RED, fontsize=11, ha="center", va="top")
    circuits.arrow(right, (3.6, -1.5), (2.42, -1.5), plots.GREEN)
    right.text(
        3.0, -1.98, "through g₁, with B₂ of its own, learned", color=plots.GREEN, fontsize=10, ha="center", va="top"
    )
    for ax in (left, right):
        ax.set_ylim(-2.3, 0.75)
    return figure


def _turned(angle):
    return torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def arrows():
    """What the layer below is asked for, by inverse and gradient, at three stretchings: the lesson's slider."""
    points, goal = torch.randn(50, 2, generator=torch.Generator().manual_seed(4)), torch.tensor([1.5, 1.0])
    figure = Figure(figsize=(11, 4), layout="constrained")
    for ax, sigma in zip(figure.subplots(1, 3), (1.0, 1.5, 2.5), strict=True):
        weights = _turned(0.7) @ torch.diag(torch.tensor([sigma, 1 / sigma])) @ _turned(-0.4)
        back = torch.linalg.inv(weights).T
        wish = 0.3 * (goal - points @ weights.T)
        for arrow, color, width, name in (
            (wish @ weights, plots.BLACK, 0.004, "gradient"),
            (wish @ back, plots.GREEN, 0.007, "inverse"),
        ):
            ax.quiver(*points.T, *arrow.T, color=color, width=width, angles="xy", scale_units="xy", scale=1, label=name)
        ax.plot(*(goal @ back), "*", color=plots.RED, markersize=14)
        angle = cu.metrics.alignment_angle(wish @ back, wish @ weights)
        ax.set(xlim=(-4, 5), ylim=(-4, 5), aspect="equal", title=f"σ = {sigma:g}: {angle:.0f}° apart")
        ax.set(xlabel="neuron 1 below", ylabel="neuron 2 below")
        plots.dress(ax)
    return figure


def play(data):
    """The playground at four settings, for a reader without a kernel."""
    runs = {
        "as it comes": {},
        "feedback rate 0.01": {"feedback_rate": 0.01},
        "feedback rate 10": {"feedback_rate": 10.0},
    }
    runs["target step 10"] = {"target_step": 10.0}
    rule, sizes = cu.rules.DifferenceTargetPropagation, [784, 128, 128, 10]
    return gallery(rule, data, runs, sizes, (60, 100), training={"epochs": 0.5}, activation="tanh")
