"""Drawings of lesson 00 that no cell of it makes."""

from matplotlib.figure import Figure

import course_utils as cu
from tools.gallery import draw, trained


def _frozen(net):
    """The control of feedback alignment: its hidden layer stays as it began."""
    return cu.FrozenHidden(cu.rules.FeedbackAlignment(net))


def play(data):
    """The first two playgrounds at four learning rates, for a reader without a kernel."""
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    rates = {f"learning rate {lr:g}": {"lr": lr} for lr in (0.01, 0.1, 1.0, 3.0)}
    rules = {
        "Backprop: a large rate ends it": cu.rules.Backprop,
        "Feedback alignment: all four teach something": cu.rules.FeedbackAlignment,
        "Frozen hidden: so does the readout alone": _frozen,
    }
    for ax, (title, rule) in zip(figure.subplots(1, 3), rules.items(), strict=True):
        draw(ax, trained(rule, data, rates), ylim=(-2, 102), title=title)
        ax.legend(loc="lower right", fontsize="small")
    return figure
