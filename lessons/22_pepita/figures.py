"""Drawings of lesson 22 that no cell of it makes."""

from matplotlib.figure import Figure

import course_utils as cu
from course_utils import plots
from tools import circuits
from tools.gallery import gallery


def circuit():
    """Backprop beside PEPITA: an error that goes back through the network, and one that goes in at its front."""
    figure = Figure(figsize=(9.6, 3.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    names, ahead, back = ["x", "h₁", "ŷ"], ["W₁", "W₂"], "back through W₂ᵀ:\na second synapse that\nmust copy the first"
    circuits.circuit(left, names, ahead, [None, back], False, title="Backprop")
    circuits.circuit(right, ["x + F e", *names[1:]], ahead, [None, None], title="PEPITA: forward, and forward again")
    right.texts[0].set_fontsize(9)
    circuits.arrow(right, (3.64, -1.3), (0, -0.42), plots.RED, "--", connectionstyle="angle,angleA=0,angleB=90")
    words = "through F to the input:\nrandom synapses that never change"
    right.text(1.8, -1.2, words, color=plots.RED, fontsize=11, ha="center")
    return figure


def play(data):
    """The playground at four feedback scales, for a reader without a kernel."""
    scales = {f"feedback scale {scale:g}": {"feedback_scale": scale} for scale in (0.005, 0.05, 0.2, 1.0)}
    return gallery(cu.rules.Pepita, data, scales, training={"lr": 0.1})
