# Exported from lessons/22_pepita/lesson.md. Edit the lesson, not this file.

import math

import torch

from course_utils.checks import is_number
from course_utils.device import stream
from course_utils.rule import Knob, Rule, at_least


class Pepita(Rule):
    """PEPITA: two forward passes; the output error, sent to the input, makes the second one differ from the first.

    Source: Dellaferrera and Kreiman 2022, arXiv:2201.11665.
    feedback, (inputs, outputs): fixed random F / feedback_scale, uniform between ±√(6 / inputs). feedback_scale: the
    published one is 0.05; it may move while training runs. dropout: the probability that a hidden unit is silent, in
    both passes alike; not in predict. ValueError for a feedback_scale below 0 or a dropout outside [0, 1).
    """

    title = "PEPITA"
    look = ("orange", ":")
    lr = 0.1
    feedback_scale = Knob(0.05, at_least(0), slider=(5e-4, 5.0, "log"), live=True)
    dropout = Knob(0.1, ("a number, 0 or larger and below 1", lambda value: is_number(value) and 0 <= value < 1))
    plausibility = {
        "weight_transport": "no", "update_locking": "partly", "non_local": "no", "separate_phases": "yes",
        "global_error": "vector, to the input", "signed_error": "yes", "needs_derivative": "no", "cost": "2 forward",
    }  # fmt: skip

    def __init__(self, net, seed=0, **knobs):
        super().__init__(net, seed, **knobs)
        random = 2 * torch.rand(net.sizes[0], net.sizes[-1], generator=stream("feedback", seed)) - 1
        self.register_buffer("feedback", (math.sqrt(6 / net.sizes[0]) * random).to(net.weights[0]))

    def gains(self, x):
        """What multiplies each hidden layer's activities, in both passes: 0 for the silent units."""
        keep = 1 - self.dropout
        return [x.new_empty(len(x), n).bernoulli_(keep, generator=self.generator) / keep for n in self.net.sizes[1:-1]]

    def activities(self, x, first, gains):
        """[x, h_1, …, output] from x and layer 1's pre-activations."""
        net, h = self.net, [x]
        for l, noise in enumerate(net.draw_activity_noise(x)):
            a = torch.addmm(net.biases[l], h[-1], net.weights[l].T) if l else first
            a = a if noise is None else a + noise
            h.append(a if l == net.depth - 1 else net.nonlinearity(a))
            if gains and l < net.depth - 1:
                h[-1] = h[-1] * gains[l]
        return h

    @torch.no_grad()
    def backward(self, x, y):
        net, x, gains = self.net, self.net.check_input(x), self.gains(x) if self.dropout else None
        first = torch.addmm(net.biases[0], x, net.weights[0].T)
        h = self.activities(x, first, gains)  # (1)
        error = net.output_error(h[-1], y)
        feedback = self.feedback_scale * self.feedback
        first = torch.addmm(first, error, (net.weights[0] @ feedback).T)  # (6)
        second = self.activities(torch.addmm(x, error, feedback.T), first, gains)  # (2)
        for l in range(net.depth):
            difference = (error if l == net.depth - 1 else h[l + 1] - second[l + 1]) / len(x)
            self.add_grad(net.weights[l], difference.T @ second[l])  # (3)
            self.add_grad(net.biases[l], difference.sum(0))  # (3): a synapse from a unit that is always 1
        return net.loss(h[-1], y)
