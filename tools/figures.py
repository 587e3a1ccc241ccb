"""Draw the figures that lessons show as files: `python tools/figures.py` writes lessons/figures/*.svg."""

import sys
from pathlib import Path

from matplotlib.figure import Figure

import course_utils as cu
from course_utils.rules.feedback_alignment import FeedbackAlignment

FIGURES = Path(__file__).parent.parent / "lessons" / "figures"


def circuit_06():
    """Backprop beside feedback alignment: the same forward path, another way back."""
    figure = Figure(figsize=(9.6, 3.1), layout="constrained")
    left, right = figure.subplots(1, 2)
    forward = ["W₁", "W₂"]
    cu.plots.circuit(
        left,
        ["x", "h₁", "ŷ"],
        forward,
        [None, "back through W₂ᵀ:\na second synapse that\nmust copy the first"],
        False,
        title="Backprop",
    )
    cu.plots.circuit(
        right,
        ["x", "h₁", "ŷ"],
        forward,
        [None, "back through B₂:\nrandom synapses that\nnever change"],
        title="Feedback alignment",
    )
    return figure


def play_06():
    """The playground at four feedback scales, for a reader without a kernel."""
    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    axes = figure.subplots(1, 2)
    data = cu.load_dataset("mnist")
    if data.is_fallback:
        sys.exit("this figure shows MNIST, which could not be loaded")
    for (color, line), scale in zip(cu.plots.LAYER_STYLES, (0.1, 1.0, 3.0, 10.0), strict=False):
        rule = FeedbackAlignment(cu.MLP([784, 128, 10]), feedback_scale=scale)
        settings = dict(epochs=1, lr=0.03, schedule="constant", eval_every=2_750, probe_every=550)
        frame = cu.train(rule, data, **settings, progress=False).frame
        for ax, column, factor in zip(axes, ("val_accuracy", "angle_1"), (100, 1), strict=True):
            ax.plot(
                frame.samples, factor * frame[column], color=color, linestyle=line, label=f"feedback scale {scale:g}"
            )
    axes[0].set(xlabel=cu.plots.UNITS["samples"], ylabel=cu.plots.UNITS["val_accuracy"], ylim=(80, 100))
    axes[1].set(xlabel=cu.plots.UNITS["samples"], ylabel="hidden layer's angle to the gradient (°)", ylim=(0, 100))
    cu.plots.draw_chance_band(axes[1], 784 * 128 + 128)
    for ax in axes:
        cu.plots.dress(ax)
    return figure


DRAWINGS = {"06_circuit.svg": circuit_06, "06_play.svg": play_06}


def main():
    cu.setup(seed=0, device="cpu")
    FIGURES.mkdir(exist_ok=True)
    for name, draw in DRAWINGS.items():
        cu.plots.save_svg(draw(), FIGURES / name)
        print(f"drew lessons/figures/{name}")


if __name__ == "__main__":
    main()
