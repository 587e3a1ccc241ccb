"""Datasets as tensors: read once per process, kept whole on the device."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from course_utils import files
from course_utils.device import current_device, stream

_cache: dict[tuple[str, str], "Dataset"] = {}


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Images x (n, 784) float32 in [0, 1], labels y (n,) int64, 0 … 9; validation ends the training file."""

    name: str  # what it is
    requested: str  # what was asked for
    x_train: torch.Tensor
    y_train: torch.Tensor
    x_val: torch.Tensor
    y_val: torch.Tensor
    x_test: torch.Tensor
    y_test: torch.Tensor

    @property
    def is_fallback(self) -> bool:
        """True when this is "digits" in place of what was asked for."""
        return self.name != self.requested


def load_dataset(name: str = "mnist", limit: int | None = None, device=None) -> Dataset:
    """Load "mnist", "fashion_mnist", "kmnist" or "digits" onto `device` (default: the device of `setup`).

    The first `limit` training images are kept; validation and test stay whole. Loads share their tensors:
    do not write into them. With no files and no network: a banner and "digits" (`limit` cut to its size).
    ValueError: unknown name, bad limit, damaged or missing files, a folder that cannot be written.
    """
    device = torch.empty(0, device=device or current_device()).device  # in full: "cuda" becomes "cuda:0"
    key = (name, str(device))
    if key not in _cache:
        folder = files.find(name)
        if folder or name == "digits":
            _cache[key] = Dataset(name, name, *(part.to(device) for part in _decode(folder)))
    whole = _cache.get(key) or replace(load_dataset("digits", device=device), requested=name)
    if limit is None:
        return whole
    count = len(whole.x_train)
    if type(limit) is not int or limit < 1 or (limit > count and not whole.is_fallback):
        raise ValueError(f"limit={limit!r}: give a whole number from 1 to {count}, or None for all images")
    return replace(whole, x_train=whole.x_train[:limit], y_train=whole.y_train[:limit])


def _decode(folder: Path | None) -> list[torch.Tensor]:
    """The six tensors of the files in `folder`; of scikit-learn's digits (1297, 200, 300) when it is None."""
    if folder:
        from torchvision.datasets import mnist  # imported here: it takes seconds

        x, x_test = (mnist.read_image_file(folder / file).flatten(1).float().div_(255) for file in files.FILES[::2])
        y, y_test = (mnist.read_label_file(folder / file) for file in files.FILES[1::2])
        end = len(x) - len(x) // 12  # 55,000 of 60,000
        return [x[:end], y[:end], x[end:], y[end:], x_test, y_test]
    from sklearn.datasets import load_digits

    images, labels = (torch.from_numpy(part) for part in load_digits(return_X_y=True))
    x = torch.nn.functional.interpolate(images.float().view(-1, 1, 8, 8) / 16, (28, 28), mode="bilinear")
    # The file is ordered by writer: unshuffled, the test digits would come from other hands than the rest.
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x, y = x.flatten(1).clamp(0, 1)[order], labels.long()[order]
    return [x[:1297], y[:1297], x[1297:1497], y[1297:1497], x[1497:], y[1497:]]


def batches_of(data, settings, history, noise):
    """Batches (x, y) for ever, epoch after epoch in a new order, with the noise that x has at history.samples."""
    device, done = data.x_train.device, history.steps  # those of a run that goes on are passed over
    in_order = stream("order", settings.seed)  # on the CPU: the same batches on every device
    while True:
        for batch in torch.randperm(history.images, generator=in_order).to(device).split(settings.batch_size):
            if done > 0:
                done -= 1
                continue
            x, y = data.x_train.index_select(0, batch), data.y_train.index_select(0, batch)
            if std := settings.input_noise.at(history.samples):
                x += std * torch.randn(x.shape, generator=noise, device=device, dtype=x.dtype)
            yield x, y
