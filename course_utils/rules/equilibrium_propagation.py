# Exported from lessons/18_equilibrium_propagation/lesson.md. Edit the lesson, not this file.

from typing import Any

import torch
from torch.special import xlogy

from course_utils.rule import Knob, Rule, above, between, one_of, whole

LONGEST = 2_000  # sweeps after which `until_still` gives up


def cost_of_activity(s, activation):
    """G of each activity s, where G′ is the inverse of f: (3). relu and hard sigmoid: within the bounds of f."""
    if activation == "tanh":
        return (xlogy(1 + s, 1 + s) + xlogy(1 - s, 1 - s)) / 2
    if activation == "sigmoid":
        return xlogy(s, s) + xlogy(1 - s, 1 - s)
    return s.square() / 2


def until_still(step, s):
    """The list of tensors s after as many steps as it takes until none of them moves, to ten roundings."""
    for _ in range(LONGEST):
        old, s = s, step(s)
        moved = max((a - b).abs().max() for a, b in zip(old, s, strict=True))
        if moved <= 10 * torch.finfo(moved.dtype).eps * max(h.abs().max() for h in s):
            break
    return s


class Sweeps:
    """How the neurons of a network settle that listen to the layer above as well; `Settling` adds the energy.

    States are lists [x, s_1, …, s_L], (batch, units) each, as net.activations gives them. feedback: γ, the gain of what
    comes down; free_sweeps: of a free phase, which starts from the feed-forward pass; damping: k, the share of the way
    that a sweep goes. drives: what reaches each layer from outside, constant through a batch: [x W_1ᵀ + b_1, b_2, …].
    `predict` reads the settled output: `net(x)` is not what is taught. ValueError for values out of range.
    """

    net: Any
    feedback = Knob(0.3, between(0, 1), slider=(0.0, 1.0, "linear"), live=True)
    free_sweeps = Knob(15, whole(0), slider=(0, 40, "linear"), live=True)
    damping = Knob(0.5, between(0.05, 1), slider=(0.05, 1.0, "linear"), live=True)

    @property
    def back(self):
        """What brings the activity of s_{l+1} down to layer l: back[l], of the shape of net.weights[l]."""
        return self.net.weights

    def drives(self, x, offsets=None):
        """The drives of a batch. offsets: [b_1, …, b_L] instead of the network's own with this step's activity noise."""
        offsets = self.net.offsets(self.net.check_input(x)) if offsets is None else list(offsets)
        return [torch.addmm(offsets[0], x, self.net.weights[0].T), *offsets[1:]]

    def forward_pass(self, x, drives):
        """States on the feed-forward pass: nothing comes down."""
        s, a = [x], drives[0]
        for l in range(1, self.net.depth):
            s.append(self.net.nonlinearity(a))
            a = torch.addmm(drives[l], s[l], self.net.weights[l].T)
        return [*s, a]

    def sweep(self, s, drives, beta=0.0, y=None, damping=1.0):
        """The states after all of them, at once, have gone a share `damping` of the way to where their inputs pull: (1)."""
        new, a = [s[0]], drives[0]
        for l in range(1, self.net.depth):
            goal = self.net.nonlinearity(torch.addmm(a, s[l + 1], self.back[l], alpha=self.feedback))  # (1)
            new.append(torch.lerp(s[l], goal, damping))
            a = torch.addmm(drives[l], s[l], self.net.weights[l].T)
        return [*new, torch.lerp(s[-1], self.output(a, s[-1], beta, y), damping)]

    def output(self, a, s, beta, y):
        """Where the output is pulled, from its input a and state s, when nudged by β towards y: (2)."""
        if not beta:
            return a
        if self.net.loss_name == "squared_error":
            return a - beta / (1 + beta) * self.net.output_error(a, y)  # (2)
        return a - beta * self.net.output_error(s, y)  # (2)

    @torch.no_grad()
    def settle(self, x, s=None, sweeps=None, beta=0.0, y=None, drives=None):
        """The states after so many sweeps (None: free_sweeps), from states s (None: the feed-forward pass)."""
        drives = self.drives(x) if drives is None else drives
        s = self.forward_pass(x, drives) if s is None else s
        for _ in range(self.free_sweeps if sweeps is None else sweeps):
            s = self.sweep(s, drives, beta, y, self.damping)
        return s

    def predict(self, x):
        return self.settle(x)[-1]


class Settling(Sweeps):
    """What holds of the states at rest: their energy, what synapses see in them, the gradient of the loss there.

    Not a rule itself: `class MyRule(Settling, Rule)` settles, and writes `backward`.
    """

    add_grad: Any  # the rule's, as is
    taught: Any

    def gain(self, l):
        """γ^(l−L), the weight of layer l in the energy, l = 1 … L; without feedback there is only the output's."""
        return self.feedback ** (l - self.net.depth) if self.feedback else float(l == self.net.depth)

    def energy(self, s, x, beta=0.0, y=None):
        """E + β·loss of each example, (batch,): (3)."""
        total = beta * self.net.loss(s[-1], y, reduction="none") if beta else 0.0
        below = self.drives(x)
        for l in range(1, self.net.depth + 1):
            a = below[0] if l == 1 else torch.addmm(below[l - 1], s[l - 1], self.net.weights[l - 1].T)
            own = cost_of_activity(s[l], self.net.activation_name if l < self.net.depth else "linear")
            total = total + self.gain(l) * (own - s[l] * a).sum(1)  # (3)
        return total

    def contrast(self, plus, minus, width):
        """Fill `.grad` with what the synapses see in `minus` less what they see in `plus`, over width: (4)."""
        for l in range(self.net.depth):
            share = self.gain(l + 1) / (width * len(plus[0]))
            post = share * (minus[l + 1] - plus[l + 1])
            gradient = post.T @ minus[l]  # (4)
            if l > 0:  # so written, no digits are lost in a difference of two large products
                gradient.addmm_(plus[l + 1].T, minus[l] - plus[l], alpha=share)
            self.add_grad(self.net.weights[l], gradient)
            self.add_grad(self.net.biases[l], post.sum(0))

    @torch.no_grad()
    def rest(self, x, beta=0.0, y=None):
        """The states of (x, y) at rest, without activity noise."""
        drives = self.drives(x, self.net.biases)
        return until_still(lambda s: self.sweep(s, drives, beta, y, 0.5), self.forward_pass(x, drives))

    def reference_gradient(self, x, y):
        """The gradient of net.loss at rest, in the order of `taught`: what the contrast tends to as β → 0."""
        with torch.enable_grad():
            s = [h.requires_grad_() for h in self.rest(x)[1:]]
            pulled = self.sweep([x, *s], self.drives(x, self.net.biases))[1:]  # f′ of the drive, not of the state
            error = torch.autograd.grad(self.net.loss(s[-1], y), s[-1])[0]
        kept = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}

        def send_back(z):
            *hidden, top = torch.autograd.grad(pulled, s, z, **kept)
            return [torch.lerp(old, new, 0.5) for old, new in zip(z, [*hidden, top + error], strict=True)]

        z = until_still(send_back, [torch.zeros_like(h) for h in s])
        own = [p for _, p in self.taught()]
        found = iter(torch.autograd.grad(pulled, [p for p in own if p.requires_grad], z))
        return [next(found) if p.requires_grad else torch.zeros_like(p) for p in own]


class EquilibriumPropagation(Settling, Rule):
    """Equilibrium propagation: let the network settle, nudge its output, and let each synapse compare the two states.

    Source: Scellier and Bengio 2017, doi:10.3389/fncom.2017.00024; two-sided nudging: Laborieux and colleagues 2021,
    doi:10.3389/fnins.2021.633674. Settings of `Settling`, and nudge: β; nudged_sweeps: of each nudged phase, which starts
    from the free state; symmetric: contrast towards the target with away from it, or towards it with the free state.
    `backward` returns net.loss at the end of the free phase. ValueError for values out of range.
    """

    title = "Equilibrium propagation"
    look = ("green", "-")
    lr = 0.03
    nudge = Knob(0.5, above(0), slider=(0.01, 0.9, "log"), live=True)
    nudged_sweeps = Knob(5, whole(1), slider=(1, 40, "linear"), live=True)
    symmetric = Knob(True, one_of(True, False))
    plausibility = {
        "weight_transport": "yes, to settle",
        "update_locking": "partly",
        "non_local": "no",
        "separate_phases": "yes",
        "global_error": "nothing",
        "signed_error": "no",
        "needs_derivative": "no",
        "cost": "1 forward + free and nudged sweeps",
    }

    @torch.no_grad()
    def backward(self, x, y):
        if self.symmetric and self.nudge >= 1 and self.net.loss_name == "squared_error":
            raise ValueError(f"nudge is {self.nudge}; pushed away by 1 or more the output never rests: take less")
        drives = self.drives(x)
        free = self.settle(x, drives=drives)
        plus = self.settle(x, free, self.nudged_sweeps, self.nudge, y, drives)
        minus = self.settle(x, free, self.nudged_sweeps, -self.nudge, y, drives) if self.symmetric else free
        self.contrast(plus, minus, self.nudge * (2 if self.symmetric else 1))
        return self.net.loss(free[-1], y)
