"""Drawings of lesson 16 that no cell of it makes."""

from matplotlib.figure import Figure

import course_utils as cu
from course_utils import plots
from tools import circuits
from tools.gallery import gallery


def circuit():
    """Predictive coding beside its incremental form: who moves when, and what brings the errors down."""
    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    titles = "Predictive coding: settle, then learn", "Incremental, learned feedback: both at every sweep"
    for ax, title, learned in zip(figure.subplots(1, 2), titles, (False, True), strict=True):
        circuits.circuit(ax, ["x", "v₁", "ŷ"], ["W₁", "W₂"], [None, None], error="ξ₂", title=title)
        circuits.node(ax, (2, -1.3), "ξ₁", is_error=True)
        circuits.arrow(ax, (2, -0.38), (2, -0.96), plots.RED, arrowstyle="<|-|>")
        circuits.arrow(ax, (3.7, -1.14), (2.3, -0.27), plots.RED, "-" if learned else ":")
        words = "B₂: learned,\nnever a copy" if learned else "W₂ᵀ:\na copy"
        ax.text(3.0, -1.15, words, color=plots.RED, fontsize=10, ha="center", va="top")
        moves = "W₁, W₂ and B₂ move after every sweep" if learned else "W₁, W₂ move once, after the last sweep"
        ax.text(2, 0.95, moves, color=plots.BLUE, fontsize=11, ha="center")
        ax.set(ylim=(-1.85, 1.3))
    return figure


def play(data):
    """The playground at three waits and with noisy states, for a reader without a kernel."""
    runs = {f"wait {wait}": {"wait": wait} for wait in (1, 4, 8)}
    runs["wait 1, state noise 0.3"] = {"wait": 1, "state_noise": 0.3}
    return gallery(cu.rules.IncrementalPredictiveCoding, data, runs, training={"epochs": 0.5, "lr": 0.01})
