"""Targets and the lessons of the feedback, written out once more, and networks whose inverse is known."""

import torch

from course_utils.network import ACTIVATIONS
from course_utils.rules import DifferenceTargetPropagation, LocalDRL
from course_utils.rules.target_propagation import Inverses
from helpers import mutant, small_net

# Square hidden layers, so that a transposed matrix still fits; the rest of the sizes are odd and different.
SIZES = {1: (7, 3), 2: (7, 5, 3), 3: (7, 5, 5, 3), 4: (7, 6, 6, 5, 3)}
RULES = (DifferenceTargetPropagation, LocalDRL)


def biased(rule):
    """The rule in float64, the biases of its feedback random, so that no term hides behind a zero."""
    generator = torch.Generator().manual_seed(300)
    with torch.no_grad():
        for c in rule.feedback_biases:
            if c is not None:
                c.copy_(0.3 * torch.randn(c.shape, generator=generator))
    return rule.double()


def back(rule, l, h):
    """g_l(h) = f(h B + c), straight from its definition."""
    f = ACTIVATIONS[rule.net.activation_name][0]
    return f(h @ rule.feedback_weights[l] + rule.feedback_biases[l])


def targets(rule, h, e, difference=True):
    """[t_1, …, t_L] from their definition: by the difference, or as the inverse alone makes them."""
    found = [h[-1] - rule.target_step * e]
    for l in reversed(range(1, rule.net.depth)):
        own_feedback = isinstance(rule, LocalDRL) or l < rule.net.depth - 1
        if not own_feedback:
            t = h[l] + (found[0] - h[l + 1]) @ rule.net.weights[l]
        elif difference:
            t = h[l] + back(rule, l, found[0]) - back(rule, l, h[l + 1])
        else:
            t = back(rule, l, found[0])
        found.insert(0, t)
    return found


def local_gradients(rule, x, y):
    """By autograd, of each layer's own loss ½ |h_l − t_l|² / η̂ alone, what is below it and its target held still."""
    net = rule.net
    f = ACTIVATIONS[net.activation_name][0]
    h = [state.detach() for state in net.activations(x)]
    found = [t.detach() for t in targets(rule, h, net.output_error(h[-1], y))]
    loss = 0.0
    for l, (w, b, t) in enumerate(zip(net.weights, net.biases, found, strict=True)):
        a = h[l] @ w.T + b
        loss = loss + ((a if l == net.depth - 1 else f(a)) - t).pow(2).sum(1).mean() / (2 * rule.target_step)
    return list(torch.autograd.grad(loss, list(net.parameters())))


def feedback_gradients(rule, x, lesson):
    """By autograd, of `lesson`, one of the two losses below, for the noise that the rule will draw."""
    twin = torch.Generator().set_state(rule.generator.get_state())
    h = [state.detach() for state in rule.net.activations(x)]
    return list(torch.autograd.grad(sum(lesson(rule, l, h, twin) for l in rule.inverted), rule.feedback_parameters()))


def noise(rule, h, generator):
    return rule.jitter * torch.randn(h.shape, generator=generator, dtype=h.dtype)


def forth(rule, l, h):
    f = (lambda a: a) if l == rule.net.depth - 1 else ACTIVATIONS[rule.net.activation_name][0]
    return f(h @ rule.net.weights[l].detach().T + rule.net.biases[l].detach())


def reconstruct(rule, l, h, generator):
    """½ |g(f(h + ξ)) − (h + ξ)|², the mean over examples and units."""
    noisy = h[l] + noise(rule, h[l], generator)
    return (back(rule, l, forth(rule, l, noisy)) - noisy).pow(2).mean() / 2


def transpose(rule, l, h, generator):
    """[½ |g(h⁺ + ζ) − g(h⁺)|² − ξ · (g(f(h + ξ)) − g(h⁺))] / s², the mean over examples and units."""
    xi, zeta = noise(rule, h[l], generator), noise(rule, h[l + 1], generator)
    still = back(rule, l, h[l + 1])
    answer = back(rule, l, forth(rule, l, h[l] + xi)) - still
    stir = back(rule, l, h[l + 1] + zeta) - still
    return (stir.pow(2) / 2 - xi * answer).mean() / rule.jitter**2


def invertible(matrices, activation="linear", loss="squared_error"):
    """A rule over a network of these square hidden matrices, (n, n) each, that knows their inverses exactly."""
    n = len(matrices[0])
    net = small_net((7, *[n] * (len(matrices) + 1), 3), activation, loss)
    rule = DifferenceTargetPropagation(net).double()
    for l, w in enumerate(matrices, 1):
        net.weights[l].data.copy_(w)
        inverse = torch.linalg.inv(w)
        rule.feedback_weights[l] = inverse.T
        rule.feedback_biases[l] = -inverse @ net.biases[l].detach()
    return rule


def random_matrices(count, n=5, singular_values=None, seed=0):
    """Gaussian n × n matrices; with these singular values where they are given: [1, 1, …] makes them orthogonal."""
    generator = torch.Generator().manual_seed(seed)
    found = [torch.randn(n, n, generator=generator, dtype=torch.float64) for _ in range(count)]
    if singular_values is None:
        return found
    values = torch.tensor(singular_values, dtype=torch.float64).diag()
    return [u @ values @ v for u, _, v in map(torch.linalg.svd, found)]


def wrong(name, base=DifferenceTargetPropagation):
    """A rule with one thing wrong in what it does (`TARGETS`), or in how its feedback learns (`LESSONS`)."""
    if name in TARGETS:
        made = mutant(DifferenceTargetPropagation, *TARGETS[name])
        return type("Wrong", (base,), {name: getattr(made, name) for name in ("backward", "shifts", "shift")})
    if name in TRANSPOSING:
        return mutant(LocalDRL, *TRANSPOSING[name])
    half = mutant(Inverses, *LESSONS[name])
    return type("Wrong", (half, base), {"hidden_parameters": base.hidden_parameters})


ALONE = "self.inverse(l, h[l + 1] + wish) - self.inverse(l, h[l + 1])"
TARGETS = {  # what is wrong: (in the source of `DifferenceTargetPropagation`, instead of it)
    "no difference": (ALONE, "self.inverse(l, h[l + 1] + wish) - h[l]"),
    "difference turned round": (ALONE, f"-({ALONE})"),
    "no derivative": (" * slope", ""),
    "sum over the batch": (" / len(x)", ""),
    "step not divided out": (" / self.target_step", ""),
    "sign": ("error = -shifts", "error = shifts"),
    "readout ignored": ("wish @ self.net.weights[l]", "wish @ torch.ones_like(self.net.weights[l])"),
}
LESSONS = {  # the same of `Inverses`
    "feedback transposed": ("h, self.feedback_weights[l])", "h, self.feedback_weights[l].T)"),
    "no bias": ("torch.addmm(self.feedback_biases[l], h, self.feedback_weights[l])", "h @ self.feedback_weights[l]"),
    "cleans": ("(back - noisy)", "(back - h[l])"),
    "no noise": ("noisy = h[l] + self.jittered(h[l])", "noisy = h[l]"),
    "no derivative of the inverse": (" * self.net.derivative(back)", ""),
    "sum over units": (" / noisy.numel()", " / len(noisy)"),
    "sign of the lesson": ("(back - noisy)", "(noisy - back)"),
}
TRANSPOSING = {  # the same of `LocalDRL`
    "only the first term": ("torch.cat([-xi, shaken - still, xi - (shaken - still)])", "torch.cat([-xi, 0 * xi, xi])"),
    "nothing taken off": ("xi - (shaken - still)", "0 * xi"),
    "not divided by s": ("self.jitter**2 * ", ""),
    "sign of the first term": ("[-xi, shaken - still, xi -", "[xi, shaken - still, -xi -"),
}
