"""Drawings of lesson 17 that no cell of it makes."""

import torch
from matplotlib.figure import Figure

import course_utils as cu
from course_utils import plots
from tools import circuits
from tools.gallery import gallery


def circuit():
    """Predictive coding beside both streams: each layer predicted once, or from both sides."""
    figure = Figure(figsize=(9.6, 2.2), layout="constrained")
    titles = "Predictive coding", "Bidirectional predictive coding"
    for ax, title in zip(figure.subplots(1, 2), titles, strict=True):
        names = ["x", "v₁", "v₂", "y"]
        circuits.circuit(ax, names, ["W₁", "W₂", "W₃"], [None] * 3, error="", title=title)
        both = title.startswith("Bi")
        for l in range(1, 4):
            ax.text(2 * l, 0.5, f"e{'₀₁₂₃'[l]}", color=plots.BLUE, ha="center", va="bottom", fontsize=11)
        for l in range(3 if both else 0):
            ends = (2 * l + 1.75, -0.32), (2 * l + 0.25, -0.32)
            circuits.arrow(ax, *ends, plots.RED, connectionstyle="arc3,rad=-0.35")
            ax.text(2 * l + 1, -0.72, f"V{'₁₂₃'[l]}", color=plots.RED, ha="center", va="top", fontsize=12)
            ax.text(2 * l, -0.5, f"g{'₀₁₂'[l]}", color=plots.RED, ha="center", va="top", fontsize=11)
        ax.set(ylim=(-1.1, 0.95))
    return figure


def play(data):
    """The playground at four weights of the generative stream, for a reader without a kernel."""
    weights = (1e-4, 3e-3, 0.1, 1.0)
    runs = {f"generative {beta:g}": {"generative": beta, "inference_rate": 0.03} for beta in weights}
    more = {"training": {"optimizer": "adam"}, "loss": "squared_error"}
    return gallery(cu.rules.BidirectionalPredictiveCoding, data, runs, **more)


def clamp(data):
    """Drawings for labels on the way from one digit to another: lesson 17's first slider."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    rule = cu.rules.BidirectionalPredictiveCoding(cu.MLP([784, 256, 256, 10], loss="squared_error"))
    cu.train(rule, data, epochs=2, lr=2e-3, optimizer="adam", progress=False)
    for ax, (first, second) in zip(figure.subplots(3, 1), ((3, 8), (4, 9), (1, 7)), strict=True):
        shares = torch.linspace(0, 1, 5)
        labels = torch.zeros(5, 10)
        labels[:, first], labels[:, second] = 1 - shares, shares
        words = [f"{1 - share:.0%} {first}, {share:.0%} {second}" for share in shares.tolist()]
        plots.images(ax, rule.generate(labels), titles=words)
    return figure
