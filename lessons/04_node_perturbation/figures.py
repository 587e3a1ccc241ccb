"""Drawings of lesson 04 that no cell of it makes."""

from matplotlib.figure import Figure

import course_utils as cu
from course_utils import plots
from tools import circuits
from tools.gallery import gallery


def circuit():
    """Noise on every synapse beside noise on every unit; the same single number goes to everybody."""
    figure = Figure(figsize=(9.6, 3.3), layout="constrained")
    titles = "Weight perturbation: shake every synapse", "Node perturbation: shake every unit"
    for ax, title, by_unit in zip(figure.subplots(1, 2), titles, (False, True), strict=True):
        circuits.circuit(ax, ["x", "h₁", "ŷ"], ["W₁", "W₂"], [None, None], error="ΔL", title=title)
        for x, name in ((2, "ξ₁"), (4, "ξ₂")) if by_unit else ((1.35, "ψ₁"), (3.35, "ψ₂")):
            circuits.arrow(ax, (x, 0.98), (x, 0.4 if by_unit else 0.04), plots.GREEN)
            ax.text(x, 1.0, name, ha="center", va="bottom", color=plots.GREEN, fontsize=13)
            begin, end = ((4.25, -1.0), (4.25, -0.3)) if x == 4 else ((3.64, -1.3), (x, -0.4 if by_unit else -0.04))
            circuits.arrow(ax, begin, end, plots.RED, "--")
        ax.text(0.2, -1.3, "one number,\nthe same for all", color=plots.RED, fontsize=11, va="center")
        ax.set(ylim=(-1.85, 1.4))
    return figure


def play(data):
    """The playground with 1, 4, 16 and 64 tries, for a reader without a kernel."""
    tries = {f"{draws} tries" if draws > 1 else "1 try": {"draws": draws} for draws in (1, 4, 16, 64)}
    return gallery(cu.rules.NodePerturbation, data, tries, training={"lr": 0.01})
