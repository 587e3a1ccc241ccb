# Exported from lessons/07_direct_feedback_alignment/lesson.md. Edit the lesson, not this file.

import math

import torch

from course_utils.rule import FeedbackWeights, Rule


class DirectFeedbackAlignment(Rule):
    """Direct feedback alignment: the output error goes to every hidden layer at once, over fixed random weights.

    Source: Nøkland 2016, arXiv:1609.01596.
    feedback_weights[l], (outputs, net.sizes[l]), carries the error to the layer that feeds net.weights[l]; [0] is
    None. Gaussian, with the variance that forward weights from that layer to the output would have (2 / units for
    relu, 1 / units else), times feedback_scale. ValueError for a scale below 0.
    """

    title = "Direct feedback alignment"
    lr = 0.1
    knobs = {"feedback_scale": (0.1, 10.0, "log")}
    plausibility = {
        "weight_transport": "no",
        "update_locking": "partly",
        "non_local": "partly",
        "separate_phases": "yes",
        "global_error": "vector",
        "signed_error": "yes",
        "needs_derivative": "yes",
        "cost": "1 forward + less than 1 backward",
    }

    def __init__(self, net, seed=0, feedback_scale=1.0):
        super().__init__(net, seed)
        if not feedback_scale >= 0:
            raise ValueError(f"feedback_scale is {feedback_scale}; it must be 0 or larger")
        generator = torch.Generator().manual_seed(seed + 1_000_003)  # no seed a network would have
        gain = 2.0 if net.activation_name == "relu" else 1.0
        drawn = [None]
        for units in net.sizes[1:-1]:
            b = torch.randn(net.sizes[-1], units, generator=generator) * math.sqrt(gain / units)
            drawn.append((feedback_scale * b).to(net.weights[0]))
        self.feedback_weights = FeedbackWeights(drawn)

    def message(self, error, y):
        """What is sent to all hidden layers, (batch, outputs)."""
        return error

    @torch.no_grad()
    def backward(self, x, y):
        h = self.net.activations(x)  # (1)
        error = self.net.output_error(h[-1], y)
        message = self.message(error, y) / len(x)
        for l in range(self.net.depth):
            if l < self.net.depth - 1:
                delta = (message @ self.feedback_weights[l + 1]) * self.net.derivative(h[l + 1])  # (3)
            else:
                delta = error / len(x)  # the readout has the error itself
            self.add_grad(self.net.weights[l], delta.T @ h[l])  # (1)
            self.add_grad(self.net.biases[l], delta.sum(0))  # (1)
        return self.net.loss(h[-1], y)


class ErrorSignDFA(DirectFeedbackAlignment):
    """Direct feedback alignment that sends only the sign of each output's error: one bit.

    Source: Frenkel, Lefebvre and Bol 2021, doi:10.3389/fnins.2021.629892 (there: sDFA).
    """

    title = "Error-sign DFA"
    lr = 0.05
    plausibility = {**DirectFeedbackAlignment.plausibility, "global_error": "1 bit an output"}

    def message(self, error, y):
        return torch.sign(error)  # (4)


class DirectRandomTargetProjection(DirectFeedbackAlignment):
    """Direct random target projection: hidden layers hear the target and nothing else, neither error nor output.

    Source: Frenkel, Lefebvre and Bol 2021, doi:10.3389/fnins.2021.629892. y: labels or (batch, outputs) targets.
    """

    title = "Direct random target projection"
    lr = 0.4
    plausibility = {
        **DirectFeedbackAlignment.plausibility,
        "update_locking": "no",
        "non_local": "no",
        "separate_phases": "no",
        "global_error": "label only",
        "signed_error": "no",
    }

    def message(self, error, y):
        if y.dtype == torch.int64:
            y = torch.nn.functional.one_hot(y, error.shape[1])
        return -y.to(error)  # (5)
