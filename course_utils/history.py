"""What a training run did: its rows, its end, and the line of code that repeats it."""

import math
from dataclasses import fields

import pandas as pd

from course_utils.settings import Settings

COLUMNS = ["epoch", "samples", "seconds", "train_loss", "train_accuracy", "val_loss", "val_accuracy"]


class History:
    """What a run did. rows: one dict per evaluation; status: "running", "done", "stopped" or "diverged".

    settings: the `Settings` that reproduce the run; message: the status in words; samples, steps: how far it is;
    planned: steps in all; note: what the first step gave reason to say.
    """

    def __init__(self, settings, images):
        if clash := {*COLUMNS, "probe_seconds"} & {*(settings.metrics or {})}:
            raise ValueError(f"metrics holds {', '.join(sorted(clash))}, which a history has already; rename it")
        self.settings, self.images = settings, images
        self.planned = max(1, round(settings.epochs * math.ceil(images / settings.batch_size)))
        self.rows: list[dict] = []
        self.status, self.message, self.note = "running", "", ""
        self.samples = self.steps = 0
        self.seconds = self.probe_seconds = 0.0

    def end(self, status, message):
        self.status = status
        self.message = f"{status} after {self.samples:,} samples: {message}"

    @property
    def is_over(self):
        """Has it come to its last step, or to where it was to pause?"""
        return self.steps == self.planned or self.samples >= (self.settings.stop_after or math.inf)

    def passes(self, every, batch):
        """Does the next batch of that many samples reach a multiple of `every`? (0: never)"""
        return bool(every) and (self.samples + batch) // every > self.samples // every

    @property
    def frame(self):
        """A pandas frame, one row per evaluation.

        epoch, samples: training seen so far; seconds: training alone (no evaluation, no probes);
        train_loss: mean of what `backward` returned since the last row; train_accuracy: on the first 1,000
        training images; val_loss, val_accuracy (accuracies are NaN where targets are values); each of `metrics`;
        angle_l, in degrees: mean over the probes since the last row, for layer l = 1 … L; probe_seconds: what the
        probes have cost so far.
        """
        angles = [key for row in self.rows for key in row if key.startswith("angle_")]
        extra = [*(self.settings.metrics or {}), *dict.fromkeys(angles)] + (["probe_seconds"] if angles else [])
        return pd.DataFrame(self.rows, columns=COLUMNS + extra)

    @property
    def latest(self):
        """How well it did at the last row, in words: validation accuracy, or the loss where targets are values."""
        accuracy, loss = (self.rows[-1][name] for name in ("val_accuracy", "val_loss"))
        return f"val loss {loss:.4g}" if math.isnan(accuracy) else f"val {accuracy:.2%}"

    @property
    def call(self):
        """The line of code that repeats this run, up to where it is now.

        It needs `rule`, `data`, `metrics` and an `optimizer` given as an instance, all as they were at the start.
        """
        words = {field.name: repr(getattr(self.settings, field.name)) for field in fields(Settings)}
        if not isinstance(self.settings.optimizer, str):
            words["optimizer"] = "optimizer"
        if self.settings.metrics:
            words["metrics"] = "metrics"
        if self.steps != self.planned:
            words["stop_after"] = repr(self.samples)  # with all epochs, for some schedules stretch with them
        usual = {field.name: repr(field.default) for field in fields(Settings)}
        arguments = ", ".join(f"{name}={word}" for name, word in words.items() if word != usual[name])
        return f"history = cu.train(rule, data, {arguments})"
