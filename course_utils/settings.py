"""What a run is told: its settings, and values that change while it trains."""

from dataclasses import dataclass, replace
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from course_utils.checks import SEED, above, at_least, check_parts, is_number, or_none, plain, require, shown, whole
from course_utils.doors import are_functions, steps_alone

SCHEDULES = ("constant", "one_cycle", "exponential")


class Schedule:
    """A value that may change while training runs: a number, or [(samples, value), …].

    Each value holds from that many training samples on. Attribute steps: the list of pairs. ValueError for a list that
    does not begin at 0 samples or is out of order, and for values that are no finite numbers.
    """

    def __init__(self, value, name="schedule"):
        pairs = value if isinstance(value, list) else [(0, value)]
        paired = pairs and all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in pairs)
        begins = [begin for begin, _ in pairs] if paired else []
        if not paired or not all(map(is_number, begins)) or begins[0] != 0 or begins != sorted(begins):
            raise ValueError(f"{name} is {shown(value)}; give a list of (samples, value) in order, from 0 samples on")
        if not all(is_number(v) for _, v in pairs):
            raise ValueError(f"{name} is {shown(value)}; it must be a finite number, or a list of (samples, number)")
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


OPTIMIZER = '"sgd", "adam" or a torch optimiser whose step needs no closure, as that of LBFGS does'
SCHEDULE = f"one of {', '.join(SCHEDULES)} or a list; how a scheduler of torch is used stands in cu.train"
ALLOWED = {
    "epochs": above(0),
    "batch_size": whole(1),
    "optimizer": (OPTIMIZER, lambda o: o in ("sgd", "adam") or steps_alone(o)),
    "momentum": ("a number, at least 0 and below 1", lambda value: is_number(value) and 0 <= value < 1),
    "schedule": (SCHEDULE, lambda s: not isinstance(s, (str, LRScheduler)) or s in SCHEDULES),
    "eval_every": or_none(above(0)),
    "probe_every": at_least(0),  # 0: never
    "seed": SEED,
    "stop_after": or_none(above(0)),
    "metrics": or_none(("a dict {name: f(rule, x, y)}", lambda m: isinstance(m, dict) and are_functions(m))),
}


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
    metrics: Any = None

    def __post_init__(self):
        values = {name: plain(value) for name, value in vars(self).items()}
        for name, condition in ALLOWED.items():
            values[name] = require(name, values[name], condition)
        for name in ("lr", "input_noise", "activity_noise", "schedule"):
            if not (name == "lr" and self.lr is None or name == "schedule" and isinstance(self.schedule, str)):
                values[name] = Schedule.of(values[name], name)
                for _, value in values[name].steps:
                    require(name, value, at_least(0))
        values["knobs"] = {name: Schedule.of(v, name) for name, v in (self.knobs or {}).items()} or None
        self.__dict__.update(values)  # the way into a frozen dataclass

    def ready(self, rule, data):
        """The same for this rule and these data, its rate filled in; ValueError for what they cannot take."""
        check_parts(rule.net, data)
        rule.check_data(data)
        require("batch_size", self.batch_size, whole(1, len(data.x_train)))
        for name, schedule in (self.knobs or {}).items():
            if name not in rule.live_knobs:
                live = ", ".join(rule.live_knobs) or "none"
                raise ValueError(f"{name} is no live knob of {rule.title} ({live}); give it to the rule's constructor")
            for _, value in schedule.steps:
                rule.knobs[name].check(value)
        if isinstance(self.optimizer, Optimizer):
            held = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
            if any(id(p) not in held for p in rule.parameters() if p.requires_grad):
                raise ValueError("optimizer misses parameters of the rule; make it with rule.parameters()")
        if not hasattr(rule.net, "check_input") and any(std for _, std in self.activity_noise.steps):
            raise ValueError(f"activity_noise is {self.activity_noise}; net, a {type(rule.net).__name__}, makes none")
        return replace(self, lr=rule.lr) if self.lr is None and isinstance(self.optimizer, str) else self
