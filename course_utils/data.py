"""Datasets as tensors: read once per process, kept whole on the device."""

import hashlib
import os
import socket
import ssl
import struct
import sys
import tempfile
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError

import torch

from course_utils.device import current_device

SOURCES = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "kmnist": "KMNIST"}  # torchvision's class
SHA256 = {  # of the four files of MNIST; the other datasets use the same names
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
FILES = tuple(SHA256)

_cache: dict[tuple[str, str], "Dataset"] = {}
_failed: dict[str, str] = {}  # dataset → why its download failed; not tried again in this process


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
        folder = _find_or_download(name)
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

        x, x_test = (mnist.read_image_file(folder / file).flatten(1).float().div_(255) for file in FILES[::2])
        y, y_test = (mnist.read_label_file(folder / file) for file in FILES[1::2])
        end = len(x) - len(x) // 12  # 55,000 of 60,000
        return [x[:end], y[:end], x[end:], y[end:], x_test, y_test]
    from sklearn.datasets import load_digits

    images, labels = (torch.from_numpy(part) for part in load_digits(return_X_y=True))
    x = torch.nn.functional.interpolate(images.float().view(-1, 1, 8, 8) / 16, (28, 28), mode="bilinear")
    # The file is ordered by writer: unshuffled, the test digits would come from other hands than the rest.
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x, y = x.flatten(1).clamp(0, 1)[order], labels.long()[order]
    return [x[:1297], y[:1297], x[1297:1497], y[1297:1497], x[1497:], y[1497:]]


def folders(name: str) -> list[Path]:
    """Where the four files of a dataset are looked for, in this order; downloads go to the last."""
    repository = Path(__file__).resolve().parent.parent
    own = (repository if (repository / "lessons").is_dir() else Path.cwd()) / "data" / SOURCES[name] / "raw"
    given = os.environ.get("COURSE_DATA")
    return [Path(given).expanduser().absolute() / SOURCES[name] / "raw", own] if given else [own]


def _find_or_download(name: str) -> Path | None:
    """The folder with the four checked files; None for digits, and after a banner when there is no way."""
    if name == "digits":
        return None
    if name not in SOURCES:
        raise ValueError(f'unknown dataset {name!r}: choose "mnist", "fashion_mnist", "kmnist" or "digits"')
    looked_in = folders(name)
    own = looked_in[-1]
    for folder in looked_in:
        present = [file for file in FILES if os.path.isfile(folder / file)]
        if len(present) == len(FILES) or (present and folder != own):  # a download fills gaps in our own
            _check_folder(folder, name)
            return folder
    try:
        if name not in _failed:
            return _download(name, own)
    except (URLError, TimeoutError, ConnectionError, HTTPException, ssl.SSLError, RuntimeError) as error:
        _failed[name] = " ".join(f"{type(error).__name__}: {error}".split())
    except OSError as error:
        fix = "make it writable, free 150 MB, or put the files into another folder and set COURSE_DATA to it"
        raise ValueError(f"cannot write {name} to {own.parent.parent} ({error}): {fix}") from error
    if present:
        _check_folder(own, name)  # raises, and names the file that is missing
    print(f"""{"=" * 100}
WARNING: "{name}" IS NOT HERE. You get "digits" instead, 1,797 small images: no accuracy is one on {name}.
Looked in: {", ".join(map(str, looked_in))}
Then tried to download it: {_failed[name]}
To fix: put {", ".join(FILES)}
into {own} (or set COURSE_DATA to a folder with {SOURCES[name]}/raw); or go online; restart.
{"=" * 100}""")
    return None


def _download(name: str, target: Path) -> Path:
    """Let torchvision fetch and verify the files in a temporary folder, then rename them into `target`."""
    import torchvision

    target.parent.parent.mkdir(parents=True, exist_ok=True)
    print(f"{name}: downloading to {target}", flush=True)
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(20)  # seconds without a byte before a mirror counts as down
    try:
        with tempfile.TemporaryDirectory(prefix=".download-", dir=target.parent.parent) as temporary:
            getattr(torchvision.datasets, SOURCES[name])(temporary, download=True)
            raw = Path(temporary, SOURCES[name], "raw")
            _check_folder(raw, name)
            target.parent.mkdir(exist_ok=True)  # one rename where possible: others see four files or none
            pairs = [(raw / file, target / file) for file in FILES] if target.is_dir() else [(raw, target)]
            for source, destination in pairs:
                os.replace(source, destination)
    finally:
        socket.setdefaulttimeout(timeout)
    return target


def _check_folder(folder: Path, name: str) -> None:
    counts: list[int] = []
    for file in FILES:
        try:
            content = (folder / file).read_bytes()
            fault = _fault(content, file, name, counts)
        except OSError as error:
            fault = f"it is missing or cannot be read ({error.strerror})"
        if fault:
            fix = "delete it and load again (what is missing is downloaded), or copy a good one there"
            raise ValueError(f"{file} in {folder} cannot be used: {fault}. To fix: {fix}.")
        counts.append(int.from_bytes(content[4:8], "big"))


def _fault(content: bytes, file: str, name: str, counts: list[int]) -> str | None:
    """What is wrong with an idx file, in words; `counts` are the items in the files before it."""
    kind, magic, header, item = ("images", 2051, 16, 784) if "images" in file else ("labels", 2049, 8, 1)
    least, official = (12, 60000) if "train" in file else (1, 10000)
    if len(content) < header:
        return f"it is truncated: {len(content)} bytes, its header alone takes {header}"
    found, count, *shape = struct.unpack(f">{header // 4}I", content[:header])
    if found != magic:
        return f"its magic number is {found}, {kind} have {magic}: images and labels swapped, or no idx file"
    if shape not in ([], [28, 28]):
        return f"its images are {shape[0]}×{shape[1]} pixels, not 28×28"
    if excess := len(content) - header - count * item:
        return f"it is {'truncated' if excess < 0 else 'too long'}: {abs(excess)} bytes off its header's size"
    if count < least:
        return f"{count} {kind} are too few"
    if "t10k" in file and count >= counts[0]:
        return f"it holds {count} {kind}, the training file only {counts[0]}: were train and test swapped?"
    if kind == "labels" and count != counts[-1]:
        return f"it holds {count} labels for {counts[-1]} images"
    if kind == "labels" and max(content[header:]) > 9:
        return f"it holds the label {max(content[header:])}; labels are 0 … 9"
    if name == "mnist" and count == official and hashlib.sha256(content).hexdigest() != SHA256[file]:
        return "its sha256 is not that of MNIST's file: it is damaged, or another dataset's"
    return None


def main(name: str = "mnist") -> int:
    """`python -m course_utils.data mnist` says where it lies, or downloads it; exit status 2 for an error."""
    try:
        print(f"{name}: {_find_or_download(name) or 'the digits inside scikit-learn'}")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
