"""What can be wrong in incremental predictive coding."""

from course_utils.rules import IncrementalPredictiveCoding
from course_utils.rules.incremental_predictive_coding import SettlingWhileLearning
from helpers import mutant

# Square hidden layers, so that a transposed matrix still fits; the rest of the sizes are odd and different.
SIZES = {1: (7, 3), 2: (7, 5, 3), 3: (7, 5, 5, 3), 4: (7, 6, 6, 5, 3)}
PRECISION = [1.7, 0.6, 2.3]  # for SIZES[4]
TEACH = "self.teach(s, l)"
TEACHERS = {  # what is wrong: (in the source of `IncrementalPredictiveCoding`, instead of it)
    "sum": (TEACH, TEACH + "; self.net.weights[l].grad *= len(s.y)"),
    "averaged twice": (TEACH, TEACH + "; self.net.weights[l].grad /= len(s.y)"),
    "sign": (TEACH, TEACH + "; self.net.weights[l].grad *= -1"),
    "presynaptic without f": (TEACH, "h, s.h = s.h, s.v; self.teach(s, l); s.h = h"),
    "one move only": ("self.move(optimizer)", "done or self.move(optimizer)"),
}
SETTLINGS = {  # the same of `SettlingWhileLearning`
    "variance for precision": ("error.mul_(precision)", "error.div_(precision)"),
    "precision forgotten": ("error.mul_(precision)", "pass"),
    "stale errors": ("out=self.first)  # constant only while W_1 is\n        self.compare()", "out=self.first)"),
    "first prediction held": ("out=self.first)", "out=self.first.clone())"),
    "states reset": (
        "self.offsets = self.net.offsets(self.v[0])",
        "return self.__init__(self.rule, self.v[0], self.y)",
    ),
}


def wrong(name):
    if name in TEACHERS:
        return mutant(IncrementalPredictiveCoding, *TEACHERS[name])
    return type("Wrong", (IncrementalPredictiveCoding,), {"settling": mutant(SettlingWhileLearning, *SETTLINGS[name])})
