"""How well a rule does: accuracy where targets are labels, the loss where they are values; and how its angles stand."""

import math
import time

import torch

from course_utils.checks import check_is_tensor, check_label_for_each, check_labels, require, whole
from course_utils.doors import asks_of_net, check_rule, untaught
from course_utils.metrics import estimate_of, layer_angles, no_trace, reference_of

TRAINING_IMAGES = 1_000  # that a row's training accuracy is measured on; more would cost what the validation costs


@torch.no_grad()
def evaluate(rule, x, y, batch_size=2_500):
    """Accuracy in [0, 1] of `rule.predict` on x (n, inputs), y (n,) labels; for y (n, outputs) values the mean loss.

    ValueError for other x and y.
    """
    check_rule(rule)
    guesses = scores(rule, x, batch_size)
    check_is_tensor("y", y)
    if not y.is_floating_point():
        check_label_for_each(y, guesses)
        check_labels(y, guesses.shape[1])
    return _loss(rule, guesses, y) if y.is_floating_point() else _accuracy(guesses, y)


def scores(rule, x, batch_size=2_500):
    """`rule.predict` of many x (n, inputs), in parts: (n, classes)."""
    check_is_tensor("x", x)
    batch_size = require("batch_size", batch_size, whole(1))
    return asks_of_net(lambda rule: torch.cat([rule.predict(part) for part in x.split(batch_size)]))(rule)


def _accuracy(guesses, y):
    """Share of right answers; NaN where targets are values, which are never quite right."""
    return math.nan if y.is_floating_point() else (guesses.argmax(1) == y).sum().item() / len(y)


def _loss(rule, guesses, y):
    """The network's loss; NaN for a rule with another objective, whose scores are no outputs."""
    return rule.net.loss(guesses, y).item() if rule.loss_name == "loss" else math.nan


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
        "val_loss": _loss(rule, guesses, data.y_val),
        "val_accuracy": _accuracy(guesses, data.y_val),
    }
    for name, f in (history.settings.metrics or {}).items():
        with no_trace(rule), torch.enable_grad():
            row[name] = _number(name, f(rule, data.x_val, data.y_val))
    if angles:
        row |= {f"angle_{l}": sum(layer) / len(layer) for l, layer in enumerate(zip(*angles, strict=True), 1)}
        row["probe_seconds"] = history.probe_seconds
    history.rows.append(row)
    losses.clear()
    angles.clear()


def _number(name, value):
    try:
        return float(value.detach() if isinstance(value, torch.Tensor) else value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"metrics[{name!r}] returned {value!r}; it must return one number") from error


def probe(history, measure, *arguments):
    """measure(*arguments), its time booked as the cost of probing."""
    begin = time.perf_counter()
    result = measure(*arguments)
    history.probe_seconds += time.perf_counter() - begin
    return result


def first_angles(history, rule, data):
    """Angles of an estimate before any step, made without leaving a trace."""
    x, y = (part[: history.settings.batch_size] for part in (data.x_train, data.y_train))
    with no_trace(rule):
        rule.backward(x, y)
        history.note = untaught(rule)
        return layer_angles(rule, estimate_of(rule), reference_of(rule, x, y))
