# Exported from lessons/06_feedback_alignment/lesson.md. Edit the lesson, not this file.

import torch

from course_utils.rule import FeedbackWeights, Rule


class FeedbackAlignment(Rule):
    """Feedback alignment: the error goes back through fixed random weights B instead of W.

    Source: Lillicrap, Cownden, Tweed and Akerman 2016, doi:10.1038/ncomms13276.
    feedback_weights[l] has the shape of net.weights[l] and is drawn from the same distribution, times
    feedback_scale; [0] is None, because nothing is sent back to the input. ValueError for a scale below 0.
    """

    title = "Feedback alignment"
    lr = 0.1
    knobs = {"feedback_scale": (0.1, 10.0, "log")}
    plausibility = {
        "weight_transport": "no",
        "update_locking": "yes",
        "non_local": "partly",
        "separate_phases": "yes",
        "global_error": "vector",
        "signed_error": "yes",
        "needs_derivative": "yes",
        "cost": "1 forward + 1 backward",
    }

    def __init__(self, net, seed=0, feedback_scale=1.0):
        super().__init__(net, seed)
        if not feedback_scale >= 0:
            raise ValueError(f"feedback_scale is {feedback_scale}; it must be 0 or larger")
        random = net.draw_weights(seed + 1_000_003)  # no seed a network would have: B must know nothing of W
        self.feedback_weights = FeedbackWeights([None, *(feedback_scale * b for b in random[1:])])

    @torch.no_grad()
    def backward(self, x, y):
        h = self.net.activations(x)  # (1)
        delta = self.net.output_error(h[-1], y) / len(x)  # (2), top
        for l in reversed(range(self.net.depth)):
            self.add_grad(self.net.weights[l], delta.T @ h[l])  # (3)
            self.add_grad(self.net.biases[l], delta.sum(0))  # (3)
            if l > 0:
                delta = (delta @ self.feedback_weights[l]) * self.net.derivative(h[l])  # (4)
        return self.net.loss(h[-1], y)
