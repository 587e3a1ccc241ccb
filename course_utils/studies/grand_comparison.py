# Exported from lessons/28_grand_comparison/lesson.md. Edit the lesson, not this file.

import pandas as pd
import torch

from course_utils.controls import Around
from course_utils.data import load_dataset
from course_utils.runs import make_rule, run_rule
from course_utils.runs import one_run as plain_run


class RecordedSteps(Around):
    """The same rule; `lengths` keeps how far the network's parameters moved in each step, ‖Δθ‖, 0-d tensors."""

    def __init__(self, rule):
        super().__init__(rule)
        self.lengths = []

    def step(self, x, y, optimizer):
        before = [p.detach().clone() for p in self.net.parameters()]
        loss = super().step(x, y, optimizer)
        self.moved(before)
        return loss

    @torch.no_grad()
    def moved(self, before):
        self.lengths.append(distance(self.net, before))


def distance(net, before):
    """‖Δθ‖ between the parameters of now and those of before."""
    return torch.stack([(p - old).norm() for p, old in zip(net.parameters(), before, strict=True)]).norm()


class MatchedSteps(RecordedSteps):
    """The same rule and optimiser, each step then stretched or cut to the length that `lengths` holds for it, (3).

    What is left between this run of backprop and the rule whose lengths these are is direction. ValueError when a
    run has more steps than there are lengths.
    """

    def __init__(self, rule, lengths):
        super().__init__(rule)
        self.lengths, self.steps = list(lengths), 0

    @torch.no_grad()
    def moved(self, before):
        if self.steps == len(self.lengths):
            raise ValueError(f"there are {len(self.lengths)} lengths and more steps; record a run that is as long")
        length = distance(self.net, before)
        factor = torch.where(length > 0, self.lengths[self.steps] / length, 0.0)
        for p, old in zip(self.net.parameters(), before, strict=True):
            p.copy_(old + (p - old) * factor)  # (3)
        self.steps += 1


def one_run(name, sizes, lr, seed, test=False, matched_seeds=0, **settings):
    """As `runs.one_run`. A tested run from one of the first `matched_seeds` seeds brings a second one along, with
    the rule "MatchedSteps(name)": backprop on the same batches, each step as long as the rule's."""
    if not test or seed >= matched_seeds:
        return plain_run(name, sizes, lr, seed, test=test, **settings)
    data = load_dataset(settings.pop("dataset", "mnist"), limit=settings.pop("limit", None))
    knobs, network = settings.pop("knobs", None), settings.pop("network", None)
    settings |= {"data": data, "lr": lr, "seed": seed, "network": network, "test": True}
    rule = RecordedSteps(make_rule(name, sizes, seed, knobs, **(network or {})))
    own = run_rule(rule, name, **settings)
    if not torch.stack(rule.lengths).isfinite().all():
        return own  # it diverged: there is nothing to match
    matched = MatchedSteps(make_rule("Backprop", sizes, seed, **(network or {})), rule.lengths)
    other = run_rule(matched, f"MatchedSteps({name})", **settings | {"lr": own.lr.iloc[0]})
    return pd.concat([own, other], ignore_index=True)
