"""Drawings of lesson 19 that no cell of it makes."""

from matplotlib.figure import Figure

import course_utils as cu
from course_utils import plots
from tools import circuits
from tools.gallery import gallery

UNIT = {"activation": "hard_sigmoid", "loss": "squared_error"}


def circuit():
    """The three rules: what comes down, and what a synapse or a second network makes of it."""
    figure = Figure(figsize=(10.2, 3.5), layout="constrained")
    rules = {
        "Contrastive Hebbian": ("γ W₂ᵀ", "without y:  s₁⁻, ŷ⁻\nwith y:  s₁⁺, ŷ⁺", "W₂ learns from ŷ⁺s₁⁺ − ŷ⁻s₁⁻"),
        "GeneRec": ("γ B₂", "without y:  s₁⁻, ŷ⁻\nwith y:  s₁⁺, ŷ⁺", "W₂ learns from (ŷ⁺ − ŷ⁻) s₁⁻"),
        "Almeida–Pineda": ("γ W₂ᵀ", "", "W₂ learns from z₂ s₁ + γ ŷ z₁"),
    }
    for ax, (title, (down, phases, words)) in zip(figure.subplots(1, 3), rules.items(), strict=True):
        circuits.circuit(ax, ["x", "s₁", "ŷ"], ["W₁", "W₂"], [None, None], error="", title=title)
        circuits.arrow(ax, (3.62, -0.2), (2.38, -0.2), plots.ORANGE, "--" if "B" in down else "-")
        ax.text(3, -0.28, down, color=plots.ORANGE, fontsize=10, ha="center", va="top")
        ax.text(2, 0.95, words, color=plots.BLACK, fontsize=10, ha="center")
        if phases:
            ax.text(2, -1.25, phases, color=plots.BLUE, fontsize=10, ha="center", va="center")
        else:
            for place, name in ((2, "z₁"), (4, "z₂")):
                circuits.node(ax, (place, -1.3), name, is_error=True)
                circuits.arrow(ax, (place, -0.4), (place, -0.94), plots.RED, ":")
            circuits.arrow(ax, (3.64, -1.22), (2.36, -1.22), plots.RED)
            circuits.arrow(ax, (2.36, -1.4), (3.64, -1.4), plots.RED)
        ax.set(ylim=(-1.85, 1.3))
    return figure


def settling(data):
    """The animated settling of the lesson at three of its sweeps, for a reader without a kernel."""
    net = cu.MLP([784, 32, 10], activation="tanh", loss="squared_error", seed=2)
    pupil = cu.rules.ContrastiveHebbian(net, feedback=0.3, damping=0.3)
    few = cu.load_dataset("mnist", limit=5_000)
    cu.train(pupil, few, epochs=1, lr=0.01, optimizer="adam", progress=False)
    x, y = data.x_val[[9]], data.y_val[[9]]
    h = [a.detach() for a in net.activations(x)]
    delta = (net.output_error(h[-1], y) @ net.weights[1].detach())[0] * net.derivative(h[1])[0]
    free = pupil.settle(x, sweeps=21)
    told = [*free[:-1], pupil.output(free[-1], None, 1.0, y)]
    figure = Figure(figsize=(10, 3.3), layout="constrained")
    moments = {
        "sweep 0": (pupil.settle(x, sweeps=0),) * 2,
        "sweep 21, before the answer": (free, free),
        "sweep 40, 19 after it": (pupil.settle(x, free, 19), pupil.settle(x, told, 19, 1.0, y)),
    }
    for ax, (title, (without, with_it)) in zip(figure.subplots(1, 3, sharey=True), moments.items(), strict=True):
        ax.plot([-0.3, 0.3], [-0.3, 0.3], ":", color=plots.BLACK, label="equal")
        change = ((without[1] - with_it[1])[0] / pupil.feedback).detach().cpu()
        ax.plot(delta.cpu(), change, "s", color=plots.PURPLE, markersize=4, label="a hidden unit")
        ax.set(xlabel="backprop's δ", title=title, xlim=(-0.35, 0.35), ylim=(-0.35, 0.35))
        plots.dress(ax)
    figure.axes[0].set_ylabel("−Δs/γ, with the answer and without")
    return figure


def play(data):
    """The playground at three gains and with a gentle teacher, for a reader without a kernel."""
    runs = {f"γ = {gain:g}": {"feedback": gain} for gain in (0.03, 0.3, 1.0)}
    runs["γ = 1, clamp 0.1"] = {"feedback": 1.0, "clamp": 0.1}
    return gallery(cu.rules.ContrastiveHebbian, data, runs, angles=(0, 125), training={"epochs": 1, "lr": 0.1}, **UNIT)
