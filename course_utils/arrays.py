"""Arrays, tables and torch datasets of one's own, made into what a `Dataset` holds: copies, one row an example."""

import hashlib

import numpy as np
import torch

from course_utils.checks import check_finite, shown

SHARE = 10  # one example in so many is split off where no validation or test part is given
MEND = "make words numbers first: pandas.get_dummies(x) in columns, pandas.factorize(y)[0] for labels"


def digest(*tensors):
    """A hash of all their numbers, and of their types and shapes."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()


def parts_of(given):
    """The tensors [x, y, x, y, …] of the parts {"train", "val", "test": (x, y) as the user has them, None for no part}.

    What is missing is split off the training part at random, always the same. ValueError says what is wrong with which.
    """
    pairs = {
        part: pair_of(part, *pair)
        for part, pair in given.items()
        if part == "train" or any(v is not None for v in pair)
    }
    first, hot = pairs["train"][0], all(is_one_hot(y) for _, y in pairs.values())
    scale = 255 if first.dtype == torch.uint8 and first.numel() and first.max() > 1 else 1  # 0 and 1 are no grey values
    made = {part: (_inputs(f"x_{part}", x, scale), _targets(f"y_{part}", y, hot)) for part, (x, y) in pairs.items()}
    kinds = {part: _kind(pairs[part][0].dtype, *pair) for part, pair in made.items()}
    for part, (x, y) in made.items():
        if len(x) != len(y) or len(x) == 0:
            raise ValueError(f"x_{part} holds {len(x)} examples and y_{part} {len(y)}; give some, as many of each")
        if kinds[part] != kinds["train"]:
            raise ValueError(f"part {part} holds {kinds[part]}, the training part {kinds['train']}; make them alike")
    x, y = made["train"]
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    for part in [part for part in given if part not in made]:
        count = max(1, len(x) // SHARE)
        made[part], order = (x[order[:count]], y[order[:count]]), order[count:]
    if len(order) == 0:
        raise ValueError(f"x_train holds {len(x)} examples; that is too few to split others off")
    made["train"] = x[order.sort().values], y[order.sort().values]
    return [tensor for part in given for tensor in made[part]]


def pair_of(part, x, y):
    """(x, y) of one part as tensors of whatever kind; a torch dataset of such pairs may stand in place of x."""
    if isinstance(x, torch.utils.data.DataLoader):
        raise ValueError(f"x_{part} is a DataLoader; give the dataset in it: loader.dataset")
    if isinstance(x, torch.utils.data.Dataset):
        if y is not None or isinstance(x, torch.utils.data.IterableDataset):
            raise ValueError(f"x_{part} is a {type(x).__name__}; give a torch dataset with a length, for x and y")
        items = [x[i] for i in range(len(x))]  # type: ignore[arg-type]  # most have one
        if not items or not all(isinstance(item, (tuple, list)) and len(item) == 2 for item in items):
            raise ValueError(f"x_{part}: a torch dataset has to hold pairs (x, y); this begins {shown(items[:1])}")
        x, y = ([np.asarray(value) for value in values] for values in zip(*items, strict=True))
    if y is None:
        raise ValueError(f"y_{part} is missing: labels, or values, for x_{part}")
    return tensor_of(f"x_{part}", x), tensor_of(f"y_{part}", y)


def tensor_of(name, values):
    """A copy of numbers of any kind as a tensor on the CPU; ValueError by name for what are none."""
    if isinstance(values, torch.Tensor):
        return values.detach().cpu().clone()
    try:
        array = np.asarray(values)
        if array.dtype == object and hasattr(values, "columns"):  # a table of several kinds of numbers
            array = values.to_numpy(dtype=float)
        if array.dtype.kind not in "buif":
            raise TypeError(f"it holds {array.dtype.name}")
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), order="C"))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is no array of numbers: {error}; {MEND}") from None


def is_one_hot(y):
    """Is each row of y a single 1 among zeros?"""
    return y.ndim == 2 and y.shape[1] > 1 and bool(((y == 0) | (y == 1)).all() and (y.sum(1) == 1).all())


def _inputs(name, x, scale):
    """(n, inputs) floating, divided by `scale`."""
    if x.ndim < 2:
        raise ValueError(f"{name} has shape {tuple(x.shape)}; it must hold a row for each example: x.reshape(-1, 1)")
    if x.is_complex():
        raise ValueError(f"{name} holds complex numbers; give their parts as two columns")
    x = x.flatten(1).to(torch.get_default_dtype()) / scale
    check_finite(x, name)
    return x


def _targets(name, y, hot):
    """(n,) int64 labels from whole numbers, a column of them or one-hot rows; (n, outputs) floating from values."""
    if hot:
        return y.float().argmax(1)
    if y.is_floating_point():
        y = y.reshape(len(y), -1).to(torch.get_default_dtype())
        check_finite(y, name)
        return y
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if y.ndim != 1 or y.is_complex() or (len(y) and y.min() < 0):
        labels = "whole numbers are labels, (n,), from 0 on, or one-hot rows; for values give floating numbers"
        raise ValueError(f"{name} has shape {tuple(y.shape)}, from {y.min()}; {labels}")
    return y.long()


def _kind(given, x, y):
    """What is in a part, in words; `given` is the type that x had."""
    numbers = "bytes" if given == torch.uint8 else "numbers"
    answers = f"{y.shape[1]} values" if y.is_floating_point() else "a label"
    return f"{x.shape[1]} {numbers} and {answers} an example"
