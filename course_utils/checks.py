"""The door: every bad input is refused here with a ValueError that says what was wrong and how to mend it."""

import math

import torch

SCHEDULES = ("constant", "one_cycle", "exponential")


class NotFinite(ValueError):
    """NaN or infinity: for `train`, the sign that a run has diverged."""


def check_finite(x, name="x"):
    """Raise ValueError when x holds NaN or infinity. (On a GPU `train` asks once: asking waits for the device.)"""
    if not math.isfinite(x.sum().item()) and not torch.isfinite(x).all():
        where = f"(~torch.isfinite({name})).nonzero()"
        raise NotFinite(f"{name} holds NaN or infinite values; see where they come from with {where}")


def check_labels(y, classes):
    """Raise ValueError when a label is outside 0 … classes − 1."""
    low, high = y.aminmax()
    if low < 0 or high >= classes:
        raise ValueError(f"y holds labels from {int(low)} to {int(high)}; this network has classes 0 to {classes - 1}")


def check_noise(noise, a):
    """Raise ValueError unless noise has the shape of the pre-activations it is added to, or that for many draws."""
    alike = noise.shape == a.shape or min(noise.ndim, a.ndim) == 2
    if not alike or noise.shape[-2:] != a.shape[-2:] or noise.ndim > 3:
        raise ValueError(f"noise has shape {tuple(noise.shape)}; this layer's pre-activations {tuple(a.shape)}")


def check_first(first, shape):
    """Raise ValueError unless first has the shape of layer 1's pre-activations, or that for many draws."""
    if first.shape[-2:] != shape or first.ndim > 3:
        raise ValueError(f"first has shape {tuple(first.shape)}; layer 1's pre-activations have {shape}")


def check_gains(gains, shapes):
    """Raise ValueError unless there is a gain for every hidden layer, of the shape of its activities."""
    got = [tuple(gain.shape) for gain in gains]
    if got != shapes:
        raise ValueError(f"gains have shapes {got}; the hidden layers' activities have {shapes}")


def check_seed(seed):
    """Raise ValueError unless seed is an integer, 0 or larger."""
    if not isinstance(seed, int) or seed < 0:
        raise ValueError(f"seed is {seed!r}; it must be an integer, 0 or larger")


def check_sizes(sizes):
    good = isinstance(sizes, (list, tuple)) and len(sizes) >= 2
    if not good or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in sizes):
        raise ValueError(f"sizes is {sizes!r}; it must list two or more positive whole numbers, as in [784, 256, 10]")


def check_name(what, name, known):
    if not isinstance(name, str) or name not in known:
        raise ValueError(f"{what} is {name!r}; use one of: {', '.join(known)}")


def check_run(
    rule, data, epochs, lr, batch_size, optimizer, momentum, schedule, input_noise, activity_noise, knobs,
    eval_every, probe_every, seed, stop_after,
):  # fmt: skip
    """Raise ValueError for arguments of `train` that are out of range, or data that the network cannot take."""
    n = len(data.x_train)
    if not is_number(epochs) or epochs <= 0:
        raise ValueError(f"epochs is {epochs!r}; it must be a number above 0")
    if not isinstance(batch_size, int) or not 1 <= batch_size <= n:
        raise ValueError(f"batch_size is {batch_size!r}; it must be a whole number from 1 to {n}, the training images")
    if not isinstance(optimizer, torch.optim.Optimizer) and optimizer not in ("sgd", "adam"):
        raise ValueError(f'optimizer is {optimizer!r}; use "sgd", "adam" or a torch.optim optimiser')
    if not is_number(momentum) or not 0 <= momentum < 1:
        raise ValueError(f"momentum is {momentum!r}; it must be at least 0 and below 1")
    if isinstance(schedule, str) and schedule not in SCHEDULES:
        raise ValueError(f"schedule is {schedule!r}; use one of {', '.join(SCHEDULES)} or a list")
    if not isinstance(schedule, str):
        check_schedule("schedule", schedule)
    if lr is not None:
        check_schedule("lr", lr)
    check_schedule("input_noise", input_noise)
    check_schedule("activity_noise", activity_noise)
    for name, value in (knobs or {}).items():
        if name not in rule.live_knobs:
            live = ", ".join(rule.live_knobs) or "none"
            raise ValueError(f"{name} is no live knob of {rule.title} ({live}); give it to the rule's constructor")
        check_schedule(name, value)
        check_knob(rule, name, value)
    for name, value in {"eval_every": eval_every, "stop_after": stop_after}.items():
        if value is not None and (not is_number(value) or value <= 0):
            raise ValueError(f"{name} is {value!r}; it must be a number of samples above 0, or None")
    if not is_number(probe_every) or probe_every < 0:
        raise ValueError(f"probe_every is {probe_every!r}; it must be a number of samples, or 0 for never")
    check_seed(seed)
    if isinstance(optimizer, torch.optim.Optimizer):
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if any(id(p) not in held for p in rule.parameters() if p.requires_grad):
            raise ValueError("optimizer misses parameters of the rule; make it with rule.parameters()")
    if data.y_train.dtype != torch.int64:
        raise ValueError(f"y holds {data.y_train.dtype}; `train` takes class labels, int64: y.long()")
    rule.net.check_input(data.x_train)
    check_finite(data.x_train)
    rule.net.check_target(data.x_train.new_empty(n, rule.net.sizes[-1]), data.y_train)
    check_labels(data.y_train, rule.net.sizes[-1])


def check_knob(rule, name, value):
    """Raise ValueError for what the rule itself refuses, now and not in the middle of a run."""
    old = getattr(rule, name)
    try:
        for _, v in value if isinstance(value, list) else [(0, value)]:
            setattr(rule, name, v)
    finally:
        setattr(rule, name, old)


def check_schedule(name, value):
    pairs = value if isinstance(value, list) else [(0, value)]
    whole = pairs and all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in pairs)
    begins = [begin for begin, _ in pairs] if whole else []
    if not whole or not all(map(is_number, begins)) or begins[0] != 0 or begins != sorted(begins):
        raise ValueError(f"{name} is {value!r}; give a list of (samples, value) in order, from 0 samples on")
    if any(not is_number(v) or v < 0 for _, v in pairs):
        raise ValueError(f"{name} is {value!r}; it must be a finite number, 0 or larger")


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
