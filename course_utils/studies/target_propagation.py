# Exported from lessons/20_target_propagation/lesson.md. Edit the lesson, not this file.

from course_utils.data import load_dataset
from course_utils.rules import target_propagation
from course_utils.runs import make_rule, read_call, run_rule


class NoDifference(target_propagation.DifferenceTargetPropagation):
    """Target propagation as it was first: the target is what the inverse makes of the target above."""

    def shift(self, l, h, wish):
        if l not in self.inverted:
            return super().shift(l, h, wish)
        return self.inverse(l, h[l + 1] + wish) - h[l]  # (5)


class NeverTaught(target_propagation.DifferenceTargetPropagation):
    """Difference target propagation through random inverses that nobody teaches."""

    def teach_inverse(self, l, h, offset):
        pass


class NeverTaughtDRL(target_propagation.LocalDRL):
    """The same without a look at the readout's weights: all feedback is random and stays so."""

    def teach_inverse(self, l, h, offset):
        pass


def run(name, sizes, lr, seed, dataset="mnist", limit=None, test=False, network=None, **training):
    """As `runs.one_run`, also for the classes of this file."""
    kind, knobs = read_call(name)
    rule = make_rule(globals().get(kind, kind), sizes, seed, knobs, **(network or {}))
    return run_rule(rule, name, load_dataset(dataset, limit=limit), lr, seed, test=test, network=network, **training)
