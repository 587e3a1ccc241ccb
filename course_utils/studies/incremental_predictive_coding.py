# Exported from lessons/16_incremental_predictive_coding/lesson.md. Edit the lesson, not this file.

from dataclasses import replace

import torch

from course_utils.data import load_dataset
from course_utils.rules import backpropagation, predictive_coding
from course_utils.rules import incremental_predictive_coding as incremental
from course_utils.runs import make_rule, read_call, run_rule


class EightSteps(backpropagation.Backprop):
    """Backprop that takes eight steps on each batch."""

    def step(self, x, y, optimizer):
        return [super(EightSteps, self).step(x, y, optimizer) for _ in range(8)][0]


class PutBack(predictive_coding.PredictiveCoding):
    """Four moves a batch; before each the states are put back on the forward pass of the weights as they are then."""

    def step(self, x, y, optimizer):
        return [super(PutBack, self).step(x, y, optimizer) for _ in range(4)][0]


class FixedFeedback(incremental.LearnedFeedbackPC):
    """Errors come down through random weights that never change."""

    def teach(self, s, l):
        incremental.IncrementalPredictiveCoding.teach(self, s, l)  # nothing for B

    def move(self, optimizer):
        optimizer.step()  # and nothing forgotten


def race(
    name, sizes, lr, seed, dataset="mnist", limit=None, test=False, network=None,
    optimizer="sgd", schedule="constant", centred=False, **training,
):  # fmt: skip
    """As `runs.one_run`, its last row alone, also for the classes of this file; `dataset` says how it was trained.

    centred: the mean training image is taken off every image.
    """
    data = load_dataset(dataset, limit=limit)
    if centred:
        mean = data.x_train.mean(0)
        parts = {part: getattr(data, part) - mean for part in ("x_train", "x_val", "x_test")}
        data = replace(data, name=f"{data.name} centred", **parts)
    kind, knobs = read_call(name)
    rule = make_rule(globals().get(kind, kind), sizes, seed, knobs, **(network or {}))
    settings = {"network": network, "optimizer": optimizer, "schedule": schedule, **training}
    frame = run_rule(rule, name, data, lr, seed, test=test, **settings)
    return frame.tail(1).assign(dataset=f"{data.name}, {optimizer}, {schedule}")


class OldErrors(incremental.SettlingWhileLearning):
    """After a move of the weights the first layer's prediction follows, and the errors stay those of before."""

    def renew(self):
        torch.addmm(self.offsets[0], self.v[0], self.net.weights[0].T, out=self.first)  # but no self.compare()


class ActsOnOldErrors(incremental.IncrementalPredictiveCoding):
    """States that move on by the errors of before the weights' last move."""

    settling = OldErrors
