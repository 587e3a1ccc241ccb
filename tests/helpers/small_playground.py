"""What a playground needs to train in a moment: data, a rule with a knob of every kind, its run repeated."""

import torch

import course_utils as cu
from course_utils.data import Dataset
from course_utils.rule import Knob, above, at_least, one_of, whole

PNG = b"\x89PNG"


def make_data(n=400, inputs=20):
    """Four Gaussian clouds, easily told apart."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(n) % 4
    centres = torch.randn(4, inputs, generator=generator)
    x = centres[y] + 0.5 * torch.randn(n, inputs, generator=generator)
    return Dataset("clouds", "clouds", x, y, x[:100], y[:100], x[:100], y[:100])


class Knobby(cu.rules.Backprop):
    """A rule of the user's own, with a knob of every kind."""

    title = "Knobby"
    gain = Knob(1.0, above(0), slider=(0.01, 10.0, "log"))
    leak = Knob(0.1, at_least(0), slider=(0.0, 0.5, "linear"))
    repeats = Knob(2, whole(1), slider=(1, 4, "linear"))
    units = Knob(8, whole(2), slider=(2, 32, "log"))
    hushed = Knob(False, one_of(False, True))  # no slider

    def backward(self, x, y):
        loss = super().backward(x, y)
        for p in self.net.parameters():
            p.grad *= self.gain
        return loss


class Live(Knobby):
    """Its gain may move while it trains."""

    gain = Knob(1.0, above(0), slider=(0.01, 10.0, "log"), live=True)


def repeat(lab, data):
    """Run the code that the playground shows; what it leaves behind."""
    names = {"cu": cu, "data": data, "Knobby": Knobby, "Live": Live}
    exec(lab.run_code, names)
    return names


def assert_repeated(lab, data):
    names = repeat(lab, data)
    pairs = zip(lab.rule.state_dict().items(), names["rule"].state_dict().items(), strict=True)
    assert all(torch.equal(mine, again) for (_, mine), (_, again) in pairs)
    mine, again = lab.history.frame, names["history"].frame
    columns = [c for c in mine if "seconds" not in c]
    assert mine[columns].equals(again[columns])
