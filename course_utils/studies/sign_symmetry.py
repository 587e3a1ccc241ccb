# Exported from lessons/08_sign_symmetry/lesson.md. Edit the lesson, not this file.

import torch

from course_utils.controls import Around
from course_utils.data import load_dataset
from course_utils.runs import make_rule, read_call, run_rule


class OldSigns(Around):
    """Sign symmetry whose signs are read at the start and then every so many steps (None: never again)."""

    def __init__(self, rule, every=None):
        super().__init__(rule)
        self.every, self.steps_done, self.draw = every, 0, rule.draw_feedback
        self.read()

    def read(self):
        sent = self.draw(self.generator)
        self.rule.draw_feedback = lambda generator: sent

    def step(self, x, y, optimizer):
        loss = self.rule.step(x, y, optimizer)
        self.steps_done += 1
        if self.every and self.steps_done % self.every == 0:
            self.read()
        return loss


class NewFlips(Around):
    """Sign symmetry with other synapses wrong at every step."""

    def step(self, x, y, optimizer):
        for l in range(1, self.net.depth):
            like = self.thresholds[l]
            self.thresholds[l] = torch.rand(like.shape, generator=self.generator, device=like.device, dtype=like.dtype)
        return self.rule.step(x, y, optimizer)


class Louder(Around):
    """Sign symmetry with `scale` times as large magnitudes."""

    def __init__(self, rule, scale):
        super().__init__(rule)
        for l in range(1, self.net.depth):
            self.magnitudes[l] = scale * self.magnitudes[l]


def broken_run(name, sizes, lr, seed, dataset="mnist", limit=None, test=False, network=None, **training):
    """As `runs.one_run`; name: "OldSigns(every=10, flipped=0.5)", one of the above around sign symmetry."""
    kind, arguments = read_call(name)
    knobs = {"flipped": arguments.pop("flipped", 0.0)}
    wrapper = {"OldSigns": OldSigns, "NewFlips": NewFlips, "Louder": Louder}[kind]
    rule = wrapper(make_rule("SignSymmetry", sizes, seed, knobs, **(network or {})), **arguments)
    return run_rule(rule, name, load_dataset(dataset, limit=limit), lr, seed, test=test, network=network, **training)
