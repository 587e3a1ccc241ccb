"""Drawings of lesson 00 that no cell of it makes."""

from matplotlib.figure import Figure

import course_utils as cu
from tools.gallery import draw, trained


def play(data):
    """The first two playgrounds at four learning rates, for a reader without a kernel."""
    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    rates = {f"learning rate {lr:g}": {"lr": lr} for lr in (0.01, 0.1, 1.0, 3.0)}
    titles = "Backprop: a large rate ends it", "Feedback alignment: it bears all four"
    rules = cu.rules.Backprop, cu.rules.FeedbackAlignment
    for ax, rule_class, title in zip(figure.subplots(1, 2), rules, titles, strict=True):
        draw(ax, trained(rule_class, data, rates), ylim=(0, 100), title=title)
    return figure
