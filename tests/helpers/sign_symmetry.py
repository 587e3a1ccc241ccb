"""What can be wrong in sign symmetry."""

from course_utils.rules import SignSymmetry
from helpers import mutant

SIGNED = "torch.copysign(m, torch.where(threshold < self.flipped, -w, w))"
SQUARE = "feedback[l].shape[0] == feedback[l].shape[1]"
WRONG = {  # what is wrong: (in the rule's source, instead of it)
    "no sign": ("-w, w", "w.abs(), w.abs()"),
    "sign of the error": ("-w, w", "w, -w"),
    "signed magnitudes": (SIGNED, "torch.randn(w.shape, generator=generator, dtype=w.dtype) * m.mean() * w.sign()"),
    "first signs": (
        "zip(self.net.weights,",
        "zip(self.__dict__.setdefault('first', [1 * w for w in self.net.weights]),",
    ),
    "redrawn flips": ("threshold < self.flipped", "torch.rand(w.shape, generator=generator) < self.flipped"),
    "transposed": ("delta @ feedback[l]", f"delta @ (feedback[l].T if {SQUARE} else feedback[l])"),
    "no derivative": (" * self.net.derivative(h[l])", ""),
    "sum": (" / len(x)", ""),
    "weights": (SIGNED, "w.clone()"),
    "half flips": ("threshold < self.flipped", "threshold < self.flipped / 2"),
    "scale": ("torch.copysign(m,", "torch.copysign(1.5 * m,"),
}


def wrong(name):
    return mutant(SignSymmetry, *WRONG[name])
