"""Drawings of lesson 15 that no cell of it makes."""

from dataclasses import replace

from matplotlib.figure import Figure

import course_utils as cu
from course_utils import plots
from tools import circuits
from tools.gallery import gallery


def circuit():
    """Backprop beside predictive coding: a pass back, or errors of each layer's own that push states."""
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    names, weights = ["x", "h₁", "h₂", "ŷ"], ["W₁", "W₂", "W₃"]
    circuits.circuit(left, names, weights, [None] * 3, title="Backprop: a pass up, then a pass down")
    circuits.arrow(left, (5.64, -1.3), (4.1, -1.3), plots.RED, "--")
    circuits.arrow(left, (3.9, -1.3), (2.1, -1.3), plots.RED, "--")
    for x, name in ((4, "W₃ᵀ"), (2, "W₂ᵀ")):
        circuits.arrow(left, (x, -1.3), (x, -0.42), plots.RED, "--")
        left.text(x + 0.9, -1.4, name, color=plots.RED, fontsize=11, ha="center", va="top")
    for i, name in enumerate(["x", "v₁", "v₂", "y"]):
        circuits.node(right, (2.4 * i, 0), name)
        if i == 0:
            continue
        circuits.node(right, (2.4 * i, -1.5), f"ε{'₁₂₃'[i - 1]}", is_error=True)
        circuits.arrow(right, (2.4 * i, -0.42), (2.4 * i, -1.12), plots.BLACK, arrowstyle="<|-|>")
        circuits.arrow(right, (2.4 * i - 2.1, -0.3), (2.4 * i - 0.36, -1.5), plots.BLUE)
        right.text(2.4 * i - 1.5, -1.12, weights[i - 1], color=plots.BLUE, fontsize=12, ha="right")
        if i > 1:
            circuits.arrow(right, (2.4 * i - 0.22, -1.2), (2.4 * i - 2.04, -0.12), plots.RED, "--")
            right.text(2.4 * i - 0.95, -0.52, weights[i - 1] + "ᵀ", color=plots.RED, fontsize=11, ha="left")
    right.set(
        xlim=(-0.6, 7.8), ylim=(-2.05, 0.75), aspect="equal", title="Predictive coding: errors between neighbours"
    )
    right.axis("off")
    return figure


def settling(data):
    """States, errors and energy of a small network at four moments of its settling: the lesson's slider."""
    rule = cu.rules.PredictiveCoding(cu.MLP([784, 64, 32, 10], activation="tanh"))
    less = replace(data, x_train=data.x_train[:20_000], y_train=data.y_train[:20_000])
    cu.train(rule, less, epochs=1, progress=False)
    s, v, errors, energies = rule.settling(rule, data.x_val[:1], (data.y_val[:1] + 1) % 10), [], [], []
    for _ in range(101):
        v.append(s.v[2][0].tolist())
        errors.append([max(e.pow(2).mean().sqrt().item(), 1e-6) for e in s.e[1:]])
        energies.append([*(0.5 * e.pow(2).sum().item() for e in s.e[1:-1]), rule.net.loss(s.output, s.y).item()])
        s.sweep()
    figure = Figure(figsize=(9.6, 5.2), layout="constrained")
    axes = figure.subplots(2, 4)
    for ax, at in zip(axes[0], (0, 2, 12, 100), strict=True):
        ax.bar(range(32), v[0], width=0.9, color=plots.GREY, alpha=0.5, label="feed-forward")
        ax.plot(v[at], "D", markersize=3, color=plots.BLUE, label="now")
        ax.set(ylim=(-4, 4), xlabel="unit of layer 2", title=f"after {at} sweeps")
    axes[0, 0].set_ylabel("state v")
    grid = axes[0, 0].get_gridspec()
    for ax in axes[1]:
        ax.remove()
    left, right = figure.add_subplot(grid[1, :2]), figure.add_subplot(grid[1, 2:])
    names = ["layer 1", "layer 2", "output"]
    for name, (color, line), column in zip(names, plots.LAYER_STYLES, zip(*errors, strict=True), strict=False):
        left.semilogy(column, color=color, linestyle=line, label=name)
    left.set(xlabel="sweep", ylabel="error (rms over units)", ylim=(1e-4, 2))
    colors = [color for color, _ in plots.LAYER_STYLES[:3]]
    right.stackplot(range(101), list(zip(*energies, strict=True)), colors=colors, alpha=0.6, labels=names)
    right.set(xlabel="sweep", ylabel="energy F")
    for ax in (*axes[0], left, right):
        plots.dress(ax, legend=ax in (axes[0, 0], left, right))
    return figure


def play(data):
    """The playground settled, hardly settled, after one sweep, and shaken, for a reader without a kernel."""
    runs = {
        "T = 12, γ = 0.2": {},
        "T = 20, γ = 0.01": {"inference_steps": 20, "inference_rate": 0.01},
        "T = 1, γ = 0.2": {"inference_steps": 1},
        "T = 12, γ = 0.2, noise 0.1": {"state_noise": 0.1},
    }
    more = {"accuracies": (50, 100), "training": {"lr": 0.1}}
    return gallery(cu.rules.PredictiveCoding, data, runs, [784, 128, 128, 10], **more)
