"""The door: every bad input is refused here with a ValueError that says what was wrong and how to mend it."""

import itertools
import math
from numbers import Integral, Real

import numpy as np
import torch
from torch.utils.weak import WeakIdKeyDictionary

MOST_WEIGHTS = 10**10  # 40 GB
TENSORS = ("x_train", "y_train", "x_val", "y_val", "x_test", "y_test")  # of a dataset
_passed = WeakIdKeyDictionary()  # tensor → (its version, what it was checked for): many passes, one look


class NotFinite(ValueError):
    """NaN or infinity: for `train`, the sign that a run has diverged."""


def is_number(value):
    """Is it a finite real number that fits into a float? NumPy's count; True, False and tensors do not."""
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # 10**400
        return False


def plain(value):
    """Python's own int or float for a number of another kind, so that it can be written down as code."""
    value = value.item() if isinstance(value, np.generic) else value
    return float(value) if is_number(value) and not isinstance(value, (int, float)) else value


def shown(value):
    """A value as a message shows it: on one line, cut where it is long."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # 10**5000 is too long even for Python, and a repr of one's own may do anything
        text = f"a {type(value).__name__}"
    return text if len(text) <= 120 else f"{text[:100]} … ({len(text)} characters)"


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
    fits = not isinstance(value, Integral) or abs(int(value)) < 2**63
    try:
        good = fits and test(value)
    except TypeError:  # it cannot even be compared
        good = False
    if not good:
        raise ValueError(f"{name} is {shown(value)}; it must be {words}{'' if fits else ', of 64 bits at most'}")
    return value


SEED = whole(0, 2**32 - 1)  # NumPy takes no more, and torch none of what the streams would add to more


def check_seed(seed):
    """The seed as Python's own number; ValueError unless it is an integer from 0 to 2³² − 1."""
    return require("seed", seed, SEED)


def check_sizes(sizes):
    """The sizes as a list of Python's own numbers; ValueError for what makes no network, or none that fits."""
    _, positive = whole(1)
    listed = list(sizes) if isinstance(sizes, (list, tuple, np.ndarray)) else []
    if len(listed) < 2 or not all(map(positive, listed)):
        words = "it must list two or more positive whole numbers, as in [784, 256, 10]"
        raise ValueError(f"sizes is {shown(sizes)}; {words}")
    listed = [int(size) for size in listed]
    if sum(map(math.prod, itertools.pairwise(listed))) > MOST_WEIGHTS:
        raise ValueError(f"sizes is {shown(listed)}: more than {MOST_WEIGHTS:,} weights; make its layers smaller")
    return listed


def check_name(what, name, known):
    if not isinstance(name, str) or name not in known:
        raise ValueError(f"{what} is {shown(name)}; use one of: {', '.join(known)}")


def check_is_tensor(name, value):
    if not isinstance(value, torch.Tensor):
        raise ValueError(f"{name} is a {type(value).__name__}; it must be a tensor: torch.as_tensor({name})")


def check_finite(x, name="x"):
    """Raise ValueError when x holds NaN or infinity."""
    if not math.isfinite(x.sum().item()) and not torch.isfinite(x).all():
        where = f"(~torch.isfinite({name})).nonzero()"
        raise NotFinite(f"{name} holds NaN or infinite values; see where they come from with {where}")


def check_labels(y, classes):
    """Raise ValueError when a label is outside 0 … classes − 1."""
    low, high = (end.item() for end in y.aminmax())
    if low < 0 or high >= classes:
        mend = "; count them from 0: y - 1" if (low, high) == (1, classes) else ""
        raise ValueError(f"y holds labels from {low} to {high}; this network has classes 0 to {classes - 1}{mend}")


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
        mend = f"use x.reshape(-1, {inputs}) if each example has that many numbers"
        raise ValueError(f"x has shape {tuple(x.shape)}; this network takes (batch, {inputs}): {mend}")
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
    else:
        check_label_for_each(y, out)
        if y.device.type == "cpu" and not _is_traced(y):
            check_labels(y, out.shape[1])
    _let_pass(y, facts)


def check_label_for_each(y, out):
    """Raise ValueError unless y is (batch,) int64 for these outputs (batch, classes)."""
    check_is_tensor("y", y)
    if y.dtype != torch.int64:
        raise ValueError(f"y holds {y.dtype}; class labels must be int64: use y.long()")
    if y.shape != out.shape[:1]:
        raise ValueError(f"y has shape {tuple(y.shape)}; it must be ({len(out)},), one label for each example")


def check_dataset(data):
    """Raise ValueError for what is no dataset."""
    if not all(hasattr(data, name) for name in TENSORS):
        how = "cu.load_dataset(…) returns it, cu.Dataset.of(x_train, y_train, x_test, y_test) makes one of your own"
        raise ValueError(f"data is {shown(data)}; it must be a dataset: {how}")


def check_parts(net, data):
    """Raise ValueError unless data is a dataset of which this network takes every part."""
    check_dataset(data)
    for part in ("train", "val", "test"):
        x, y = getattr(data, f"x_{part}"), getattr(data, f"y_{part}")
        try:
            check_is_tensor("x", x)
            check_is_tensor("y", y)
            if hasattr(net, "check_input"):  # a network of one's own sees to its shapes itself
                net.check_input(x)
                net.check_target(x.new_empty(len(x), net.sizes[-1]), y)
                if not y.is_floating_point():
                    check_labels(y, net.sizes[-1])  # on a GPU, too, where no batch is asked
            check_finite(x)
        except ValueError as error:
            raise type(error)(f"data.x_{part}, data.y_{part}: {error}") from None


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
    check_is_tensor(name, tensor)
    return not tensor.is_inference() and _passed.get(tensor) == (tensor._version, facts)


def _let_pass(tensor, facts):
    if not tensor.is_inference():  # such a tensor keeps no count of its changes
        _passed[tensor] = tensor._version, facts
