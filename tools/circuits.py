"""Drawings of who sends what to whom: circles for layers, arrows for what travels between them."""

from matplotlib.patches import Circle, FancyArrowPatch

from course_utils.plots import BLACK, BLUE, RED


def circuit(ax, layers, forward, feedback, feedback_fixed=True, error="e", title=""):
    """Draw a network from left to right, and what comes back to it.

    layers: names, as ["x", "h₁", "ŷ"], the first "" for none; forward: a label for each connection between them;
    feedback: a label (or None) for what carries the error back over the same connection; error: what the round node
    under the output says, "" for none. Solid blue: forward, plastic. Red, back: dashed when its weights are fixed,
    dotted when not.
    """
    last = 2 * (len(layers) - 1)
    for i, name in enumerate(layers):
        if name:
            node(ax, (2 * i, 0), name)
    if error:
        node(ax, (last, -1.3), error, is_error=True)
        arrow(ax, (last, -0.42), (last, -0.94), RED)
    for i, (ahead, back) in enumerate(zip(forward, feedback, strict=True)):
        if layers[i]:
            arrow(ax, (2 * i + 0.4, 0), (2 * i + 1.58, 0), BLUE)
            ax.text(2 * i + 1, 0.14, ahead, ha="center", va="bottom", color=BLUE, fontsize=12)
        if back:
            start = (2 * i + 1.66, -1.3) if i == len(forward) - 1 else (2 * i + 1.7, -1.3)
            arrow(ax, start, (2 * i + 0.1, -0.44), RED, "--" if feedback_fixed else ":")
            ax.text(2 * i + 0.8, -0.95, back, ha="right", va="top", color=RED, fontsize=11)
    ax.set(xlim=(-0.6, last + 0.6), ylim=(-1.85, 0.75), aspect="equal", title=title)
    ax.axis("off")


def node(ax, at, name, is_error=False):
    """A circle with a name in it; what holds an error is smaller and red."""
    edge, ground, radius = (RED, "#FBE9DF", 0.34) if is_error else (BLACK, "white", 0.38)
    ax.add_patch(Circle(at, radius, facecolor=ground, edgecolor=edge, linewidth=1.5))
    ax.text(*at, name, ha="center", va="center", fontsize=13)


def arrow(ax, start, end, color, line="-", **look):
    """An arrow; look: what else matplotlib's FancyArrowPatch takes, as arrowstyle="<|-|>" for both ways."""
    plain = {"arrowstyle": "-|>", "mutation_scale": 14, "linewidth": 1.8, "shrinkA": 0, "shrinkB": 0}
    ax.add_patch(FancyArrowPatch(start, end, color=color, linestyle=line, **{**plain, **look}))
