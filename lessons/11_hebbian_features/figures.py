"""Drawings of this lesson that no cell of it makes."""

from matplotlib.figure import Figure

from tools import circuits


def circuit():
    """The circuit of lessons/_template.md."""
    figure = Figure(figsize=(5.2, 3.1), layout="constrained")
    back = [None, "back through W₂ᵀ:\nsome messages\nare lost"]
    circuits.circuit(figure.subplots(), ["x", "h₁", "ŷ"], ["W₁", "W₂"], back, False, title="Lost messages")
    return figure
