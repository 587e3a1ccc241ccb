"""Figures of the course: one palette, curves with bands, angles with their chance band, images.

Every function draws on the axes it is given and returns nothing, so that a lesson's cell stays plain matplotlib.
"""

import textwrap
from itertools import cycle

import numpy as np

from course_utils.metrics import chance_band, layer_sizes
from course_utils.rule import LOOKS
from course_utils.settings import Schedule

# Okabe and Ito's colours, told apart by every kind of colour vision; the line style says the same once more.
COLORS = {"black": "#000000", "orange": "#E69F00", "sky": "#56B4E9", "green": "#009E73", "yellow": "#F0E442"}
COLORS |= {"blue": "#0072B2", "red": "#D55E00", "purple": "#CC79A7", "grey": "#7F7F7F"}
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PURPLE, GREY = COLORS.values()
# Lines in words, besides matplotlib's own "-", "--", "-.", ":".
LINES: dict[str, tuple] = {"long dashes": (0, (5, 1)), "dash dot": (0, (3, 1, 1, 1))}
NO_RULES = {"Frozen hidden": ("grey", ":"), "Softmax regression": ("orange", "-.")}
_OTHERS = [("red", "-."), ("green", "long dashes"), ("orange", "dash dot"), ("purple", "--"), ("sky", "-")]
LAYER_STYLES = [(BLUE, "-"), (RED, "--"), (GREEN, "-."), (PURPLE, ":"), (ORANGE, "-"), (SKY, "--")]
PALE = [(ORANGE, "--"), (GREEN, "-."), (PURPLE, ":"), (SKY, (0, (5, 1)))]  # earlier runs
UNITS = {"samples": "training images seen", "seconds": "training time (s)"}
UNITS |= {"val_accuracy": "validation accuracy (%)", "val_loss": "validation loss"}


def style(title):
    """{"color", "linestyle"} for a rule's title: the look it declares, else one that is always the same."""
    if title not in LOOKS and "frozen" in title.lower():
        title = "Frozen hidden"
    other = _OTHERS[sum(map(ord, title)) % len(_OTHERS)]
    color, line = {**NO_RULES, **LOOKS}.get(title, other)
    return {"color": COLORS.get(color, color), "linestyle": LINES.get(line, line)}


def as_text(title):
    """A title as Matplotlib shows it letter by letter: $ would begin maths there, a leading _ hide it from legends."""
    return (" " if title.startswith("_") else "") + title.replace("$", r"\$")


def curves(ax, histories):
    """Draw {label: History or frame} as validation accuracy, in percent, against training images seen.

    Where targets are values, which have no accuracy, as validation loss.
    """
    measure = "val_accuracy"
    for name, history in histories.items():
        frame = getattr(history, "frame", history)
        measure = judged_by(frame)
        ax.plot(frame.samples, _shown(frame, measure), label=as_text(name), linewidth=1.8, **style(name))
    ax.set(xlabel=UNITS["samples"], ylabel=UNITS[measure])
    dress(ax)


def judged_by(frame):
    """The column that says how well a run did: "val_accuracy", or "val_loss" where targets are values."""
    return "val_loss" if frame.val_accuracy.isna().all() and frame.val_loss.notna().any() else "val_accuracy"


def _shown(frame, measure):
    return 100 * frame.val_accuracy if measure == "val_accuracy" else frame[measure]


def stored_band(ax, frame, name):
    """The range over seeds of a stored results frame (one rule), with the mean as a thin line, in percent."""
    over_seeds = 100 * frame.groupby("samples").val_accuracy.agg(["min", "mean", "max"])
    look = style(name)
    label = f"{as_text(name)}: {frame.seed.nunique()} stored seeds"
    pale = {"color": look["color"], "alpha": 0.2, "linewidth": 0}
    ax.fill_between(over_seeds.index, over_seeds["min"], over_seeds["max"], label=label, **pale)
    ax.plot(over_seeds["mean"], linewidth=0.7, **look)


def angles(ax, history, net):
    """Angle of each layer's estimate to the true gradient, over the band where 95 % of random directions lie.

    The band is that of the smallest layer below the last one, whose error needs no way back: small as it is, its
    band would be a wide one. net: the network, or a rule with layers of its own.
    """
    frame = getattr(history, "frame", history)
    if "angle_1" not in frame:
        raise ValueError("this history holds no angles; train with probe_every=…, a number of samples")
    sizes = layer_sizes(net)
    for l, (color, line) in zip(range(1, len(sizes) + 1), cycle(LAYER_STYLES), strict=False):
        angle = frame.set_index("samples")[f"angle_{l}"].dropna()
        ax.plot(angle, color=color, linestyle=line, linewidth=1.8, label=f"layer {l}")
    draw_chance_band(ax, min(sizes[:-1] or sizes))
    ax.set(xlabel=UNITS["samples"], ylabel="angle to the true gradient (°)", ylim=(-4, 124), yticks=range(0, 121, 30))
    dress(ax)


def draw_chance_band(ax, dimensions):
    """Shade where 95 % of random directions in that many dimensions lie around 90°."""
    low, high = chance_band(dimensions)
    many = f"{dimensions:,}" if dimensions < 10_000 else f"{dimensions / 1000:.0f}k"  # legends are narrow
    ax.axhspan(low, high, color=GREY, alpha=0.3, linewidth=0, label=f"chance ({many} weights)")


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
    measure = judged_by(frame)
    curves(left, {rule.title: frame})
    left.lines[0].set_label(f"this run: {_settings_in_words(first, differ)}")
    layers = [f"angle_{l}" for l, _ in enumerate(layer_sizes(rule), 1)]
    angles(right, frame.reindex(columns=[*frame.columns.union(layers)]), rule)
    for (color, line), settings, frame in shown[1:]:
        label = _settings_in_words(settings, differ)
        pale = {"color": color, "alpha": 0.5, "linewidth": 1.2}
        left.plot(frame.samples, _shown(frame, measure), linestyle=line, label=label, **pale)
        for layer, (_, line) in zip(frame.filter(like="angle_"), cycle(LAYER_STYLES), strict=False):
            right.plot(frame.samples, frame[layer], linestyle=line, **pale)
    left.set_xlim(0, samples)
    if measure == "val_accuracy":
        left.set(ylim=(-2, 102), yticks=range(0, 101, 20))
    right.set_xlim(0, samples)
    left.set_title(as_text(rule.title), loc="left", fontsize="medium")
    look = {"ha": "center", "va": "center", "color": RED, "backgroundcolor": "white", "transform": left.transAxes}
    left.text(0.5, 0.5, textwrap.fill(warning, 38), **look)
    small = {"frameon": False, "fontsize": "small"}
    left.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.2), **small)
    narrow = {"columnspacing": 0.8, "handlelength": 1.6, "handletextpad": 0.4, **small}  # three layers and chance fit
    right.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.98), ncols=9, **narrow)


def _settings_in_words(settings, names):
    words = []
    for name in names:
        first, *later = [f"{value:g}" for _, value in Schedule.of(settings[name]).steps]
        moves = [first, *["…"] * (len(later) > 1), *later[-1:]]
        words.append(f"{name.replace('_', ' ')} {' → '.join(moves)}")
    return ", ".join(words)


def images(ax, rows, shape=(28, 28), titles=None):
    """Show (n, pixels) as a row of n grey pictures, each scaled to its own largest absolute value."""
    rows = np.asarray(rows)
    pictures = [(row / (abs(row).max() or 1.0)).reshape(shape) for row in rows]
    canvas = np.hstack([*np.pad(pictures, ((0, 0), (0, 0), (0, 2)))])  # two white columns after each
    ax.imshow(canvas, cmap="gray_r" if canvas.min() >= 0 else "RdBu_r", vmin=canvas.min() and -1, vmax=1)
    ax.set(xticks=[], yticks=[])
    if titles:
        ax.set_xticks(shape[1] / 2 + (shape[1] + 2) * np.arange(len(rows)), titles, fontsize="small")
