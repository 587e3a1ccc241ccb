"""A network and a rule as a project brings them: layers of torch's own, and weights that no `MLP` holds."""

import torch
import torch.nn.functional as F
from torch import nn

from course_utils.rule import Rule


class TwoLinear(nn.Module):
    """What `Net` asks for, and the forward of any module, which only a rule of one's own may call."""

    depth = 2

    def __init__(self, inputs=12, units=9, classes=4, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.first, self.second = nn.Linear(inputs, units), nn.Linear(units, classes)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=generator) / 3)

    @property
    def weights(self):
        return [self.first.weight, self.second.weight]

    @property
    def biases(self):
        return [self.first.bias, self.second.bias]

    def activations(self, x):
        h = torch.tanh(self.first(x))
        return [x, h, self.second(h)]

    def forward(self, x):
        return self.activations(x)[-1]

    def derivative(self, h):
        return 1 - h * h

    def output_error(self, out, y):
        return out.softmax(1) - F.one_hot(y, out.shape[1])

    def loss(self, out, y, reduction="mean"):
        return F.cross_entropy(out, y, reduction=reduction)


class Undeclared(Rule):
    """Three matrices of its own in place of the network's, taught by autograd through two rounds of time."""

    title = "Recurrent"

    def __init__(self, net, seed=0, units=7):
        super().__init__(net, seed)
        inputs, classes = net.weights[0].shape[1], net.weights[-1].shape[0]
        shapes = (units, inputs), (units, units), (classes, units)
        drawn = [torch.randn(shape, generator=self.generator).to(net.weights[0]) / 3 for shape in shapes]
        self.into, self.around, self.out = map(nn.Parameter, drawn)

    def scores(self, x):
        s = torch.tanh(x @ self.into.T)
        return torch.tanh(x @ self.into.T + s @ self.around.T) @ self.out.T

    def own_gradient(self, x, y):
        loss = self.net.loss(self.scores(x), y)
        return loss.detach(), list(torch.autograd.grad(loss, [self.into, self.around, self.out]))

    def backward(self, x, y):
        loss, gradient = self.own_gradient(x, y)
        for p, g in zip([self.into, self.around, self.out], gradient, strict=True):
            self.add_grad(p, 2 * g)
        return loss

    @torch.no_grad()
    def predict(self, x):
        return self.scores(x)


class Recurrent(Undeclared):
    """The same, and it says so: two matrices make the first layer, one the readout."""

    def taught(self):
        return [(1, self.into), (1, self.around), (2, self.out)]

    def reference_gradient(self, x, y):
        return self.own_gradient(x, y)[1]
