# Exported from lessons/21_forward_forward/lesson.md. Edit the lesson, not this file.

from typing import Any

import torch
import torch.nn.functional as F

from course_utils.device import unattended
from course_utils.rule import CRITERIA, Knob, Rule, above, at_least, one_of


def normalised(h):
    """h with a mean square of 1 over its units, example by example: (1)."""
    return h / h.square().mean(-1, keepdim=True).sqrt().clamp(min=1e-8)


def unit_length(h):
    """h with length 1, for the readout: there Adam's steps, which are alike for all weights, add up over the units."""
    return normalised(h) / h.shape[-1] ** 0.5


def goodness_of(h):
    """The mean square of a layer's activities (…, units), one number an example: (2)."""
    return h.square().mean(-1)


def pixels_of(y, net, x):
    """The labels of the images x as they are written into pixels: (batch, classes), one-hot."""
    net.check_target(x.new_empty(len(x), net.sizes[-1]), y)
    return y if y.is_floating_point() else F.one_hot(y, net.sizes[-1]).to(x.dtype)


def wrong_labels(true, belief, generator):
    """One label a row, one-hot, drawn by the belief (batch, classes) in it, but never the true one."""
    belief = belief.clamp(min=1e-6).scatter(1, true.argmax(1, keepdim=True), 0)
    return F.one_hot(belief.multinomial(1, generator=generator)[:, 0], belief.shape[1]).to(true.dtype)


class NeedsMargin:
    """What writes the label over the first inputs, one for each class, needs data that are blank there, as MNIST's are."""

    net: Any
    title: Any

    def check_data(self, data):
        """ValueError for data that the label would wipe out, such as a table; a line where it takes a little of them."""
        classes = self.net.sizes[-1]
        margin = data.x_train[:, :classes].var(0).sum().item()
        lost = margin / data.x_train.var(0).sum().item() if margin else 0.0
        what = f"{self.title}: the label takes the place of the first {classes} inputs, {lost:.1%} of the data's variance"
        if lost > 0.05:
            mend = f"x = torch.nn.functional.pad(x, ({classes}, 0)) puts {classes} blank inputs before them"
            raise ValueError(f"{what}; {mend}, for a network with as many inputs more")
        if lost > 0 and not unattended.get():
            print(what)


class LabelledPasses(NeedsMargin):
    """What Forward-Forward's network does with an image and a label: activities, goodness, a readout's scores.

    The label takes the place of the first pixels, one for each class. `look_at` gives what all labels of an image share.
    Network and knobs are those of the rule that inherits this; polarity: 1, or −1 where quiet is good.
    """

    label_scale: Any
    polarity: Any

    def look_at(self, x):
        """(image, drive): the image, normalised, label pixels empty; and what it alone sends to layer 1."""
        image = self.net.check_input(x).clone()
        image[:, : self.net.sizes[-1]] = 0
        image = normalised(image)  # (1)
        return image, F.linear(image, self.net.weights[0], self.net.biases[0])

    def hidden(self, image, drive, label):
        """One hidden layer after the other, for labels (…, batch or 1, classes): (what came in, its activities)."""
        net, noise, came_in, h = self.net, self.net.draw_activity_noise(image), image, image
        a = drive + self.label_scale * label @ net.weights[0][:, : net.sizes[-1]].T  # (1), the label's pixels
        for l in range(net.depth - 1):
            if l > 0:
                came_in = normalised(h)  # (1)
                a = F.linear(came_in, net.weights[l], net.biases[l])
            h = net.nonlinearity(a if noise[l] is None else a + noise[l])
            yield came_in, h

    def readout(self, features):
        """The readout's scores (batch, classes) of h_{L−1}, or of the image where there is no hidden layer."""
        return F.linear(unit_length(features), self.net.weights[-1], self.net.biases[-1])  # (6)

    @torch.no_grad()
    def read(self, x):
        """The readout's scores of images without a label."""
        image, drive = self.look_at(x)
        no_label = torch.zeros_like(image[:1, : self.net.sizes[-1]])
        activities = [image] + [h for _, h in self.hidden(image, drive, no_label)]
        return self.readout(activities[-1])

    @torch.no_grad()
    def goodness(self, x):
        """(hidden layers, batch, classes): how good each layer finds each image with each label."""
        image, drive = self.look_at(x)
        labels = torch.eye(self.net.sizes[-1], dtype=x.dtype, device=x.device).split(1)
        passes = [[goodness_of(h) for _, h in self.hidden(image, drive, label)] for label in labels]
        return torch.stack([torch.stack(layers) for layers in passes], -1)

    @torch.no_grad()
    def predict(self, x, by="goodness"):
        if by not in ("goodness", "readout"):
            raise ValueError(f'by is {by!r}; use "goodness" (one pass a label) or "readout" (one pass)')
        if by == "readout" or self.net.depth == 1:
            return self.read(x)
        return self.polarity * self.goodness(x).sum(0)  # (7)


def flat(h):
    """Two passes (2, batch, units) as one batch of twice the size."""
    return h.flatten(0, 1)


class ForwardForward(LabelledPasses, Rule):
    """Forward-Forward: each hidden layer learns, by itself, to be active for a true pair of image and label only.

    Source: Hinton 2022, arXiv:2212.13345; layer collaboration: Lorberbom and colleagues 2023, arXiv:2305.12393.
    `backward` returns Σ over hidden layers of −log σ(±(goodness − threshold)), batch mean of true plus false pairs. The
    last layer is a readout of h_{L−1} without a label, taught alongside by the delta rule (without a hidden layer
    it is all there is). Made for Adam, and so is lr: hidden layers and readout ask for very different plain rates.
    threshold: θ; may move while training runs. negatives: labels of the false pairs, "uniform" over the wrong ones or
    "hard", drawn by the readout's belief in them. layer_collaboration: each layer's margin has the others' added, as
    constants. polarity: 1, or −1 for layers that are to be silent for true pairs. label_scale: the label's pixel, where
    the rms of the image is 1. y: (batch,) labels, or (batch, classes) values to write into the pixels. `net(x)` knows
    neither label nor normalisation: it is not what is taught, nor is its gradient, which `train` probes against.
    ValueError for other settings, for a network that has no more inputs than classes, and from `train` for data with more
    than a twentieth of their variance in the first inputs, one for each class: it says how to give the label room.
    """

    title = "Forward-Forward"
    look = ("purple", "-.")
    lr = 0.03
    threshold = Knob(2.0, at_least(0), slider=(0.1, 100.0, "log"), live=True)
    negatives = Knob("uniform", one_of("uniform", "hard"))
    layer_collaboration = Knob(False, one_of(False, True))
    polarity = Knob(1, one_of(1, -1))
    label_scale = Knob(10.0, above(0))
    loss_name = "goodness loss"
    plausibility = dict(zip(CRITERIA, ("no", "no", "no", "yes", "nothing", "no", "partly", "3 forward"), strict=True))

    def __init__(self, net, seed=0, **knobs):
        super().__init__(net, seed, **knobs)
        if not 1 < net.sizes[-1] < net.sizes[0]:
            raise ValueError(f"sizes is {net.sizes}; it takes two or more classes, and more inputs than label pixels")

    @torch.no_grad()
    def backward(self, x, y):
        net, (image, drive) = self.net, self.look_at(x)
        true = pixels_of(y, net, x)
        belief = self.read(x).softmax(1) if self.negatives == "hard" else torch.ones_like(true)
        label = torch.stack([true, wrong_labels(true, belief, self.generator), torch.zeros_like(true)])
        sign, features, loss = self.polarity * x.new_tensor([[1.0], [-1.0]]), image, x.new_zeros(())
        layers = self.hidden(image, drive, label)  # made one by one: each may learn before the next is there
        if self.layer_collaboration:
            layers = list(layers)  # each has to wait for all
            together = sum(sign * (goodness_of(h[:2]) - self.threshold) for _, h in layers)  # (8)
        for l, (came_in, h) in enumerate(layers):
            margin = together if self.layer_collaboration else sign * (goodness_of(h[:2]) - self.threshold)  # (3)
            push = -sign * torch.sigmoid(-margin) / len(x)  # (4)
            delta = push[..., None] * 2 * h[:2] * net.derivative(h[:2]) / net.sizes[l + 1]  # (4)
            gradient = delta.sum(0).T @ image if l == 0 else flat(delta).T @ flat(came_in[:2])  # (5)
            if l == 0:
                gradient[:, : net.sizes[-1]] = self.label_scale * flat(delta).T @ flat(label[:2])  # (5), the label
            self.add_grad(net.weights[l], gradient)
            self.add_grad(net.biases[l], delta.sum((0, 1)))
            features, loss = h[2], loss + F.softplus(-margin).sum() / len(x)  # (3)
        error = net.output_error(self.readout(features), y) / len(x)
        self.add_grad(net.weights[-1], error.T @ unit_length(features))  # (6)
        self.add_grad(net.biases[-1], error.sum(0))
        return loss
