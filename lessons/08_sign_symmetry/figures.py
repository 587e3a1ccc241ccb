"""Drawings of lesson 08 that no cell of it makes."""

from matplotlib.figure import Figure

import course_utils as cu
from tools import circuits
from tools.gallery import gallery


def circuit():
    """Three ways back: the weights themselves, random ones, and any sizes with the right signs."""
    figure = Figure(figsize=(11.4, 2.7), layout="constrained")
    backs = {
        "Backprop": "through W₂ᵀ:\n32 bits of each weight\nare copied",
        "Sign symmetry": "through M₂ ⊙ sign(W₂):\n1 bit of each weight\nis copied",
        "Feedback alignment": "through B₂:\nrandom, nothing\nis copied",
    }
    for ax, (title, back) in zip(figure.subplots(1, 3), backs.items(), strict=True):
        fixed = title == "Feedback alignment"
        circuits.circuit(ax, ["x", "h₁", "ŷ"], ["W₁", "W₂"], [None, back], feedback_fixed=fixed, title=title)
    return figure


def play(data):
    """The playground at three shares of wrong signs and with a share moved while training runs."""
    moving = [(0, 0.5), (len(data.x_train) // 2, 0.0)]
    shares = {"0": 0.0, "0.2": 0.2, "0.5": 0.5, "0.5, then 0": moving}
    runs = {f"flipped {name}": {"flipped": share} for name, share in shares.items()}
    return gallery(cu.rules.SignSymmetry, data, runs, accuracies=(70, 100), training={"lr": 0.03})
