# Exported from lessons/22_pepita/lesson.md. Edit the lesson, not this file.

import math

import torch

from course_utils.rule import Rule


class Pepita(Rule):
    """PEPITA: two forward passes; the output error, sent to the input, makes the second one differ from the first.

    Source: Dellaferrera and Kreiman 2022, arXiv:2201.11665.
    feedback, (inputs, outputs): fixed random F / feedback_scale, uniform between ±√(6 / inputs). feedback_scale: the
    published one is 0.05; it may move while training runs. dropout: the probability that a hidden unit is silent, in
    both passes alike; not in predict. ValueError for a feedback_scale below 0 or a dropout outside [0, 1).
    """

    title = "PEPITA"
    lr = 0.1
    knobs = {"feedback_scale": (5e-4, 5.0, "log")}
    live_knobs = ("feedback_scale",)
    plausibility = {
        "weight_transport": "no",
        "update_locking": "partly",
        "non_local": "no",
        "separate_phases": "yes",
        "global_error": "vector, to the input",
        "signed_error": "yes",
        "needs_derivative": "no",
        "cost": "2 forward",
    }

    def __init__(self, net, seed=0, feedback_scale=0.05, dropout=0.1):
        super().__init__(net, seed)
        if not (0 <= feedback_scale < math.inf and 0 <= dropout < 1):
            raise ValueError(f"feedback_scale is {feedback_scale}, dropout {dropout}; 0 or larger, dropout below 1")
        self.feedback_scale, self.dropout = feedback_scale, dropout
        generator = torch.Generator().manual_seed(seed + 1_000_003)  # no seed a network would have
        random = 2 * torch.rand(net.sizes[0], net.sizes[-1], generator=generator) - 1
        self.register_buffer("feedback", (math.sqrt(6 / net.sizes[0]) * random).to(net.weights[0]))

    def gains(self, x):
        keep = 1 - self.dropout
        return [x.new_empty(len(x), n).bernoulli_(keep, generator=self.generator) / keep for n in self.net.sizes[1:-1]]

    @torch.no_grad()
    def backward(self, x, y):
        net, x, gains = self.net, self.net.check_input(x), self.gains(x) if self.dropout else None
        first = torch.addmm(net.biases[0], x, net.weights[0].T)
        h = net.activations(x, first=first, gains=gains)  # (1)
        error = net.output_error(h[-1], y)
        feedback = self.feedback_scale * self.feedback
        first = torch.addmm(first, error, (net.weights[0] @ feedback).T)  # (6)
        second = net.activations(torch.addmm(x, error, feedback.T), first=first, gains=gains)  # (2)
        for l in range(net.depth):
            difference = (error if l == net.depth - 1 else h[l + 1] - second[l + 1]) / len(x)
            self.add_grad(net.weights[l], difference.T @ second[l])  # (3)
            self.add_grad(net.biases[l], difference.sum(0))  # (3): a synapse from a unit that is always 1
        return net.loss(h[-1], y)
