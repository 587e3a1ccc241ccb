"""Datasets as tensors: read once per process, kept whole on the device."""

import math
from dataclasses import dataclass, replace

import torch

from course_utils import files
from course_utils.arrays import parts_of
from course_utils.checks import TENSORS, require, whole
from course_utils.device import choose, current_device

_cache: dict[str, tuple["Dataset", list[int]]] = {}  # with the versions of its tensors


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Three parts, each with x (n, inputs) floating and y (n,) int64 labels from 0 on, or (n, outputs) values.

    Of MNIST and its like: images (n, 784) float32 in [0, 1], labels 0 … 9; validation ends the training file.
    """

    name: str  # what it is
    requested: str  # what was asked for
    x_train: torch.Tensor
    y_train: torch.Tensor
    x_val: torch.Tensor
    y_val: torch.Tensor
    x_test: torch.Tensor
    y_test: torch.Tensor

    @classmethod
    def of(cls, x_train, y_train=None, x_test=None, y_test=None, *, x_val=None, y_val=None, name="mine", device=None):
        """A dataset of your own: arrays, tensors, pandas tables, or a torch dataset of pairs in place of x (and no y).

        x: a row an example; further dimensions, such as (3, 32, 32) of an image, are laid out in a row. Bytes are
        divided by 255, all else is taken as it is; all become torch's default type. y: labels, whole numbers from 0 on,
        (n,), (n, 1) or one-hot; or values, floating, (n,) or (n, outputs). Validation or test part missing: each is a
        tenth of the training part, drawn at random and always the same. All is copied, to `device` (default: that of
        `setup`). ValueError by name for parts that do not fit each other and for what is no finite number.
        """
        given = {"train": (x_train, y_train), "val": (x_val, y_val), "test": (x_test, y_test)}
        require("name", name, ("a text", lambda text: isinstance(text, str)))
        return cls(name, name, *(tensor.to(choose(device or current_device())) for tensor in parts_of(given)))

    @property
    def is_fallback(self) -> bool:
        """True when this is "digits" in place of what was asked for."""
        return self.name != self.requested

    @property
    def tensors(self) -> list[torch.Tensor]:
        """The six, in the order of `TENSORS`."""
        return [getattr(self, name) for name in TENSORS]

    def __repr__(self) -> str:
        parts = " + ".join(str(len(t)) for t in self.tensors[::2])
        return f"<Dataset {self.name}: {parts} examples of {self.x_train.shape[1]} numbers>"


def load_dataset(name: "str | Dataset" = "mnist", limit: int | None = None, device=None) -> Dataset:
    """Load "mnist", "fashion_mnist", "kmnist" or "digits" onto `device` (default: the device of `setup`).

    A `Dataset` in place of the name is handed back. The first `limit` training images are kept; validation and test
    stay whole. With no files and no network: a banner and "digits" (`limit` cut to its size). Loads share their
    tensors; after one was changed in place (`data.x_train -= …`) the next load says so and reads the files anew. It
    goes by torch's count of changes, which misses those by `.numpy()` and `.data`. ValueError: unknown name or
    device, bad limit, damaged or missing files, a folder that cannot be written.
    """
    device = torch.empty(0, device=choose(device or current_device())).device  # in full: "cuda" becomes "cuda:0"
    if isinstance(name, Dataset):
        all_of_it = Dataset(name.name, name.requested, *(t.to(device) for t in name.tensors))
    else:
        all_of_it = _kept(name, device) or replace(load_dataset("digits", device=device), requested=name)
    if limit is None:
        return all_of_it
    count = len(all_of_it.x_train)
    limit = require("limit", limit, whole(1, math.inf if all_of_it.is_fallback else count))
    return replace(all_of_it, x_train=all_of_it.x_train[:limit], y_train=all_of_it.y_train[:limit])


@torch.inference_mode(False)  # else a first load inside it would spoil all later ones
def _kept(name, device):
    """The dataset of that name as this process keeps it, read when it is not yet there or was changed; None without."""
    key = f"{name} on {device}"
    if key in _cache:
        data, versions = _cache[key]
        if versions == [t._version for t in data.tensors]:
            return data
        print(f"{name}: its tensors were changed in place; from here on they are again as in the files")
    folder = files.find(name)
    if folder is None and name != "digits":
        return None
    data = Dataset(name, name, *(part.to(device) for part in files.read(folder)))
    _cache[key] = data, [t._version for t in data.tensors]
    return data
