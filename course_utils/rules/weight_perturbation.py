# Exported from lessons/03_weight_perturbation/lesson.md. Edit the lesson, not this file.

import math
import warnings

import torch
import torch.nn.functional as F
from torch.func import functional_call, jvp, vmap

from course_utils.rule import Knob, Rule, above, one_of, whole

# torch's own jvp still calls what torch has deprecated.
warnings.filterwarnings("ignore", ".*torch.jit.script. is deprecated", FutureWarning)
AT_ONCE = 2**22  # random numbers drawn at once, 16 MiB in float32: more draws than fit are taken in parts


def random_directions(parameters, draws, noise, generator):
    """For each parameter (draws, *its shape) independent numbers of mean 0 and variance 1."""

    def numbers(like, shape):
        if noise == "gaussian":
            return torch.randn(shape, generator=generator, dtype=like.dtype, device=like.device)
        n, bits = math.prod(shape), torch.arange(8, dtype=torch.uint8, device=like.device)
        made = torch.randint(256, (n // 8 + 1, 1), generator=generator, dtype=torch.uint8, device=like.device)
        signs = (made >> bits) & 1  # eight of them from every random byte
        return signs.flatten()[:n].view(shape).to(like.dtype).mul_(2).sub_(1)

    return [numbers(p, (draws, *p.shape)) for p in parameters]


def losses_nearby(net, x, y, psi, steps):
    """[losses (batch,) here, then for each step losses (draws, batch) with the weights moved step × psi].

    psi: directions of the weights and then of the biases of the last layers, as many as there are.
    """
    half, begin = len(psi) // 2, net.depth - len(psi) // 2
    first = F.linear(net.check_input(x), net.weights[0], net.biases[0])
    along = 0 if begin else torch.matmul(x, psi[0].mT) + psi[half].unsqueeze(1)  # one product serves every step
    losses = [net.loss(net.onward(first)[-1], y, "none")]
    for step in steps:
        weights, biases = list(net.weights), list(net.biases)
        for l in range(max(1, begin), net.depth):
            weights[l] = weights[l] + step * psi[l - begin]
            biases[l] = biases[l] + step * psi[l - begin + half]
        out = net.onward(first + step * along, weights, biases)[-1]  # (draws, batch, classes)
        labels = y.repeat(len(out), *[1] * (y.ndim - 1))
        losses.append(net.loss(out.flatten(0, 1), labels, "none").view(len(out), -1))
    return losses


class WeightPerturbation(Rule):
    """Weight perturbation: jiggle all weights at once, and change them by the jiggle times what it did to the loss.

    Source: Dembo and Kailath 1990, doi:10.1109/72.80205; each draw weighed by its own change of the loss, so that it
    points downhill, Cauwenberghs 1993 (NIPS 5:244); both ways at once, Spall 1992, doi:10.1109/9.119632 (who divides by ψ
    where this multiplies: the same for signs).
    x (batch, inputs), y (batch,) labels or (batch, outputs) targets. perturbation_std: σ, above 0. draws: K directions
    a batch, in one batched product as far as they fit into `AT_ONCE` numbers. mode: "antithetic" compares w + σψ with
    w − σψ, "one_sided" with w, "no_baseline" with nothing. noise: "gaussian" or "rademacher" (±1). ValueError for
    anything else.
    """

    title = "Weight perturbation"
    look = ("red", "dash dot")
    lr = 1e-3
    perturbation_std = Knob(1e-3, above(0), slider=(1e-10, 1.0, "log"), live=True)
    draws = Knob(1, whole(1), slider=(1, 64, "log"), live=True)
    mode = Knob("antithetic", one_of("antithetic", "one_sided", "no_baseline"))
    noise = Knob("gaussian", one_of("gaussian", "rademacher"))
    perturb_hidden = True  # False: the readout alone is jiggled
    plausibility = {
        "weight_transport": "no",
        "update_locking": "partly",
        "non_local": "no",
        "separate_phases": "yes",
        "global_error": "scalar",
        "signed_error": "a signed scalar",
        "needs_derivative": "no",
        "cost": "2 forward a draw",
    }

    @torch.no_grad()
    def backward(self, x, y):
        begin = 0 if self.perturb_hidden else self.net.depth - 1
        moved = [*list(self.net.weights)[begin:], *list(self.net.biases)[begin:]]
        at_once = max(1, AT_ONCE // sum(p.numel() for p in moved))
        for start in range(0, self.draws, at_once):
            psi = random_directions(moved, min(at_once, self.draws - start), self.noise, self.generator)
            slopes, loss = self.slopes(x, y, psi)
            for p, v in zip(moved, psi, strict=True):
                self.add_grad(p, torch.tensordot(slopes, v, 1) / self.draws)  # (3)
        return loss

    def slopes(self, x, y, psi):
        """How fast the batch's loss rises along each direction, (draws,); and the loss here."""
        std = self.perturbation_std
        steps = (std, -std) if self.mode == "antithetic" else (std,)
        here, plus, *minus = losses_nearby(self.net, x, y, psi, steps)
        if self.mode == "antithetic":
            return (plus - minus[0]).mean(1) / (2 * std), here.mean()  # (2)
        baseline = here if self.mode == "one_sided" else 0
        return (plus - baseline).mean(1) / std, here.mean()  # (2a)


class WeightForwardGradient(WeightPerturbation):
    """Forward gradient: weight perturbation with the exact slope ψ·∇L, by forward-mode differentiation.

    Source: Baydin, Pearlmutter, Syme, Wood and Torr 2022, arXiv:2202.08587. Inputs, draws and noise as in
    WeightPerturbation, and the same seed draws the same directions.
    """

    title = "Weight forward gradient"
    look = ("red", ":")
    perturbation_std, mode = 0.0, "exact"  # σ → 0: no knobs here
    plausibility = WeightPerturbation.plausibility | {
        "separate_phases": "no",
        "needs_derivative": "yes",
        "cost": "about 2 forward a draw",
    }

    def slopes(self, x, y, psi):
        layers = range(self.net.depth - len(psi) // 2, self.net.depth)
        names = [f"{kind}.{l}" for kind in ("weights", "biases") for l in layers]
        here = {name: self.net.get_parameter(name) for name in names}

        def loss(parameters):
            return self.net.loss(functional_call(self.net, parameters, (x,)), y)

        along = vmap(lambda v: jvp(loss, (here,), (v,))[1], randomness="same")
        return along(dict(zip(names, psi, strict=True))), loss(here)  # (2), σ → 0
