"""The door: every bad input is refused here with a ValueError that says what was wrong and how to mend it."""

import math
from numbers import Integral, Real

import numpy as np
import torch
from torch.utils.weak import WeakIdKeyDictionary

_passed = WeakIdKeyDictionary()  # tensor → (its version, what it was checked for): many passes, one look


class NotFinite(ValueError):
    """NaN or infinity: for `train`, the sign that a run has diverged."""


def is_number(value):
    """Is it a finite real number? NumPy's count; True, False and tensors do not."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def plain(value):
    """Python's own number for one of NumPy's, so that it can be written down as code."""
    return value.item() if isinstance(value, np.generic) else value


# A condition is (what a value must be, in words; its test). Knobs are declared with them, arguments checked.


def at_least(low):
    return f"a number, {low:g} or larger", lambda value: is_number(value) and value >= low


def above(low):
    return f"a number above {low:g}", lambda value: is_number(value) and value > low


def between(low, high):
    return f"a number from {low:g} to {high:g}", lambda value: is_number(value) and low <= value <= high


def whole(low, high=math.inf):
    words = f"a whole number, {low} or larger" if high == math.inf else f"a whole number from {low} to {high}"
    return words, lambda value: isinstance(value, Integral) and not isinstance(value, bool) and low <= value <= high


def one_of(*choices):
    kinds = [(type(choice), choice) for choice in choices]  # 1 is not True
    return f"one of: {', '.join(map(repr, choices))}", lambda value: (type(value), value) in kinds, choices


def or_none(condition):
    words, test = condition
    return f"{words}, or None", lambda value: value is None or test(value)


def require(name, value, condition):
    """The value as Python's own number; ValueError by name when it does not meet the condition."""
    words, test, *_ = condition
    value = plain(value)
    try:
        good = test(value)
    except TypeError:  # it cannot even be compared
        good = False
    if not good:
        raise ValueError(f"{name} is {value!r}; it must be {words}")
    return value


def check_seed(seed):
    """Raise ValueError unless seed is an integer, 0 or larger."""
    require("seed", seed, whole(0))


def check_sizes(sizes):
    _, positive = whole(1)
    if not isinstance(sizes, (list, tuple)) or len(sizes) < 2 or not all(map(positive, sizes)):
        raise ValueError(f"sizes is {sizes!r}; it must list two or more positive whole numbers, as in [784, 256, 10]")


def check_name(what, name, known):
    if not isinstance(name, str) or name not in known:
        raise ValueError(f"{what} is {name!r}; use one of: {', '.join(known)}")


def check_finite(x, name="x"):
    """Raise ValueError when x holds NaN or infinity."""
    if not math.isfinite(x.sum().item()) and not torch.isfinite(x).all():
        where = f"(~torch.isfinite({name})).nonzero()"
        raise NotFinite(f"{name} holds NaN or infinite values; see where they come from with {where}")


def check_labels(y, classes):
    """Raise ValueError when a label is outside 0 … classes − 1."""
    low, high = (end.item() for end in y.aminmax())
    if low < 0 or high >= classes:
        raise ValueError(f"y holds labels from {low} to {high}; this network has classes 0 to {classes - 1}")


def _is_traced(tensor):
    """Inside torch.compile, torch.export and torch.func nobody may ask a tensor for its numbers."""
    return torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def check_input(x, inputs, weight):
    """x as a floating (batch, inputs) tensor of the weight's type and device; ValueError says what is wrong."""
    if torch.compiler.is_compiling():
        return x
    facts = (inputs, weight.dtype, weight.device)
    if _has_passed("x", x, facts):
        return x
    if x.ndim != 2 or x.shape[1] != inputs:
        raise ValueError(
            f"x has shape {tuple(x.shape)}; this network takes (batch, {inputs}): "
            f"use x.reshape(-1, {inputs}) if each example has that many numbers"
        )
    if len(x) == 0:
        raise ValueError("x is an empty batch; it must hold at least one example")
    if x.device != weight.device:
        raise ValueError(f"x is on {x.device} and the network on {weight.device}: use x.to('{weight.device}')")
    if not x.is_floating_point():
        raise ValueError(f"x holds {x.dtype}; it must hold floating-point numbers: x.float() / 255 for bytes")
    if x.dtype != weight.dtype:
        raise ValueError(f"x holds {x.dtype} and the network {weight.dtype}: use x.to({weight.dtype})")
    if x.device.type == "cpu" and not _is_traced(x):  # to ask a GPU means waiting for it
        check_finite(x)
    _let_pass(x, facts)
    return x


def check_target(y, out, loss_name):
    """Raise ValueError unless y is (batch,) int64 in range, or floating (batch, classes), for these outputs."""
    facts = (out.shape, out.dtype, out.device, loss_name)
    if torch.compiler.is_compiling() or _has_passed("y", y, facts):
        return
    if y.device != out.device:
        raise ValueError(f"y is on {y.device} and the network on {out.device}: use y.to('{out.device}')")
    if y.is_floating_point():
        _check_values(y, out, loss_name)
    elif y.dtype != torch.int64:
        raise ValueError(f"y holds {y.dtype}; class labels must be int64: use y.long()")
    elif y.shape != out.shape[:1]:
        raise ValueError(f"y has shape {tuple(y.shape)}; it must be ({len(out)},), one label for each example")
    elif y.device.type == "cpu" and not _is_traced(y):
        check_labels(y, out.shape[1])
    _let_pass(y, facts)


def _check_values(y, out, loss_name):
    if y.shape != out.shape:
        right = f"{tuple(out.shape)}, and class labels must be int64: y.long()"
        raise ValueError(f"y has shape {tuple(y.shape)}; target values must have shape {right}")
    if y.dtype != out.dtype:
        raise ValueError(f"y holds {y.dtype} and the network {out.dtype}: use y.to({out.dtype})")
    if y.device.type == "cpu" and not _is_traced(y):
        check_finite(y, "y")
        if loss_name == "cross_entropy" and (y.sum(1) - 1).abs().max() > 1e-3:
            # ŷ − y is the gradient of cross entropy only then.
            raise ValueError("y holds rows that do not sum to 1, as cross entropy asks")


def let_in(net, x, y):
    """A batch of data that passed the door whole, as those of `train` do: it is not looked at again."""
    if not hasattr(net, "check_input"):
        return  # a network of one's own has a door of its own, or none
    _let_pass(x, (net.sizes[0], x.dtype, x.device))
    _let_pass(y, ((len(x), net.sizes[-1]), x.dtype, x.device, net.loss_name))


def _has_passed(name, tensor, facts):
    """Whether this very tensor was let in before, unchanged since, with these facts; ValueError when it is none."""
    if not isinstance(tensor, torch.Tensor):
        raise ValueError(f"{name} is a {type(tensor).__name__}; it must be a tensor: torch.as_tensor({name})")
    return not tensor.is_inference() and _passed.get(tensor) == (tensor._version, facts)


def _let_pass(tensor, facts):
    if not tensor.is_inference():  # such a tensor keeps no count of its changes
        _passed[tensor] = tensor._version, facts
