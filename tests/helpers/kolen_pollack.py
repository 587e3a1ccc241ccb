"""Feedback that learns as its weights do: how far the two are apart, and what can be wrong in Kolen–Pollack."""

from course_utils.rules import KolenPollack
from helpers import mutant

BACK = "delta @ self.feedback_weights[l]"
LEARNS, FADES = "self.add_grad(self.feedback_weights[l], gradient.clone())", "1 - self.decay * w.requires_grad"
SQUARE = "self.feedback_weights[l].shape[0] == self.feedback_weights[l].shape[1]"
LAWLESS = {  # what breaks the law: (in the rule's source, instead of it)
    "minus": (LEARNS, LEARNS.replace("gradient", "-gradient")),
    "half the rate": (LEARNS, LEARNS.replace("gradient", "(gradient / 2)")),
    "other batch": (LEARNS, LEARNS.replace("gradient", "gradient.roll(1, dims=1)")),
    "fixed feedback": (LEARNS, "pass"),
    "unequal decay": (FADES, "1 - self.decay / (1 + (w is self.feedback_weights[l]))"),
    "decay times lr": (FADES, "1 - self.decay * optimizer.param_groups[0]['lr']"),
}
WRONG = LAWLESS | {  # the same, and what goes back wrongly
    "transposed": (BACK, f"delta @ (self.feedback_weights[l].T if {SQUARE} else self.feedback_weights[l])"),
    "sign": (BACK, "-" + BACK),
    "no derivative": (" * self.net.derivative(h[l])", ""),
    "sum": (" / len(x)", ""),
}


def wrong(name):
    return mutant(KolenPollack, *WRONG[name])


def gaps(rule):
    return [(rule.net.weights[l] - rule.feedback_weights[l]).detach().clone() for l in range(1, rule.net.depth)]
