# Exported from lessons/11_hebbian_features/lesson.md. Edit the lesson, not this file.

from typing import Any

import torch
import torch.nn.functional as F

from course_utils.rule import FeedbackWeights as Buffers  # a list of tensors that travel with the rule
from course_utils.rule import Knob, Rule, above, one_of


class HebbianLayers:
    """Hidden layers that see no error: each takes the mean off its inputs and hands on what it says over its spread.

    means[l] (inputs of layer l + 1) and variances[l] (its units) are running means over some `memory` batches, which the
    rule that inherits this moves in `step`. The readout reads the last layer's features and learns by the delta rule.
    """

    net: Any
    rate: Any
    change: Any
    left_out: Any
    means: Any
    variances: Any
    seen: Any
    memory = 100

    def responses(self, x, noisy=True):
        """Of each hidden layer (what comes in, the same centred, y, features), each (batch, units)."""
        h, noise = self.net.check_input(x), self.net.draw_activity_noise(x) if noisy else [None] * self.net.depth
        for l, (mean, variance) in enumerate(zip(self.means, self.variances, strict=True)):
            came_in, c = h, h - mean
            y = F.linear(c, self.net.weights[l], noise[l])  # (1)
            spread = (variance + 1e-3 * variance.mean()).clamp(min=1e-12).sqrt()  # silent neurons stay quiet
            h = self.net.nonlinearity(y / spread)  # (6)
            yield came_in, c, y, h

    def features(self, x):
        """What the readout reads, (batch, units of the last hidden layer)."""
        return [self.net.check_input(x), *(h for *_, h in self.responses(x))][-1]

    def gradients(self, x, y, whole=False):
        """(loss, one tensor for each of `taught()`); whole: with what the rule leaves out, without activity noise."""
        layers = list(self.responses(x, noisy=not whole))
        changes = [self.change(l, c, said) for l, (_, c, said, _) in enumerate(layers)]
        if whole:
            changes = [new + self.left_out(l, *layers[l][1:3]) for l, new in enumerate(changes)]
        z = layers[-1][-1] if layers else self.net.check_input(x)
        scores = F.linear(z, self.net.weights[-1], self.net.biases[-1])
        error = self.net.output_error(scores, y) / len(x)
        return self.net.loss(scores, y), [*(-self.rate * new for new in changes), error.T @ z, error.sum(0)]

    @torch.no_grad()
    def reference_gradient(self, x, y):
        return self.gradients(x, y, whole=True)[1]

    @torch.no_grad()
    def predict(self, x):
        return F.linear(self.features(x), self.net.weights[-1], self.net.biases[-1])

    @torch.no_grad()
    def move_statistics(self, x):
        """One batch further with running means and variances."""
        share = (1 / self.seen.add_(1)).clamp(min=1 / self.memory)
        for l, (came_in, _, said, _) in enumerate(self.responses(x)):
            self.means[l].lerp_(came_in.mean(0).to(share), share)
            self.variances[l].lerp_(said.square().mean(0).to(share), share)


class Sanger(HebbianLayers, Rule):
    """Sanger's rule: each hidden neuron learns, by Hebb's and Oja's rule, what the neurons before it leave over.

    Source: Sanger 1989, doi:10.1016/0893-6080(89)90044-0; Oja 1982, doi:10.1007/BF00275687.
    Hidden layers see no label and no error; the readout is taught by the delta rule on features, f of what each neuron
    says divided by its spread. Running means and spreads move in `step`; `net(x)` knows neither, `predict` does. Hidden
    biases are not used and not taught: the mean is taken away before. rate: the hidden layers' learning rate is rate · lr.
    `reference_gradient`: of hidden layers, that of equation (8), times rate. ValueError for a rate not above 0.
    """

    title = "Sanger"
    look = ("red", "--")
    lr = 0.2
    rate = Knob(0.1, above(0), slider=(0.01, 1.0, "log"), live=True)
    plausibility = {
        "weight_transport": "no",
        "update_locking": "no",
        "non_local": "partly",  # what earlier neurons leave over has to reach the later ones
        "separate_phases": "no",
        "global_error": "nothing",
        "signed_error": "no",
        "needs_derivative": "no",
        "cost": "1 forward",
    }

    def __init__(self, net, seed=0, **knobs):
        super().__init__(net, seed, **knobs)
        like, hidden = net.weights[0], net.sizes[1:-1]
        self.means = Buffers([like.new_zeros(inputs) for inputs in net.sizes[: len(hidden)]])
        self.variances = Buffers([like.new_ones(units) for units in hidden])
        self.register_buffer("seen", like.new_zeros(()))

    def taught(self):
        return [*enumerate(self.net.weights, 1), (self.net.depth, self.net.biases[-1])]

    def change(self, l, c, y):
        """Δ of the weights (units, inputs) of hidden layer l + 1, from its centred inputs c and what it says, y."""
        return (y.T @ c - torch.tril(y.T @ y) @ self.net.weights[l]) / len(c)  # (5)

    def left_out(self, l, c, y):
        """What `change` leaves out of the gradient that it follows, (8); (units, inputs)."""
        w = self.net.weights[l]
        return (y - y @ torch.tril(w @ w.T).T).T @ c / len(c)

    @torch.no_grad()
    def backward(self, x, y):
        loss, found = self.gradients(x, y)
        for (_, parameter), gradient in zip(self.taught(), found, strict=True):
            self.add_grad(parameter, gradient)
        return loss

    def step(self, x, y, optimizer):
        loss = super().step(x, y, optimizer)
        self.move_statistics(x)
        return loss


class NonlinearHebb(Sanger):
    """Nonlinear PCA: the last hidden layer learns by its bent responses, the ones before it whiten by Sanger's rule.

    Source: Oja 1997, Neurocomputing 17:25; y − tanh y, with a decay of another kind: Karhunen and colleagues 1997,
    IEEE Transactions on Neural Networks 8:486.
    On whitened inputs it separates independent sources. response: r = "expand", y − tanh y, for sources with heavy
    tails, or "compress", tanh y, for those with light ones. With one hidden layer it takes the inputs as they come, so
    whiten them yourself. `reference_gradient` is that of ½|z − Wᵀr|². ValueError for another response.
    """

    title = "Nonlinear Hebb"
    look = ("black", "--")
    response = Knob("expand", one_of("expand", "compress"))

    def bent(self, y):
        """(r, dr/dy), each of y's shape."""
        r = torch.tanh(y)
        return (r, 1 - r * r) if self.response == "compress" else (y - r, r * r)  # (7)

    def change(self, l, c, y):
        if l < self.net.depth - 2:
            return super().change(l, c, y)
        r, _ = self.bent(y)
        return (r.T @ c - (r.T @ r) @ self.net.weights[l]) / len(c)  # (7)

    def left_out(self, l, c, y):
        if l < self.net.depth - 2:
            return super().left_out(l, c, y)
        w, (r, slope) = self.net.weights[l], self.bent(y)
        return (slope * (y - r @ (w @ w.T))).T @ c / len(c)
