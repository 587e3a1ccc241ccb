"""Drawings of lesson 07 that no cell of it makes."""

from matplotlib.figure import Figure

import course_utils as cu
from course_utils import plots
from tools import circuits
from tools.gallery import gallery


def circuit():
    """Three ways to tell two hidden layers: down the chain, straight from the output, straight from the label."""
    figure = Figure(figsize=(11.4, 2.9), layout="constrained")
    axes = figure.subplots(1, 3)
    titles = ("Feedback alignment", "Direct feedback alignment", "Direct random target projection")
    for ax, title, sent in zip(axes, titles, ("e", "e", "y*"), strict=True):
        error = "e" if sent == "e" else ""
        circuits.circuit(ax, ["x", "h₁", "h₂", "ŷ"], ["W₁", "W₂", "W₃"], [None] * 3, error=error, title=title)
        if sent == "y*":  # the label asks nobody: no arrow leads to it
            circuits.node(ax, (6, -1.3), sent, is_error=True)
        if title == "Feedback alignment":
            sends = [((5.64, -1.3), (4.1, -1.3), 0.0), ((3.9, -1.3), (2.1, -1.3), 0.0)]
            sends += [((4, -1.3), (4, -0.42), 0.0), ((2, -1.3), (2, -0.42), 0.0)]
            names = [(4.85, -1.4, "B₃"), (3, -1.4, "B₂")]
        else:
            sends = [((5.67, -1.2), (4, -0.42), -0.12), ((5.67, -1.38), (2, -0.42), -0.22)]
            names = [(4.55, -1.02, "B₂"), (2.55, -1.3, "B₁")]
        for begin, end, bend in sends:
            circuits.arrow(ax, begin, end, plots.RED, "--", connectionstyle=f"arc3,rad={bend}")
        for x, y, name in names:
            ax.text(x, y, name, color=plots.RED, fontsize=11, ha="center", va="top")
    return figure


def play(data):
    """The playground of direct feedback alignment at four feedback scales, for a reader without a kernel."""
    scales = {f"feedback scale {scale:g}": {"feedback_scale": scale} for scale in (0.1, 1.0, 3.0, 10.0)}
    more = {"accuracies": (70, 100), "training": {"lr": 0.03}, "activation": "tanh"}
    return gallery(cu.rules.DirectFeedbackAlignment, data, scales, [784, 128, 128, 10], **more)
