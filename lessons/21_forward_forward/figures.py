"""Drawings of lesson 21 that no cell of it makes."""

from matplotlib.figure import Figure

import course_utils as cu
from course_utils import plots
from tools import circuits
from tools.gallery import gallery


def circuit():
    """Forward-Forward's two passes: every layer turns its own goodness up or down, and nothing leads back."""
    figure = Figure(figsize=(9.6, 2.9), layout="constrained")
    passes = {
        "a true pair: every layer gets louder": ("label 5", "goodness ▲", plots.BLUE),
        "a false pair: every layer gets quieter": ("label 3", "goodness ▼", plots.RED),
    }
    for ax, (title, (label, goodness, color)) in zip(figure.subplots(1, 2), passes.items(), strict=True):
        for i, name in enumerate(("x", "h₁", "h₂")):
            circuits.node(ax, (2.4 * i, 0), name)
            if i:
                circuits.arrow(ax, (2.4 * i - 2, 0), (2.4 * i - 0.4, 0), plots.BLUE)
                ax.text(2.4 * i - 1.2, 0.12, f"W{'₁₂'[i - 1]}", ha="center", color=plots.BLUE, fontsize=12)
                ends = (2.4 * i, 0.42), (2.4 * i - 1.15, 0.42)
                circuits.arrow(ax, *ends, color, "--", connectionstyle="arc3,rad=0.45")
                ax.text(2.4 * i - 0.5, 0.95, goodness, ha="center", color=color, fontsize=11)
        ax.text(0, -0.55, f"an image of a 5\nwith the {label}", ha="center", va="top", fontsize=11, color=color)
        ax.text(3.6, -0.55, "nothing leads back", ha="center", va="top", fontsize=11, color=plots.GREY)
        ax.set(xlim=(-1.1, 5.5), ylim=(-1.4, 1.3), aspect="equal", title=title)
        ax.axis("off")
    return figure


def play(data):
    """The playground of Forward-Forward at three thresholds and with one that moves, for a reader without a kernel."""
    moving = [(0, 30.0), (len(data.x_train) // 2, 2.0)]
    runs = {f"threshold {name}": {"threshold": float(name)} for name in ("0.1", "2", "30")}
    runs["threshold 30, then 2"] = {"threshold": moving}
    training = {"lr": 0.003, "optimizer": "adam"}
    return gallery(cu.rules.ForwardForward, data, runs, [784, 128, 128, 10], angles=None, training=training)
