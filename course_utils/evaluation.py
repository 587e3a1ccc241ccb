"""How well a rule does: accuracy where targets are labels, the loss where they are values; one row of a history."""

import math

import torch

from course_utils.doors import check_rule
from course_utils.metrics import no_trace

TRAINING_IMAGES = 1_000  # that a row's training accuracy is measured on; more would cost what the validation costs


@torch.no_grad()
def evaluate(rule, x, y, batch_size=2_500):
    """Accuracy in [0, 1] of `rule.predict` on x (n, inputs), y (n,) labels; for y (n, outputs) values the mean loss."""
    check_rule(rule)
    guesses = scores(rule, x, batch_size)
    return rule.net.loss(guesses, y).item() if y.is_floating_point() else _accuracy(guesses, y)


def scores(rule, x, batch_size=2_500):
    """`rule.predict` of many x (n, inputs), in parts: (n, classes)."""
    return torch.cat([rule.predict(part) for part in x.split(batch_size)])


def _accuracy(guesses, y):
    """Share of right answers; NaN where targets are values, which are never quite right."""
    return math.nan if y.is_floating_point() else (guesses.argmax(1) == y).sum().item() / len(y)


@torch.no_grad()
def add_row(history, rule, data, losses, angles):
    """Write down how the run stands, and begin anew to collect losses and angles."""
    if history.rows and history.rows[-1]["samples"] == history.samples:
        return
    guesses, some = scores(rule, data.x_val), slice(TRAINING_IMAGES)
    values = data.y_train.is_floating_point()
    row = {
        "epoch": history.samples / len(data.x_train),
        "samples": history.samples,
        "seconds": history.seconds,
        "train_loss": torch.stack(losses).mean().item() if losses else math.nan,
        "train_accuracy": math.nan if values else evaluate(rule, data.x_train[some], data.y_train[some]),
        "val_loss": rule.net.loss(guesses, data.y_val).item() if rule.loss_name == "loss" else math.nan,
        "val_accuracy": _accuracy(guesses, data.y_val),
    }
    if history.settings.metrics:
        with no_trace(rule):
            row |= {
                name: _number(name, f(rule, data.x_val, data.y_val)) for name, f in history.settings.metrics.items()
            }
    if angles:
        row |= {f"angle_{l}": sum(layer) / len(layer) for l, layer in enumerate(zip(*angles, strict=True), 1)}
        row["probe_seconds"] = history.probe_seconds
    history.rows.append(row)
    losses.clear()
    angles.clear()


def _number(name, value):
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"metrics[{name!r}] returned {value!r}; it must return one number") from error
