"""Drawings of lesson 11 that no cell of it makes."""

import torch
from matplotlib.figure import Figure

import course_utils as cu
from course_utils import plots
from tools import circuits


def circuit():
    """Three neurons in a chain, each on what those before leave over, and a readout that alone hears the label."""
    figure = Figure(figsize=(9.6, 3.4), layout="constrained")
    ax = figure.subplots()
    circuits.node(ax, (0, 0), "x")
    for i, (name, left) in enumerate((("y₁", "x"), ("y₂", "x − y₁w₁"), ("y₃", "x − y₁w₁ − y₂w₂"))):
        at = 2.6 * (i + 1)
        circuits.arrow(ax, (at - 2.2, 0), (at - 0.4, 0), plots.BLUE)
        ax.text(at - 1.3, -0.16, left, ha="center", va="top", color=plots.BLUE, fontsize=10)
        circuits.node(ax, (at, 0), name)
        circuits.arrow(ax, (at, 0.42), (9.3, 1.5 - 0.12 * i), plots.GREY)
    circuits.arrow(ax, (8.2, 0), (10.2, 0), plots.BLUE, ":")
    ax.text(9.3, -0.16, "… and what is left", ha="center", va="top", color=plots.BLUE, fontsize=10)
    circuits.node(ax, (9.75, 1.5), "ŷ")
    circuits.node(ax, (11.2, 1.5), "e", is_error=True)
    circuits.arrow(ax, (10.82, 1.5), (10.17, 1.5), plots.RED)
    ax.text(10.5, 1.9, "the label ends here", ha="center", va="bottom", color=plots.RED, fontsize=10)
    ax.set(xlim=(-0.6, 11.8), ylim=(-0.8, 2.3), aspect="equal")
    ax.axis("off")
    return figure


def edge():
    """Length of an Oja neuron at four rates: the lesson's first slider."""
    figure = Figure(figsize=(10, 2.7), layout="constrained")
    for ax, product in zip(figure.subplots(1, 4, sharey=True), (0.05, 0.5, 0.95, 1.2), strict=True):
        c, lengths = 0.3, []
        for _ in range(80):
            lengths.append(abs(c))
            c += product * c * (1 - c * c)
        ax.plot(lengths, "o-", markersize=2.5, linewidth=1, color=plots.RED)
        ax.axhline(1, color=plots.GREY, linestyle="--")
        ax.set(xlabel="step", ylim=(0, 1.6), title=f"η λ₁ = {product}")
        plots.dress(ax)
    figure.axes[0].set_ylabel("length of w")
    return figure


class MeanLeftIn(cu.rules.Sanger):
    title = "Sanger, mean left in"

    def move_statistics(self, x):
        super().move_statistics(x)
        self.means[0].zero_()


def play(data):
    """Filters after 20,000 images at three rates and with the mean left in, with validation accuracy."""
    some = cu.load_dataset("mnist", limit=20_000)
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    kinds = {f"rate {rate:g}": (cu.rules.Sanger, {"rate": rate}) for rate in (0.01, 0.1, 0.2)}
    kinds["mean left in,\nrate 0.01"] = (MeanLeftIn, {"rate": 0.01})
    for ax, (name, (rule_class, knobs)) in zip(figure.subplots(4, 1), kinds.items(), strict=True):
        rule = rule_class(cu.MLP([784, 64, 10], activation="linear"), **knobs)
        cu.train(rule, some, epochs=1, lr=0.2, progress=False)
        right = 100 * cu.evaluate(rule, data.x_val, data.y_val)
        plots.images(ax, torch.nan_to_num(rule.net.weights[0].detach()[:12].cpu()))
        ax.set_ylabel(f"{name}\n{right:.1f} %", rotation=0, ha="right", va="center")
        figure.patch.set_facecolor("white")
    return figure
