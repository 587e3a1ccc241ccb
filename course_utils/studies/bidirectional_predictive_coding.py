# Exported from lessons/17_bidirectional_predictive_coding/lesson.md. Edit the lesson, not this file.

import pandas as pd

from course_utils.data import load_dataset
from course_utils.runs import make_rule, run_rule


def rebuilt(rule, x, mean):
    """Share of the pixels' variance, around the mean image, that layer 1 of the settled network expects."""
    missed = [rule.infer(part).g[0].pow(2).sum() for part in x.split(2_500)]
    return 1 - (sum(missed) / (x - mean).pow(2).sum()).item()


def told_and_rebuilt(name, sizes, lr, seed, dataset="mnist", limit=None, test=False, network=None, **training):
    """As `runs.one_run`. A tested run whose second stream has a weight brings one row more, whose dataset says
    "rebuilt" and whose accuracies are those of its images: `rebuilt`, of validation and of test."""
    data = load_dataset(dataset, limit=limit)
    rule = make_rule(name, sizes, seed, **(network or {}))
    told = run_rule(rule, name, data, lr, seed, test=test, network=network, **training)
    if not (test and rule.generative):
        return told
    shares = [rebuilt(rule, x, data.x_train.mean(0)) for x in (data.x_val, data.x_test)]
    image = told.tail(1).assign(dataset=f"{data.name}, rebuilt", val_accuracy=shares[0], test_accuracy=shares[1])
    return pd.concat([told, image], ignore_index=True)
