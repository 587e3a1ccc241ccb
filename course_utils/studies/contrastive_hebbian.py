# Exported from lessons/19_contrastive_hebbian/lesson.md. Edit the lesson, not this file.

from course_utils.data import load_dataset
from course_utils.rules import contrastive_hebbian as contrastive
from course_utils.runs import make_rule, read_call, run_rule


class ForgetsTheGain(contrastive.ContrastiveHebbian):
    """Each layer's contrast as it is, not divided by what the feedback's gain has taken from it."""

    def gain(self, l):
        return 1.0


class ReadsEarly(contrastive.ContrastiveHebbian):
    """The state without the answer is read when the answer comes, and grows no older."""

    def phases(self, x, y):
        drives = self.drives(x)
        free = self.settle(x, drives=drives)
        told = [*free[:-1], self.output(free[-1], None, self.clamp, y)]
        return free, self.settle(x, told, self.plus_sweeps, self.clamp, y, drives)


def variant(
    name, sizes, lr, seed, dataset="mnist", limit=None, test=False, network=None, optimizer="adam", **training
):  # fmt: skip
    """As `runs.one_run`, its last row alone, also for the classes of this file; `dataset` names the optimiser, too."""
    data = load_dataset(dataset, limit=limit)
    kind, knobs = read_call(name)
    rule = make_rule(globals().get(kind, kind), sizes, seed, knobs, **(network or {}))
    frame = run_rule(rule, name, data, lr, seed, test=test, network=network, optimizer=optimizer, **training)
    return frame.tail(1).assign(dataset=f"{data.name}, {optimizer}")
