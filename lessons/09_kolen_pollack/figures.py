"""Drawings of lesson 09 that no cell of it makes."""

from matplotlib.figure import Figure

import course_utils as cu
from tools import circuits
from tools.gallery import gallery


def circuit():
    """Feedback alignment beside Kolen–Pollack: feedback that stands still, and feedback that changes alike."""
    figure = Figure(figsize=(9.6, 3.1), layout="constrained")
    backs = {
        "Feedback alignment": "back through B₂:\nrandom synapses that\nnever change",
        "Kolen–Pollack": "back through B₂:\nthe same change as W₂,\nand both fade alike",
    }
    for ax, (title, back) in zip(figure.subplots(1, 2), backs.items(), strict=True):
        fixed = title == "Feedback alignment"
        circuits.circuit(ax, ["x", "h₁", "ŷ"], ["W₁", "W₂"], [None, back], feedback_fixed=fixed, title=title)
    return figure


def play(data):
    """The playground at three decays and with a decay moved while training runs, for a reader without a kernel."""
    moving = [(0, 1e-2), (len(data.x_train) // 2, 1e-5)]
    decays = {"0.00001": 1e-5, "0.001": 1e-3, "0.01": 1e-2, "0.01, then 0.00001": moving}
    runs = {f"decay {name}": {"decay": decay} for name, decay in decays.items()}
    return gallery(cu.rules.KolenPollack, data, runs, accuracies=(85, 100), training={"epochs": 2, "lr": 0.1})
