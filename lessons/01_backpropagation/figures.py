"""Drawings of lesson 01 that no cell of it makes."""

from matplotlib.figure import Figure

import course_utils as cu
from course_utils import plots
from tools import circuits
from tools.gallery import gallery


def circuit():
    """Backprop beside tilted feedback: the way back is a copy, or a copy turned by an angle."""
    figure = Figure(figsize=(9.6, 3.1), layout="constrained")
    backs = {
        "Backprop": "back through W₂ᵀ:\na second synapse that\nmust copy the first",
        "Tilted feedback": "back through B₂ᵀ:\nW₂ turned by an angle θ\ntowards a random matrix",
    }
    for ax, (title, back) in zip(figure.subplots(1, 2), backs.items(), strict=True):
        circuits.circuit(ax, ["x", "h₁", "ŷ"], ["W₁", "W₂"], [None, back], feedback_fixed=False, title=title)
    return figure


def play(data):
    """The feedback angle moved while training runs, for a reader without a kernel."""
    images = len(data.x_train)
    moves = {0: 0.0, 25_000: 60.0, 45_000: 100.0, 90_000: 0.0}  # after that many samples of two epochs of MNIST
    schedule = [(begin * images // 55_000, theta) for begin, theta in moves.items()]
    runs = {
        "always the same D": {"feedback_angle": schedule},
        "D redrawn every step": {"feedback_angle": schedule, "redraw": True},
    }
    training = {"epochs": 2, "lr": 0.03, "eval_every": images * 2 // 55, "probe_every": images // 110}
    limits = {"accuracies": (0, 112), "angles": (-5, 130)}
    figure = gallery(cu.rules.TiltedFeedback, data, runs, training=training, **limits)
    ends = [*(begin for begin, _ in schedule[1:]), 2 * images]
    for ax, corner in zip(figure.axes, ("lower left", "lower center"), strict=True):
        for (begin, theta), end in zip(schedule, ends, strict=True):
            ax.axvline(begin, color=plots.GREY, linewidth=0.7, linestyle=":")
            ax.text((begin + end) / 2, ax.get_ylim()[1], f"θ = {theta:.0f}°", ha="center", va="top", fontsize="small")
        ax.legend(loc=corner, frameon=False, fontsize="small")
    return figure
