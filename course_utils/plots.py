"""Figures of the course: one palette, curves with bands, angles with their chance band, circuits.

Every function draws on the axes it is given and returns nothing, so that a lesson's cell stays plain matplotlib.
"""

import textwrap
from itertools import cycle

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch

from course_utils.metrics import chance_band

# Okabe and Ito's colours, told apart by every kind of colour vision; the line style says the same once more.
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PURPLE = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)
GREY = "#7F7F7F"
STYLES = {
    "Backprop": (BLACK, "-"),
    "Frozen hidden": (GREY, ":"),
    "Feedback alignment": (BLUE, "--"),
    "Direct feedback alignment": (GREEN, (0, (5, 1))),
    "Error-sign DFA": (SKY, ":"),
    "Direct random target projection": (ORANGE, (0, (3, 1, 1, 1))),
    "Sign symmetry": (SKY, "--"),
    "Kolen–Pollack": (RED, "-."),
    "Weight mirror": (PURPLE, (0, (3, 1, 1, 1))),
    "Weight perturbation": (RED, (0, (3, 1, 1, 1))),
    "Weight forward gradient": (RED, ":"),
    "Node perturbation": (GREEN, "-."),
    "Activity forward gradient": (PURPLE, "--"),
    "Predictive coding": (BLUE, "-."),
    "Near backprop": (PURPLE, ":"),
    "Incremental predictive coding": (ORANGE, "--"),
    "Incremental PC, learned feedback": (RED, (0, (5, 1))),
    "Bidirectional predictive coding": (GREEN, ":"),
    "Forward-Forward": (PURPLE, "-."),
    "PEPITA": (ORANGE, ":"),
    "Softmax regression": (ORANGE, "-."),
    "Tilted feedback": (SKY, (0, (5, 1))),
    "Blend": (PURPLE, (0, (5, 1))),
    "Node perturbation + feedback alignment": (PURPLE, (0, (5, 1))),
    "Layered": (ORANGE, (0, (5, 1))),
    "Random freezing": (GREY, "-."),
    "Feedback taught by perturbation": (ORANGE, "-"),
}
_OTHERS = [(RED, "-."), (GREEN, (0, (5, 1))), (ORANGE, (0, (3, 1, 1, 1))), (PURPLE, "--"), (SKY, "-")]
LAYER_STYLES = [(BLUE, "-"), (RED, "--"), (GREEN, "-."), (PURPLE, ":"), (ORANGE, "-"), (SKY, "--")]
PALE = [(ORANGE, "--"), (GREEN, "-."), (PURPLE, ":"), (SKY, (0, (5, 1)))]  # earlier runs
UNITS = {
    "samples": "training images seen",
    "seconds": "training time (s)",
    "epoch": "epoch",
    "val_accuracy": "validation accuracy (%)",
    "train_accuracy": "training accuracy (%)",
    "val_loss": "validation loss",
    "train_loss": "training loss",
}


def style(name):
    """{"color", "linestyle"} of a rule's title: always the same for the same name."""
    if "frozen" in name.lower():
        name = "Frozen hidden"
    color, line = STYLES.get(name) or _OTHERS[sum(map(ord, name)) % len(_OTHERS)]
    return {"color": color, "linestyle": line}


def curves(ax, histories, y="val_accuracy", x="samples"):
    """Draw {label: History or frame} as column y against column x; accuracies in percent."""
    for name, history in histories.items():
        frame = getattr(history, "frame", history)
        scale = 100 if "accuracy" in y else 1
        ax.plot(frame[x], scale * frame[y], label=name, linewidth=1.8, **style(name))
    ax.set(xlabel=UNITS.get(x, x), ylabel=UNITS.get(y, y))
    dress(ax)


def stored_band(ax, frame, name, column="val_accuracy"):
    """The range over seeds of a stored results frame (one rule), with the mean as a thin line, in percent."""
    groups = 100 * frame.groupby("samples")[column].agg(["min", "mean", "max"])
    look = style(name)
    when = f"{frame.seed.nunique()} stored seeds, {frame.device.iloc[0]}, {frame.measured.iloc[0]}"
    ax.fill_between(
        groups.index, groups["min"], groups["max"], color=look["color"], alpha=0.2, linewidth=0, label=f"{name}: {when}"
    )
    ax.plot(groups.index, groups["mean"], linewidth=0.7, **look)


def angles(ax, history, net, x="samples"):
    """Angle of each layer's estimate to the true gradient, over the band where 95 % of random directions lie."""
    frame = getattr(history, "frame", history)
    if "angle_1" not in frame:
        raise ValueError("this history holds no angles; train with probe_every=…, a number of samples")
    for l in range(net.depth):
        color, line = LAYER_STYLES[l % len(LAYER_STYLES)]
        probed = frame.dropna(subset=[f"angle_{l + 1}"])
        ax.plot(probed[x], probed[f"angle_{l + 1}"], color=color, linestyle=line, linewidth=1.8, label=f"layer {l + 1}")
    smallest = min(w.numel() + b.numel() for w, b in zip(net.weights, net.biases, strict=True))
    draw_chance_band(ax, smallest)
    ax.set(xlabel=UNITS.get(x, x), ylabel="angle to the true gradient (°)", ylim=(-4, 124), yticks=range(0, 121, 30))
    dress(ax)


def draw_chance_band(ax, dimensions):
    """Shade where 95 % of random directions in that many dimensions lie around 90°."""
    low, high = chance_band(dimensions)
    ax.axhspan(low, high, color=GREY, alpha=0.3, linewidth=0, label=f"chance ({dimensions:,} weights)")


def dress(ax, legend=True):
    """The house look: light grid, no box, an opaque white ground (readable on a dark page), a legend."""
    ax.figure.patch.set_facecolor("white")
    ax.set_facecolor("white")
    ax.grid(alpha=0.25, linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    if ax.get_xlabel() == UNITS["samples"]:
        ax.locator_params(axis="x", nbins=5)
        ax.xaxis.set_major_formatter("{x:,.0f}")
    if legend and ax.get_legend_handles_labels()[0]:
        ax.legend(frameon=False, fontsize="small")


def runs(figure, rule, shown, samples, warning=""):
    """Accuracy and angles of several runs of one rule, a legend under each: the picture of the playground.

    shown: (look, settings, frame) of each run; the first is drawn in full, the others pale, their looks being
    (color, linestyle) from `PALE`. settings: {name: number or schedule}; the legend says what differs.
    samples: end of the x axis. warning: words across the left axes.
    """
    figure.clear()
    left, right = figure.add_axes((0.065, 0.39, 0.41, 0.54)), figure.add_axes((0.555, 0.39, 0.41, 0.54))
    _, first, frame = shown[0]
    differ = [name for name in first if len({str(settings[name]) for _, settings, _ in shown}) > 1] or ["lr"]
    curves(left, {rule.title: frame})
    left.lines[0].set_label(f"this run: {_settings_in_words(first, differ)}")
    layers = [f"angle_{l + 1}" for l in range(rule.net.depth)]
    angles(right, frame.reindex(columns=[*frame.columns.union(layers)]), rule.net)
    for (color, line), settings, frame in shown[1:]:
        label = _settings_in_words(settings, differ)
        pale = {"color": color, "alpha": 0.5, "linewidth": 1.2}
        left.plot(frame.samples, 100 * frame.val_accuracy, linestyle=line, label=label, **pale)
        for layer, (_, line) in zip(frame.filter(like="angle_"), cycle(LAYER_STYLES), strict=False):
            right.plot(frame.samples, frame[layer], linestyle=line, **pale)
    left.set(ylim=(-2, 102), yticks=range(0, 101, 20))
    left.set_title(rule.title, loc="left", fontsize="medium")
    look = {"ha": "center", "va": "center", "color": RED, "backgroundcolor": "white"}
    if warning:
        left.text(0.5, 0.5, textwrap.fill(warning, 38), transform=left.transAxes, **look)
    for ax in (left, right):
        ax.set_xlim(0, samples)
        ax.locator_params(axis="x", nbins=5)
        ax.xaxis.set_major_formatter("{x:,.0f}")
    small = {"frameon": False, "fontsize": "small"}
    left.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.2), **small)
    narrow = {"columnspacing": 0.8, "handlelength": 1.6, "handletextpad": 0.4, **small}  # three layers and chance fit
    right.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.98), ncols=9, **narrow)


def _settings_in_words(settings, names):
    words = []
    for name in names:
        steps = getattr(settings[name], "steps", [(0, settings[name])])  # of a Schedule, or a number
        values = [f"{value:g}" for _, value in steps]
        middle = ["…"] * (len(values) > 2)
        words.append(f"{name.replace('_', ' ')} {' → '.join([values[0], *middle, *values[1:][-1:]])}")
    return ", ".join(words)


def circuit(ax, layers, forward, feedback, feedback_fixed=True, error="e", title=""):
    """Draw who sends what to whom, from left to right.

    layers: names, as ["x", "h₁", "ŷ"]; forward: a label for each connection between them; feedback: a label (or
    None) for what carries the error back over the same connection. Solid blue: forward, plastic. Back: dashed
    orange, thick when its weights are fixed, and marked "copy" when they mirror the forward weights.
    """
    for i, name in enumerate(layers):
        ax.add_patch(Circle((2 * i, 0), 0.38, facecolor="white", edgecolor=BLACK, linewidth=1.5))
        ax.text(2 * i, 0, name, ha="center", va="center", fontsize=13)
    last = 2 * (len(layers) - 1)
    ax.add_patch(Circle((last, -1.3), 0.34, facecolor="#FBE9DF", edgecolor=RED, linewidth=1.5))
    ax.text(last, -1.3, error, ha="center", va="center", fontsize=13)
    _arrow(ax, (last, -0.42), (last, -0.94), RED, "-")
    for i, (ahead, back) in enumerate(zip(forward, feedback, strict=True)):
        _arrow(ax, (2 * i + 0.4, 0), (2 * i + 1.58, 0), BLUE, "-")
        ax.text(2 * i + 1, 0.14, ahead, ha="center", va="bottom", color=BLUE, fontsize=12)
        if back is None:
            continue
        start = (2 * i + 1.66, -1.3) if i == len(forward) - 1 else (2 * i + 1.7, -1.3)
        _arrow(ax, start, (2 * i + 0.1, -0.44), RED, "--" if feedback_fixed else ":")
        ax.text(2 * i + 0.8, -0.95, back, ha="right", va="top", color=RED, fontsize=11)
    ax.set(xlim=(-0.6, last + 0.6), ylim=(-1.85, 0.75), aspect="equal", title=title)
    ax.axis("off")


def _arrow(ax, start, end, color, line):
    ax.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=14,
            color=color,
            linestyle=line,
            linewidth=1.8,
            shrinkA=0,
            shrinkB=0,
        )
    )


def images(ax, rows, shape=(28, 28), titles=None):
    """Show (n, pixels) as a row of n grey pictures, each scaled to its own largest absolute value."""
    n = len(rows)
    height, width = shape
    canvas = np.zeros((height, n * (width + 2)))
    for i, row in enumerate(np.asarray(rows)):
        canvas[:, i * (width + 2) : i * (width + 2) + width] = (row / (abs(row).max() or 1.0)).reshape(shape)
    ax.imshow(canvas, cmap="gray_r" if canvas.min() >= 0 else "RdBu_r", vmin=canvas.min() and -1, vmax=1)
    ax.set(xticks=[i * (width + 2) + width / 2 for i in range(n)] if titles else [], yticks=[])
    if titles:
        ax.set_xticklabels(titles, fontsize="small")


def save_svg(figure: Figure, path):
    """Write a figure as an SVG that is the same, byte for byte, each time it is drawn with the same matplotlib."""
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "without-backprop", "svg.fonttype": "path"}):
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None}, facecolor="white")
