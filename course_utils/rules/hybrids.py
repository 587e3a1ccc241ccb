# Exported from lessons/30_hybrids/lesson.md. Edit the lesson, not this file.

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from course_utils.checks import is_number
from course_utils.rule import CRITERIA, FeedbackWeights, Knob, Rule, above, between, one_of
from course_utils.rules import ALL
from course_utils.rules.feedback_alignment import FeedbackAlignment
from course_utils.rules.node_perturbation import losses

# The words of a plausibility card, from what asks nothing of a brain to what asks most.
BY_DEMAND = ["no", "nothing", "label only", "1 bit an output", "1 bit a weight", "scalar", "a signed scalar", "partly"]
BY_DEMAND += ["vector, to the input", "vector", "yes, to settle", "yes"]


def can_be_a_part(rule_class):
    """Whether all it does in a step is to fill .grad by `backward`, for the network's own loss."""
    plain = rule_class.step is Rule.step and rule_class.predict is Rule.predict
    return plain and rule_class.loss_name == "loss"


def card_of(cards):
    """One plausibility card for several: in each line the word of who asks most; what they cost adds up."""
    most = {line: max((card[line] for card in cards), key=BY_DEMAND.index) for line in CRITERIA if line != "cost"}
    return most | {"cost": " + ".join(card["cost"] for card in cards)}


class Parts:
    """What a rule made of rules needs: its parts, by name, on one network and with one generator."""

    net: Any
    seed: int
    parts: Any
    generator: Any
    plausibility: Any

    def take(self, **names):
        """The parts, {what for: name of a rule}; the card is then theirs together."""
        good = [name for name, rule_class in ALL.items() if can_be_a_part(rule_class)]
        for what, name in names.items():
            if name not in good:
                why = "which does more in a step than fill .grad for net.loss" if name in ALL else "which is no rule"
                raise ValueError(f"{what} is {name!r}, {why}; a part can be: {', '.join(good)}")
        self.told, self.parts = names, nn.ModuleList(ALL[name](self.net, seed=self.seed) for name in names.values())
        for part in self.parts:
            part.generator = self.generator  # one for all, or two parts would draw the same noise
        self.plausibility = card_of([part.plausibility for part in self.parts])

    @property
    def perturb_hidden(self):
        """Whether parts that perturb hidden units do; the frozen control turns it off."""
        return all(getattr(part, "perturb_hidden", True) for part in self.parts)

    @perturb_hidden.setter
    def perturb_hidden(self, value):
        for part in self.parts:
            if hasattr(part, "perturb_hidden"):
                part.perturb_hidden = value


def estimate_of(rule, x, y):
    """(loss, what `backward` makes of each parameter of the network, None where nothing); .grad is left as it was."""
    parameters = list(rule.net.parameters())
    before = [p.grad for p in parameters]
    for p in parameters:
        p.grad = None
    try:
        return rule.backward(x, y), [p.grad for p in parameters]
    finally:
        for p, gradient in zip(parameters, before, strict=True):
            p.grad = gradient


class Blend(Parts, Rule):
    """A mixture of two rules' estimates: (1 − blend) of the first plus blend of the second.

    Source: lesson 30 of this course; bias and variance follow from those of the parts, (2) and (3).
    first, second: names of rules that do all in `backward`. blend: the share of the second, 0 to 1; may move while
    training runs. A part without a share is not run. x (batch, inputs), y labels or targets. ValueError for anything else.
    """

    title = "Blend"
    look = ("purple", "long dashes")
    lr = 0.003
    blend = Knob(0.5, between(0, 1), slider=(0.0, 1.0, "linear"), live=True)

    def __init__(self, net, seed=0, first="WeightPerturbation", second="FeedbackAlignment", **knobs):
        super().__init__(net, seed, **knobs)
        self.take(first=first, second=second)

    @torch.no_grad()
    def backward(self, x, y):
        for share, part in zip((1 - self.blend, self.blend), self.parts, strict=True):
            if share > 0:
                loss, estimate = estimate_of(part, x, y)
                for p, g in zip(self.net.parameters(), estimate, strict=True):
                    if g is not None:
                        self.add_grad(p, share * g)  # (1)
        return loss


class Layered(Parts, Rule):
    """One rule for the hidden layers, another one for the readout.

    hidden, readout: names of rules that do all in `backward`. A readout rule that perturbs leaves the hidden units alone.
    x (batch, inputs), y labels or targets. ValueError for anything else.
    """

    title = "Layered"
    look = ("orange", "long dashes")
    lr = 0.1

    def __init__(self, net, seed=0, hidden="FeedbackAlignment", readout="Backprop", **knobs):
        super().__init__(net, seed, **knobs)
        self.take(hidden=hidden, readout=readout)
        if readout == "Backprop":  # it takes a way back to reach hidden layers; a readout has all it needs at hand
            of_readout = dict.fromkeys(CRITERIA, "no") | {"global_error": "vector", "signed_error": "yes"}
            card = card_of([self.parts[0].plausibility, of_readout])
            self.plausibility = card | {"cost": self.plausibility["cost"]}
        if hasattr(self.parts[1], "perturb_hidden"):
            self.parts[1].perturb_hidden = False  # noise for layers that it does not teach would only disturb

    @torch.no_grad()
    def backward(self, x, y):
        (loss, for_hidden), (_, for_readout) = (estimate_of(part, x, y) for part in self.parts)
        parameters, last = list(self.net.parameters()), self.net.depth - 1
        for i, p in enumerate(parameters):  # all weights, then all biases
            g = (for_readout if i % self.net.depth == last else for_hidden)[i]
            if g is not None:
                self.add_grad(p, g)
        return loss


class RandomFreezing(Parts, Rule):
    """A rule some of whose synapses stand still: each weight's gradient is dropped with probability `frozen`.

    redraw True: others at every step; False: the same for good. frozen: 0 or larger and below 1; may move while training
    runs. rule: the name of a rule that does all in `backward`. What is left is not amplified: in the mean the gradient is
    (1 − frozen) of what it was, (6), so compare at a learning rate of 1 / (1 − frozen). ValueError for anything else.
    """

    title = "Random freezing"
    look = ("grey", "-.")
    lr = 0.1
    frozen = Knob(
        0.5, ("a number, 0 or larger and below 1", lambda value: is_number(value) and 0 <= value < 1),
        slider=(0.0, 0.98, "linear"), live=True,
    )  # fmt: skip
    redraw = Knob(True, one_of(True, False))

    def __init__(self, net, seed=0, rule="Backprop", **knobs):
        super().__init__(net, seed, **knobs)
        self.take(rule=rule)
        self.lots = FeedbackWeights([None if self.redraw else self.draw(p) for p in net.parameters()])

    def draw(self, p):
        return torch.rand(p.shape, generator=self.generator, dtype=p.dtype, device=p.device)

    @torch.no_grad()
    def backward(self, x, y):
        loss, estimate = estimate_of(self.parts[0], x, y)
        for p, g, lot in zip(self.net.parameters(), estimate, self.lots, strict=True):
            if g is not None:
                self.add_grad(p, g * ((self.draw(p) if lot is None else lot) >= self.frozen))  # (6)
        return loss


class PerturbationTaughtFeedback(FeedbackAlignment):
    """Feedback alignment whose feedback learns, from node perturbation, what it should have said.

    Source: Lansdell, Prakash and Kording 2020, arXiv:1906.00889. Every step shakes the hidden units of each example once,
    both ways; feedback_weights[l] moves so that its message comes nearer to what the shaking found, (5). feedback_rate: μ,
    above 0, at most 1, the share of the error that a step takes away where there is one example; may move while training
    runs. perturbation_std: σ, above 0. ValueError for anything out of range.
    """

    title = "Feedback taught by perturbation"
    look = ("orange", "-")
    lr = 0.1
    feedback_scale = 1.0  # no knob here: it learns its scale
    feedback_rate = Knob(
        0.5, ("a number above 0, at most 1", lambda value: is_number(value) and 0 < value <= 1),
        slider=(1e-3, 1.0, "log"), live=True,
    )  # fmt: skip
    perturbation_std = Knob(1e-3, above(0))
    plausibility = FeedbackAlignment.plausibility | {"non_local": "no", "cost": "4 forward + 1 backward"}

    def step(self, x, y, optimizer):
        loss = super().step(x, y, optimizer)
        self.teach_feedback(x, y)
        return loss

    @torch.no_grad()
    def teach_feedback(self, x, y):
        net, std = self.net, self.perturbation_std
        first = F.linear(net.check_input(x), net.weights[0], net.biases[0])  # shared by all passes
        h = [x, *net.onward(first)]
        noise = [torch.empty_like(a).normal_(generator=self.generator) for a in h[1:-1]]
        up, down = (losses(net, y, first, [*(s * n[None] for n in noise), None])[0] for s in (std, -std))
        slope = (up - down) / (2 * std)  # one number an example
        delta = net.output_error(h[-1], y)
        for l in reversed(range(1, net.depth)):
            b, f = self.feedback_weights[l], net.derivative(h[l])
            told = (delta @ b) * f
            miss = (told - slope[:, None] * noise[l - 1]) * f  # (5)
            size = delta.square().sum(1, keepdim=True)
            b.sub_(self.feedback_rate * (delta / (size + size.mean()).clamp(min=1e-30)).T @ miss / len(x))  # (5)
            delta = told
