"""The playground for a reader without a kernel: one rule at a few settings, trained and drawn side by side."""

from matplotlib.figure import Figure

from course_utils import plots
from course_utils.live import LIVE
from course_utils.network import MLP
from course_utils.training import train


def gallery(rule_class, data, runs, sizes=None, accuracies=(0, 100), angles=(0, 100), training=None, **network):
    """A figure of validation accuracy and the first layer's angle to the gradient, a line for each of runs.

    runs, sizes, training, network: as of `trained`. accuracies, angles: limits of the axes; angles=None leaves the
    angle out, where it means nothing.
    """
    sizes = sizes or _one_hidden_layer(data)
    frames = trained(rule_class, data, runs, sizes, training, **network)
    figure = Figure(figsize=(9.6, 3.6) if angles else (7.2, 3.8), layout="constrained")
    axes = figure.subplots(1, 2 if angles else 1, squeeze=False)[0]
    draw(axes[0], frames, ylim=accuracies)
    if angles:
        words = f"{'hidden' if len(sizes) == 3 else 'first'} layer's angle to the gradient (°)"
        draw(axes[1], frames, "angle_1", ylim=angles, ylabel=words)
        plots.draw_chance_band(axes[1], (sizes[0] + 1) * sizes[1])
        plots.dress(axes[1])
    return figure


def trained(rule_class, data, runs, sizes=None, training=None, **network):
    """Train a fresh network under the rule with each of {label: settings}; {label: frame}.

    settings: of the rule, where a live knob may move, [(samples, value), …], and of what else the playground's
    sliders set. sizes, training, network: as of `playground`; an epoch at a constant rate when nothing is said.
    """
    images = len(data.x_train)
    often = {"eval_every": max(1, images // 20), "probe_every": max(1, images // 100)}
    training = {"epochs": 1, "schedule": "constant", **often, **(training or {})}
    frames = {}
    for label, settings in runs.items():
        sliders = {name: value for name, value in settings.items() if name in LIVE}
        moving = {name: value for name, value in settings.items() if isinstance(value, list) and name not in LIVE}
        fixed = {name: value for name, value in settings.items() if name not in {*sliders, *moving}}
        rule = rule_class(MLP(sizes or _one_hidden_layer(data), **network), **fixed)
        frames[label] = train(rule, data, **{**training, **sliders}, knobs=moving, progress=False).frame
    return frames


def draw(ax, frames, column="val_accuracy", **labels):
    """Draw {label: frame} as that column against samples, each in a colour and line of its own."""
    factor = 100 if "accuracy" in column else 1
    for (label, frame), (color, line) in zip(frames.items(), plots.LAYER_STYLES, strict=False):
        ax.plot(frame.samples, factor * frame[column], color=color, linestyle=line, label=label)
    ax.set(**{"xlabel": plots.UNITS["samples"], "ylabel": plots.UNITS.get(column, column), **labels})
    plots.dress(ax)


def _one_hidden_layer(data):
    return [data.x_train.shape[1], 128, int(data.y_train.max()) + 1]
