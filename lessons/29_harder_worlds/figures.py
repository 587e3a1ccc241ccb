"""Drawings of lesson 29 that no cell of it makes."""

from dataclasses import replace

import torch
from matplotlib.figure import Figure

import course_utils as cu
from course_utils import plots
from course_utils.studies.harder_worlds import Life, noisy_images, permuted, rotated, shake_weights


def _first(data, n):
    return replace(data, x_train=data.x_train[:n], y_train=data.y_train[:n])


def worlds(data):
    """One row of digits for each world."""
    figure = Figure(figsize=(9.6, 4.6), layout="constrained")
    data = _first(data, 10)
    moved, noisy = permuted(data, 0), noisy_images(data, 0.4)
    slowly = [rotated(data, angle).x_train[i] for i, angle in enumerate(range(0, 91, 10))]
    order = data.y_train[:10].argsort()
    rows = {
        "0 to 4,\nthen 5 to 9": data.x_train[order],
        "the pixels in\nanother order": moved.x_train[:10],
        "turned\never further": torch.stack(slowly),
        "under noise": noisy.x_train[:10].clamp(0, 1),
        "one at a time": data.x_train[:1],
    }
    for ax, (name, images) in zip(figure.subplots(len(rows), 1), rows.items(), strict=True):
        blank = torch.zeros(10 - len(images), 784)
        plots.images(ax, torch.cat([images, blank]))
        ax.set_ylabel(name, rotation=0, ha="right", va="center")
        ax.spines[:].set_visible(False)
    return figure


def play(data):
    """Lesson 29's two sliders: four trained networks in a world that turns, and with noise on their weights."""
    stored = cu.stored_results(29)
    data = _first(data, 10_000)
    plain = stored[stored.dataset == "mnist in order"].groupby("rule").first()
    noisy = stored[(stored.dataset == "mnist, noise on weights") & (stored.noise == 0.8)].groupby("rule").test_accuracy
    able = (noisy.mean() / plain.val_accuracy)[plain.val_accuracy > 0.5].sort_values().index
    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    axes = figure.subplots(1, 2)
    angles, shares = list(range(-90, 91, 10)), [0.0, 0.2, 0.4, 0.6, 0.8, 1.2, 1.6, 2.4, 3.2]
    worlds_seen = [rotated(_first(data, 1), angle) for angle in angles]
    names = dict.fromkeys([able[-1], "Backprop", "FrozenHidden(Backprop)", able[0]])
    for name, (color, line) in zip(names, plots.LAYER_STYLES, strict=False):
        settings = dict(epochs=2, batch_size=64, schedule="constant")
        life = Life(name, [784, 100, 100, 10], plain.lr[name], 0, **settings)
        assert list(life.learn(data))
        accuracies = [[cu.evaluate(life.rule, seen.x_val, seen.y_val) for seen in worlds_seen], []]
        for share in shares:
            with cu.metrics.no_trace(life.rule):
                shake_weights(life.rule.net, share)
                accuracies[1].append(cu.evaluate(life.rule, data.x_val, data.y_val))
        for ax, at, values in zip(axes, (angles, shares), accuracies, strict=True):
            label = life.rule.title if name in cu.rules.ALL else "Frozen hidden"
            ax.plot(at, [100 * value for value in values], color=color, linestyle=line, label=label)
    axes[0].set(
        xlabel="world turned by (°)", ylabel=plots.UNITS["val_accuracy"], title="All are lost at a quarter turn"
    )
    axes[1].set(xlabel="noise on the weights (share of their spread)", title="Not all are lost under noise")
    for ax in axes:
        ax.set_ylim(0, 100)
        plots.dress(ax, legend=ax is axes[1])
    return figure
