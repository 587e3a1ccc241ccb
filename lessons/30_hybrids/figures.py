"""Drawings of lesson 30 that no cell of it makes."""

from matplotlib.figure import Figure

import course_utils as cu
from course_utils import plots
from tools import circuits
from tools.gallery import gallery


def circuit():
    """Two ways to join two rules: their messages are added up, or the one teaches the other's feedback."""
    figure = Figure(figsize=(9.6, 3.3), layout="constrained")
    titles = "Mixing: two messages are added up", "Teaching: one message corrects the other"
    for ax, title in zip(figure.subplots(1, 2), titles, strict=True):
        mixing = title.startswith("Mixing")
        circuits.circuit(ax, ["x", "h₁", "ŷ"], ["W₁", "W₂"], [None, "B₂" if mixing else "B₂, taught"], title=title)
        ax.text(2, 0.75, "shaken by ξ", ha="center", color=plots.GREEN, fontsize=11)
        if mixing:
            ends = (3.64, -1.4), (1.72, -0.3)
            words = "ΔL, one number: how much\nthe shaking changed the loss"
        else:
            ends = (3.64, -1.4), (2.95, -0.92)
            words = "ΔL ξ: what B₂\nshould have said"
        circuits.arrow(ax, *ends, plots.GREEN, ":", connectionstyle="arc3,rad=-0.35")
        ax.text(1.5, -1.45, words, ha="center", va="top", color=plots.GREEN, fontsize=11)
        ax.set(ylim=(-2.3, 1.1))
    return figure


def play(data):
    """The playground's blend of node perturbation and feedback alignment, for a reader without a kernel."""
    blends = {f"blend {blend:g}": {"blend": blend, "first": "NodePerturbation"} for blend in (0.0, 0.5, 0.9, 1.0)}
    return gallery(cu.rules.Blend, data, blends, training={"lr": 0.02})
