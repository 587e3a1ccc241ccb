"""Drawings of lesson 18 that no cell of it makes."""

import torch
from matplotlib.figure import Figure

import course_utils as cu
from course_utils import plots
from tools import circuits
from tools.gallery import gallery

BOUNDED = {"activation": "hard_sigmoid", "loss": "squared_error"}


def circuit():
    """The same network free and nudged: activity up and down one set of weights, and a spring at the output."""
    figure = Figure(figsize=(10, 3.3), layout="constrained")
    for ax, title, nudged in zip(
        figure.subplots(1, 2), ("Free: left alone", "Nudged: pulled a little"), (0, 1), strict=True
    ):
        names = ["x", "s₁ + Δ", "s₂ + Δ"] if nudged else ["x", "s₁", "s₂"]
        for i, name in enumerate(names):
            circuits.node(ax, (2.6 * i, 0), name if len(name) < 3 else "")
            if len(name) > 2:
                ax.text(2.6 * i, 0, name, ha="center", va="center", fontsize=8.5)
        for i, up in enumerate(("W₁", "W₂")):
            circuits.arrow(ax, (2.6 * i + 0.4, 0.1), (2.6 * i + 2.18, 0.1), plots.BLUE)
            ax.text(2.6 * i + 1.3, 0.2, up, ha="center", va="bottom", color=plots.BLUE, fontsize=12)
        circuits.arrow(ax, (4.8, -0.14), (3.02, -0.14), plots.BLUE, "--")
        ax.text(3.9, -0.24, "γ W₂, the same", ha="center", va="top", color=plots.BLUE, fontsize=11)
        if nudged:
            circuits.node(ax, (5.2, -1.5), "y", is_error=True)
            spring = torch.linspace(0, 1, 9)
            ax.plot(5.2 + 0.09 * torch.tensor([0, 1, -1, 1, -1, 1, -1, 1, 0]), -1.14 + 0.74 * spring, color=plots.RED)
            ax.text(5.4, -0.8, "spring β", color=plots.RED, fontsize=11, va="center")
        words = "each synapse sees (s₁+Δ)(s₂+Δ)" if nudged else "each synapse sees s₁ s₂"
        ax.text(1.9, -1.3, words, color=plots.BLACK, fontsize=11, ha="center")
        ax.set(xlim=(-0.6, 6.6), ylim=(-2.0, 0.8), aspect="equal", title=title)
        ax.axis("off")
    return figure


def nudge():
    """The output neuron's energy at a weak and a strong nudge: the lesson's first slider."""
    a, y, s = 0.4, 1.0, torch.linspace(-1.2, 1.6, 141)
    figure = Figure(figsize=(9.4, 3.2), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for ax, beta in zip(axes, (0.1, 0.6), strict=True):
        for strength, (color, line) in zip((beta, 0.0, -beta), plots.LAYER_STYLES, strict=False):
            F = 0.5 * s**2 - s * a + 0.5 * strength * (s - y) ** 2
            lowest = (a + strength * y) / (1 + strength)
            ax.plot(s, F - F.min(), color=color, linestyle=line, label=f"β = {strength:g}: rests at {lowest:.2f}")
            ax.plot(lowest, 0, "o", color=color)
        ax.axvline(y, color=plots.GREY, linewidth=0.8)
        ax.set(xlabel="state s of the output neuron (grey: the answer)", ylim=(-0.05, 1.2))
        ax.set_title("Weak: nearly equal shifts" if beta < 0.5 else "Strong: pushed further than pulled")
        plots.dress(ax)
    axes[0].set_ylabel("energy F, from its lowest point")
    return figure


def settling(data):
    """Output, hidden states and energy of a small network at four moments: the lesson's second slider."""
    rule = cu.rules.EquilibriumPropagation(cu.MLP([784, 64, 32, 10], activation="tanh", loss="squared_error"))
    cu.train(rule, cu.load_dataset("mnist", limit=10_000), epochs=2, lr=0.004, optimizer="adam", progress=False)
    digit, wanted = data.x_val[:1], (data.y_val[:1] + 1) % 10
    s, states, energy = rule.settle(digit, sweeps=0), [], []
    for sweep in range(61):
        s = rule.settle(digit, s, 1, *((0.5, wanted) if sweep > 30 else ())) if sweep else s
        states.append([h[0].tolist() for h in s[1:]])
        energy.append(rule.energy(s, digit, *((0.5, wanted) if sweep >= 30 else ())).item())
    figure = Figure(figsize=(10, 5.4), layout="constrained")
    axes = figure.subplots(2, 5, width_ratios=(1, 1, 1, 1, 1.5))
    for column, at in enumerate((0, 29, 32, 60)):
        for row, layer in enumerate((2, 1)):
            ax, units = axes[row, column], range(len(states[at][layer]))
            ax.bar(units, states[30][layer], width=0.9, color=plots.GREY, alpha=0.5, label="free, at rest")
            ax.plot(units, states[at][layer], "D", markersize=3, color=plots.BLUE, label="now")
            ax.set(ylim=(-1.1, 1.4), xlabel="unit of hidden layer 2" if row else "output unit")
            plots.dress(ax, legend=False)
        axes[0, column].set_title(f"after {at} sweeps", fontsize="medium")
        axes[0, column].axvline(wanted.item(), color=plots.RED, linestyle=":")
    for ax in axes[:, 0]:
        ax.set_ylabel("state s")
    for ax in axes[:, 4]:
        ax.remove()
    right = figure.add_subplot(axes[0, 0].get_gridspec()[:, 4])
    right.plot(range(30), energy[:30], color=plots.BLUE, label="free, E")
    right.plot(range(30, 61), energy[30:], "--", color=plots.RED, label="nudged, E + β L")
    right.set(xlabel="sweep", ylabel="energy of this example")
    plots.dress(right)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower left", ncols=2, frameon=False)
    return figure


def play(data):
    """The playground at its defaults, with full feedback, one-sided, and one-sided in haste, without a kernel."""
    runs = {
        "default: γ = 0.3, both sides": {},
        "γ = 1": {"feedback": 1.0},
        "one-sided": {"symmetric": False},
        "one-sided, 2 free sweeps": {"symmetric": False, "free_sweeps": 2},
    }
    return gallery(
        cu.rules.EquilibriumPropagation,
        data,
        runs,
        accuracies=(50, 100),
        angles=(-3, 165),
        training={"lr": 0.03},
        **BOUNDED,
    )
