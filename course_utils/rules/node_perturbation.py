# Exported from lessons/04_node_perturbation/lesson.md. Edit the lesson, not this file.

import torch
import torch.nn.functional as F

from course_utils.rule import Knob, Rule, above, one_of, whole

NUMBERS = 2**18  # of noise at once, 1 MB in float32: more tries than fit into that are run in portions


def draw_noise(rule, h, draws):
    """Standard normal ξ for every layer, (draws, batch, units) each; None for a layer that is not perturbed."""
    noise: list[torch.Tensor | None] = []
    for l, a in enumerate(h[1:]):
        hidden = l < rule.net.depth - 1
        if hidden and not rule.perturb_hidden:
            noise.append(None)
            continue
        xi = torch.randn(draws, *a.shape, generator=rule.generator, dtype=a.dtype, device=a.device)
        if hidden and not rule.perturb_inactive and rule.net.activation_name == "relu":
            xi *= rule.net.derivative(a)  # 1 for an active unit, 0 for a silent one
        noise.append(xi)
    return noise


def losses(net, y, first, noise):
    """Loss of every example in every draw, (draws, batch), under noise on the pre-activations: equation (1).

    first: the first layer's pre-activations, which all draws share.
    """
    out = net.onward(first, edit=lambda l, a: a if noise[l] is None else a + noise[l])[-1]
    many = y.repeat(len(out), *[1] * (y.ndim - 1))
    return net.loss(out.flatten(0, 1), many, reduction="none").view(len(out), -1)


def portions(draws, numbers):
    """Sizes of the portions in which draws of so many numbers each are run."""
    most = max(1, NUMBERS // numbers)
    return [min(most, draws - done) for done in range(0, draws, most)]


class NodePerturbation(Rule):
    """Node perturbation: every unit is shaken for every example, and moves along or against what it tried.

    Source: Williams 1992, doi:10.1007/BF00992696; in this form Fiete and Seung 2006,
    doi:10.1103/PhysRevLett.97.048104; one unit at a time, Widrow and Lehr 1990 (Madaline Rule III).
    perturbation_std: σ > 0 of the noise on pre-activations. draws: tries for
    each example. mode: "antithetic", two opposite passes a try, or "one_sided", one pass against the clean one.
    perturb_inactive: whether to shake ReLU units that are silent in the clean pass.
    x (batch, inputs), y (batch,) labels or (batch, outputs) targets. ValueError for anything out of range.
    """

    title = "Node perturbation"
    look = ("green", "-.")
    lr = 0.005
    perturbation_std = Knob(1e-3, above(0), slider=(1e-5, 10.0, "log"), live=True)
    draws = Knob(1, whole(1), slider=(1, 64, "log"))
    mode = Knob("antithetic", one_of("antithetic", "one_sided"))
    perturb_inactive = Knob(False, one_of(False, True))
    plausibility = {
        "weight_transport": "no", "update_locking": "partly", "non_local": "no", "separate_phases": "yes",
        "global_error": "scalar", "signed_error": "a signed scalar", "needs_derivative": "no", "cost": "1 + 2K forward",
    }
    perturb_hidden = True  # the frozen control turns it off

    @torch.no_grad()
    def backward(self, x, y):
        net = self.net
        first = F.linear(net.check_input(x), net.weights[0], net.biases[0])  # shared by all tries
        h = [x, *net.onward(first)]
        loss = net.loss(h[-1], y, reduction="none")
        delta = [torch.zeros_like(a) for a in h[1:]]
        for draws in portions(self.draws, len(x) * sum(net.sizes[1:])):
            noise = draw_noise(self, h, draws)
            slope = self.slope(y, first, h, loss, noise)
            for d, xi in zip(delta, noise, strict=True):
                d += 0.0 if xi is None else torch.einsum("kn,knq->nq", slope, xi)  # (3), (7)
        for l in range(net.depth) if self.perturb_hidden else [net.depth - 1]:
            error = delta[l] / (self.draws * len(x))
            self.add_grad(net.weights[l], error.T @ h[l])  # (4), (7)
            self.add_grad(net.biases[l], error.sum(0))  # (4)
        return loss.mean()

    def slope(self, y, first, h, loss, noise):
        """How fast each example's loss rises along its noise, (draws, batch): ΔL / σ."""
        std = self.perturbation_std
        up = losses(self.net, y, first, [None if xi is None else std * xi for xi in noise])
        if self.mode == "one_sided":
            return (up - loss) / std  # (2)
        down = losses(self.net, y, first, [None if xi is None else -std * xi for xi in noise])
        return (up - down) / (2 * std)  # (5)


class ActivityForwardGradient(NodePerturbation):
    """Node perturbation for σ → 0: the slope along the noise from one tangent pass, exactly.

    Source: Ren, Kornblith, Liao and Hinton 2023, arXiv:2210.03310 (activity perturbation). draws, perturb_inactive, x, y and
    errors as in NodePerturbation. The same seed draws the same noise.
    """

    title = "Activity forward gradient"
    look = ("purple", "--")
    perturbation_std, mode = 0.0, "exact"  # σ → 0: no knobs here
    plausibility = NodePerturbation.plausibility | {
        "update_locking": "no", "non_local": "partly", "separate_phases": "no", "needs_derivative": "yes",
        "cost": "1 + K forward",
    }

    def slope(self, y, first, h, loss, noise):
        tangent = 0.0
        for l, xi in enumerate(noise):
            if l > 0:
                tangent = (tangent * self.net.derivative(h[l])) @ self.net.weights[l].T  # (8)
            tangent = tangent if xi is None else tangent + xi  # (8)
        return (tangent * self.net.output_error(h[-1], y)).sum(-1)  # (8)
