"""Drawings of lesson 28 that no cell of it makes."""

from matplotlib.figure import Figure
from matplotlib.patches import Circle

import course_utils as cu
from course_utils import plots, runs
from tools import circuits


def race():
    """One network, one race; the families of rules take turns in the place of rule.backward."""
    figure = Figure(figsize=(9.6, 3.5))
    ax = figure.add_axes((0, 0, 1, 1))
    layers = {0.7: 5, 1.8: 4, 2.9: 4, 4.0: 3}  # x: circles
    for (x0, n0), (x1, n1) in zip(list(layers.items())[:-1], list(layers.items())[1:], strict=True):
        for i in range(n0):
            for j in range(n1):
                ends = [2.75 + 0.36 * (i - (n0 - 1) / 2), 2.75 + 0.36 * (j - (n1 - 1) / 2)]
                ax.plot([x0, x1], ends, color=plots.BLUE, linewidth=0.5, alpha=0.5, zorder=1)
    for x, n in layers.items():
        for i in range(n):
            ax.add_patch(Circle((x, 2.75 + 0.36 * (i - (n - 1) / 2)), 0.13, facecolor="white", edgecolor=plots.BLACK))
    ax.text(2.35, 3.85, "the same network, the same images, the same optimiser", ha="center", fontsize=11)
    look = {"facecolor": "#FBE9DF", "edgecolor": plots.RED, "linewidth": 1.5, "boxstyle": "round,pad=0.35"}
    ax.text(
        2.35, 1.4, "loss = rule.backward(x, y)", ha="center", va="center", fontsize=12, family="monospace", bbox=look
    )
    families = "backprop", "random\nfeedback", "copied\nfeedback", "try\nand see", "settle\nfirst", "forward\nonly"
    for i, (name, (color, _)) in enumerate(zip(families, plots.LAYER_STYLES, strict=True)):
        box = {"facecolor": "white", "edgecolor": color, "linewidth": 1.5, "boxstyle": "round,pad=0.3"}
        ax.text(0.45 + 0.8 * i, 0.35, name, ha="center", va="center", fontsize=9, bbox=box)
        ax.plot([0.45 + 0.8 * i, 2.35], [0.64, 1.12], color=color, linewidth=1, linestyle="-" if i == 1 else ":")
    circuits.arrow(ax, (4.5, 2.4), (5.6, 2.4), plots.BLACK)
    questions = (
        "How many images are right, over five seeds?",
        "At what price: images, seconds, operations, memory?",
        "How much hangs on the learning rate? On depth?",
        "Is it the length of the steps, or their direction?",
        "Does pointing at the gradient explain it?",
        "Does plausibility cost anything?",
    )
    for i, question in enumerate(questions):
        ax.text(5.75, 3.5 - 0.48 * i, question, va="center", fontsize=10.5)
    ax.set(xlim=(-0.05, 10.2), ylim=(0, 4.1))
    ax.axis("off")
    return figure


def table():
    """The stored table of lesson 28: every seed a dot, rules sorted, controls as lines."""
    stored = cu.stored_results(28)
    stored = stored[stored.sizes.isin(["784-128-128-10", "784-10"]) & ~stored.rule.str.startswith("MatchedSteps(")]
    wrong = stored.dropna(subset=["test_accuracy"]).assign(wrong=lambda frame: 100 - 100 * frame.test_accuracy)
    names = {}
    for rule, sizes in wrong[["rule", "sizes"]].drop_duplicates().itertuples(index=False):
        given = "" if rule.startswith("Frozen") else rule.partition("(")[2].rstrip(")")
        title = runs.make_rule(rule, [20, 5, 2], 0).title + (f", {given}" if given else "")
        names[rule, sizes] = "Softmax regression" if sizes == "784-10" else title
    wrong = wrong.assign(row=[names[key] for key in zip(wrong.rule, wrong.sizes, strict=True)])
    order = wrong.groupby("row").wrong.mean().sort_values(ascending=False)
    figure = Figure(figsize=(9.6, 6.2), layout="constrained")
    ax = figure.subplots()
    for y, row in enumerate(order.index):
        values = wrong[wrong.row == row].wrong
        look = {"color": plots.style(row)["color"]}
        ax.plot([values.min(), values.max()], [y, y], linewidth=1, **look)
        ax.plot(values, [y] * len(values), "o", markersize=4, **look)
    for row, line in (
        ("Backprop", "-"),
        (names["FrozenHidden(Backprop)", "784-128-128-10"], ":"),
        ("Softmax regression", "-."),
    ):
        ax.axvline(order[row], color=plots.GREY, linestyle=line, linewidth=1, label=row)
    ax.set_yticks(range(len(order)), order.index, fontsize="small")
    title = f"784-128-128-10, five epochs, Adam; each dot a seed; measured {stored.measured.max()}"
    ax.set(xscale="log", xlabel="test images wrong (%), log scale", title=title)
    ax.set_xticks([2, 3, 5, 10, 20, 50], ["2", "3", "5", "10", "20", "50"])
    ax.minorticks_off()
    ax.invert_xaxis()
    plots.dress(ax)
    return figure
