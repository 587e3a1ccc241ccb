"""Drawings of lesson 06 that no cell of it makes."""

from matplotlib.figure import Figure

import course_utils as cu
from tools import circuits
from tools.gallery import gallery


def circuit():
    """Backprop beside feedback alignment: the same forward path, another way back."""
    figure = Figure(figsize=(9.6, 3.1), layout="constrained")
    left, right = figure.subplots(1, 2)
    forward = ["W₁", "W₂"]
    circuits.circuit(
        left,
        ["x", "h₁", "ŷ"],
        forward,
        [None, "back through W₂ᵀ:\na second synapse that\nmust copy the first"],
        False,
        title="Backprop",
    )
    circuits.circuit(
        right,
        ["x", "h₁", "ŷ"],
        forward,
        [None, "back through B₂:\nrandom synapses that\nnever change"],
        title="Feedback alignment",
    )
    return figure


def play(data):
    """The playground at four feedback scales, for a reader without a kernel."""
    scales = {f"feedback scale {scale:g}": {"feedback_scale": scale} for scale in (0.1, 1.0, 3.0, 10.0)}
    return gallery(cu.rules.FeedbackAlignment, data, scales, accuracies=(80, 100), training={"lr": 0.03})
