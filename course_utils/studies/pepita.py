# Exported from lessons/22_pepita/lesson.md. Edit the lesson, not this file.

from course_utils.controls import Around
from course_utils.data import load_dataset
from course_utils.runs import make_rule, run_rule


class HiddenTimes(Around):
    """A rule around another: each hidden layer's gradient times a factor of its own; 0 leaves a layer as drawn."""

    def __init__(self, rule, factors):
        super().__init__(rule)
        self.factors = factors

    def step(self, x, y, optimizer):
        optimizer.zero_grad(set_to_none=True)
        loss = self.backward(x, y)  # not the rule's own, which its step would call
        optimizer.step()
        return loss

    def backward(self, x, y):
        loss = self.rule.backward(x, y)
        for l, factor in enumerate(self.factors):
            self.net.weights[l].grad *= factor
            self.net.biases[l].grad *= factor
        return loss


def altered(name, sizes, lr, seed, factors, dataset="mnist", limit=None, test=False, **training):
    """A run like any other, its hidden gradients times `factors`, which the column `dataset` names."""
    rule, data = HiddenTimes(make_rule(name, sizes, seed), factors), load_dataset(dataset, limit=limit)
    frame = run_rule(rule, name, data, lr, seed, test=test, **training)
    return frame.assign(dataset=f"{data.name}, hidden × {' '.join(map(str, factors))}")
