"""What a run and a rule are told: settings, values that change while training runs, the knobs of a rule."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from course_utils.checks import check_finite, check_labels, check_seed, is_number, is_whole

SCHEDULES = ("constant", "one_cycle", "exponential")


class Schedule:
    """A value that may change while training runs: a number, or [(samples, value), …].

    Each value holds from that many training samples on. Attribute steps: the list of pairs. ValueError for a list that
    does not begin at 0 samples or is out of order, and for values that are no finite numbers.
    """

    def __init__(self, value, name="schedule"):
        pairs = value if isinstance(value, list) else [(0, value)]
        whole = pairs and all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in pairs)
        begins = [begin for begin, _ in pairs] if whole else []
        if not whole or not all(map(is_number, begins)) or begins[0] != 0 or begins != sorted(begins):
            raise ValueError(f"{name} is {value!r}; give a list of (samples, value) in order, from 0 samples on")
        if not all(is_number(v) for _, v in pairs):
            raise ValueError(f"{name} is {value!r}; it must be a finite number, or a list of (samples, number)")
        self.steps = [(plain(begin), plain(v)) for begin, v in pairs]

    @classmethod
    def of(cls, value, name="schedule"):
        """`value` itself where it is a Schedule already: who holds it may move it while a run reads it."""
        return value if isinstance(value, cls) else cls(value, name)

    def at(self, samples):
        """The value after that many samples."""
        return next(value for begin, value in reversed(self.steps) if begin <= samples)

    def move(self, samples, value):
        """From that many samples on another value."""
        if self.steps[-1][0] == samples:
            self.steps.pop()
        self.steps.append((samples, value))

    def __repr__(self):
        return repr(self.steps[0][1] if len(self.steps) == 1 else self.steps)

    def __eq__(self, other):
        return repr(self) == repr(other)

    __hash__ = None  # type: ignore[assignment]  # it changes


def plain(value):
    """Python's own number for one of NumPy's, so that a run can be written down as code."""
    return value.item() if isinstance(value, np.generic) else value


class Knob:
    """A setting of a rule, declared in its class and checked wherever it is set: constructor, slider or schedule.

        feedback_scale = Knob(0.05, at_least(0), slider=(5e-4, 5.0, "log"), live=True)

    default: its value if nothing is said. allowed: (words, test), as made by `at_least`, `above`, `between`, `whole` and
    `one_of` (whose choices are the attribute of that name). slider: (low, high, "log" | "linear") for the playground, None for no slider. live: whether `backward`
    reads it anew each time, so that it may move while training runs. A value that is not allowed is a ValueError.
    """

    def __init__(self, default, allowed, slider=None, live=False):
        self.default, self.slider, self.live = default, slider, live
        self.words, self.test, *choices = allowed
        self.choices = choices[0] if choices else ()
        self.name = "knob"
        self.check(default)
        if slider is not None:
            low, high, scale = slider
            if not low < high or not low <= default <= high or scale not in ("log", "linear") or low <= 0 and scale == "log":
                raise ValueError(f"slider is {slider}; write (low, high, 'log' or 'linear'), default {default!r} inside")

    def __set_name__(self, owner, name):
        self.name = name

    def __get__(self, rule, owner=None):
        return self if rule is None else rule.__dict__[self.name]

    def __set__(self, rule, value):
        rule.__dict__[self.name] = self.check(value)

    def check(self, value):
        """The value as Python's own number; ValueError when it is not allowed."""
        value = plain(value)
        try:
            good = self.test(value)
        except TypeError:  # it cannot even be compared
            good = False
        if not good:
            raise ValueError(f"{self.name} is {value!r}; it must be {self.words}")
        return value


class KnobByLayer(Knob):
    """A knob that is one number for all hidden layers, or a list of one for each; allowed: of each number."""

    def __set__(self, rule, value):
        if not isinstance(value, (list, tuple)):
            return super().__set__(rule, value)
        hidden = rule.net.depth - 1
        if len(value) != hidden:
            words = f"{self.words}, or a list of one for each hidden layer ({hidden})"
            raise ValueError(f"{self.name} is {value!r}; it must be {words}")
        rule.__dict__[self.name] = [self.check(v) for v in value]


def at_least(low):
    return f"a number, {low:g} or larger", lambda value: is_number(value) and value >= low


def above(low):
    return f"a number above {low:g}", lambda value: is_number(value) and value > low


def between(low, high):
    return f"a number from {low:g} to {high:g}", lambda value: is_number(value) and low <= value <= high


def whole(low):
    return f"a whole number, {low} or larger", lambda value: is_whole(value) and value >= low


def one_of(*choices):
    kinds = [(type(choice), choice) for choice in choices]  # 1 is not True
    return f"one of: {', '.join(map(repr, choices))}", lambda value: (type(value), value) in kinds, choices


@dataclass(frozen=True)
class Settings:
    """The arguments of `train`, checked when made; ValueError says what is out of range. `train` explains each."""

    epochs: Any = 5
    lr: Any = None
    batch_size: Any = 128
    optimizer: Any = "sgd"
    momentum: Any = 0.9
    schedule: Any = "one_cycle"
    input_noise: Any = 0.0
    activity_noise: Any = 0.0
    knobs: Any = None
    eval_every: Any = None
    probe_every: Any = 0
    seed: Any = 0
    stop_after: Any = None

    def __post_init__(self):
        def set_to(name, value):
            object.__setattr__(self, name, value)  # the way into a frozen dataclass

        for name in ("lr", "input_noise", "activity_noise", "schedule"):
            value = getattr(self, name)
            if not (name == "lr" and value is None or name == "schedule" and isinstance(value, str)):
                set_to(name, Schedule.of(value, name))
                if any(v < 0 for _, v in getattr(self, name).steps):
                    raise ValueError(f"{name} is {value!r}; it must be a finite number, 0 or larger")
        set_to("knobs", {name: Schedule.of(value, name) for name, value in (self.knobs or {}).items()} or None)
        for name in ("epochs", "batch_size", "momentum", "eval_every", "probe_every", "seed", "stop_after"):
            set_to(name, plain(getattr(self, name)))
        self._check()

    def _check(self):
        if not is_number(self.epochs) or self.epochs <= 0:
            raise ValueError(f"epochs is {self.epochs!r}; it must be a number above 0")
        if not is_whole(self.batch_size) or self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size!r}; it must be a whole number, 1 or larger")
        if not isinstance(self.optimizer, torch.optim.Optimizer) and self.optimizer not in ("sgd", "adam"):
            raise ValueError(f'optimizer is {self.optimizer!r}; use "sgd", "adam" or a torch.optim optimiser')
        if not is_number(self.momentum) or not 0 <= self.momentum < 1:
            raise ValueError(f"momentum is {self.momentum!r}; it must be at least 0 and below 1")
        if isinstance(self.schedule, str) and self.schedule not in SCHEDULES:
            raise ValueError(f"schedule is {self.schedule!r}; use one of {', '.join(SCHEDULES)} or a list")
        for name in ("eval_every", "stop_after"):
            value = getattr(self, name)
            if value is not None and (not is_number(value) or value <= 0):
                raise ValueError(f"{name} is {value!r}; it must be a number of samples above 0, or None")
        if not is_number(self.probe_every) or self.probe_every < 0:
            raise ValueError(f"probe_every is {self.probe_every!r}; it must be a number of samples, or 0 for never")
        check_seed(self.seed)

    def ready(self, rule, data):
        """The same for this rule and these data, its rate filled in; ValueError for what they cannot take."""
        n = len(data.x_train)
        if self.batch_size > n:
            raise ValueError(f"batch_size is {self.batch_size}; it must be from 1 to {n}, the training images")
        for name, schedule in (self.knobs or {}).items():
            if name not in rule.live_knobs:
                live = ", ".join(rule.live_knobs) or "none"
                raise ValueError(f"{name} is no live knob of {rule.title} ({live}); give it to the rule's constructor")
            for _, value in schedule.steps:
                rule.knobs[name].check(value)
        if isinstance(self.optimizer, torch.optim.Optimizer):
            held = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
            if any(id(p) not in held for p in rule.parameters() if p.requires_grad):
                raise ValueError("optimizer misses parameters of the rule; make it with rule.parameters()")
        if data.y_train.dtype != torch.int64:
            raise ValueError(f"y holds {data.y_train.dtype}; `train` takes class labels, int64: y.long()")
        rule.net.check_input(data.x_train)
        check_finite(data.x_train)
        rule.net.check_target(data.x_train.new_empty(n, rule.net.sizes[-1]), data.y_train)
        check_labels(data.y_train, rule.net.sizes[-1])
        if self.lr is None and isinstance(self.optimizer, str):
            return replace(self, lr=rule.lr)
        return self
