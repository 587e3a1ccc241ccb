"""The four files of a dataset: found, downloaded by torchvision, and checked, with their damage said in words."""

import contextlib
import gzip
import hashlib
import os
import shutil
import socket
import ssl
import struct
import sys
import tempfile
import time
import zlib
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError

import torch

SOURCES = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "kmnist": "KMNIST"}  # torchvision's class
SHA256 = {  # of the four files of MNIST; the other datasets use the same names
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
FILES = tuple(SHA256)
LARGEST = 100_000_000  # bytes; MNIST's largest file has 47 million

failed: dict[str, str] = {}  # dataset → why its download failed; not tried again in this process


def folders(name: str) -> list[Path]:
    """Where the four files of a dataset are looked for, in this order; downloads go to the last.

    A relative COURSE_DATA is seen from the repository, not from where a program runs: a kernel runs in notebooks/.
    """
    repository = Path(__file__).resolve().parent.parent
    base = repository if (repository / "lessons").is_dir() else Path.cwd()
    own = base / "data" / SOURCES[name] / "raw"
    given = os.environ.get("COURSE_DATA")
    if not given:
        return [own]
    folder = base / os.path.expanduser(given) / SOURCES[name]  # what it cannot expand, it leaves
    return [folder / "raw", folder, own]


def path_of(folder: Path, file: str) -> Path | None:
    """The file in whichever form it is there: as it is, compressed, or spelt with a dot, as some archives have it."""
    spelt = [file, file.replace("-idx", ".idx")]
    paths = [folder / f"{name}{ending}" for ending in ("", ".gz") for name in spelt]
    return next((path for path in paths if os.path.lexists(path)), None)


def where(name: str) -> Path | None:
    """The first folder that holds all four files, whatever is in them."""
    return next((f for f in folders(name) if all(path_of(f, file) for file in FILES)), None)


def find(name: str) -> Path | None:
    """The folder with the four checked files; None for digits, and after a banner when there is no way."""
    if name == "digits":
        return None
    if name not in list(SOURCES):
        raise ValueError(f'unknown dataset {name!r}: choose "mnist", "fashion_mnist", "kmnist" or "digits"')
    looked_in = folders(name)
    own = looked_in[-1]
    sweep_leftovers(own.parent.parent)
    for folder in looked_in:
        present = [file for file in FILES if path_of(folder, file)]
        if len(present) == len(FILES) or (present and folder != own):  # a download fills gaps in our own
            _check_folder(folder, name)
            return folder
    try:
        if name not in failed:
            return _download(name, own)
    except (URLError, TimeoutError, ConnectionError, HTTPException, ssl.SSLError, RuntimeError) as error:
        failed[name] = " ".join(f"{type(error).__name__}: {error}".split())
    except OSError as error:
        fix = "make it writable, free 150 MB, or put the files into another folder and set COURSE_DATA to it"
        raise ValueError(f"cannot write {name} to {own.parent.parent} ({error}): {fix}") from error
    if present:
        _check_folder(own, name)  # raises, and names the file that is missing
    print(f"""{"=" * 100}
WARNING: "{name}" IS NOT HERE. You get "digits" instead, 1,797 small images: no accuracy is one on {name}.
Looked in: {", ".join(map(str, looked_in))}
Then tried to download it: {failed[name]}
To fix: put {", ".join(FILES)}
(or the same compressed, .gz) into {own} (or set COURSE_DATA to a folder with {SOURCES[name]}/raw);
or go online (behind a proxy: set https_proxy); restart.
{"=" * 100}""")
    return None


def read(folder: Path | None) -> list[torch.Tensor]:
    """The six tensors of the checked files in `folder`; of scikit-learn's digits (1297, 200, 300) when it is None."""
    if folder:
        raw = [torch.frombuffer(bytearray(content(folder, file)), dtype=torch.uint8) for file in FILES]
        x, x_test = (images[16:].view(-1, 784).float().div_(255) for images in raw[::2])
        y, y_test = (labels[8:].long() for labels in raw[1::2])
        end = len(x) - len(x) // 12  # 55,000 of 60,000
        return [x[:end], y[:end], x[end:], y[end:], x_test, y_test]
    from sklearn.datasets import load_digits

    images, labels = (torch.from_numpy(part) for part in load_digits(return_X_y=True))
    x = torch.nn.functional.interpolate(images.float().view(-1, 1, 8, 8) / 16, (28, 28), mode="bilinear")
    # The file is ordered by writer: unshuffled, the test digits would come from other hands than the rest.
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x, y = x.flatten(1).clamp(0, 1)[order], labels.long()[order]
    return [x[:1297], y[:1297], x[1297:1497], y[1297:1497], x[1497:], y[1497:]]


def content(folder: Path, file: str) -> bytes:
    """What is in the file, uncompressed; OSError with a reason in words when it cannot be read."""
    path = path_of(folder, file)
    if path is None or not path.exists():
        raise FileNotFoundError(0, "it is missing" if path is None else "it is a link that leads nowhere")
    if not path.is_file():  # to read a pipe means waiting for ever
        raise OSError(0, "it is a folder, a pipe or a device, no file")
    with path.open("rb") as stream:
        compressed = stream.read(2) == b"\x1f\x8b"  # whatever it is called
        stream.seek(0)
        try:
            found = (gzip.open(stream) if compressed else stream).read(LARGEST + 1)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise OSError(0, f"it is compressed and damaged ({error})") from error
    if len(found) > LARGEST:
        raise OSError(0, f"it is larger than {LARGEST:,} bytes: no such dataset")
    return found


def _download(name: str, target: Path) -> Path:
    """Let torchvision fetch and verify the files in a temporary folder, then rename them into `target`."""
    import torchvision

    data = target.parent.parent
    data.mkdir(parents=True, exist_ok=True)
    print(f"{name}: downloading to {target}", flush=True)
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(20)  # seconds without a byte before a mirror counts as down
    try:
        with tempfile.TemporaryDirectory(prefix=".download-", dir=data) as temporary:
            try:
                getattr(torchvision.datasets, SOURCES[name])(temporary, download=True)
            except ValueError as error:  # an address that is none, most likely a proxy's
                raise URLError(f"{error}; is https_proxy right?") from error
            raw = Path(temporary, SOURCES[name], "raw")
            _check_folder(raw, name)
            target.parent.mkdir(exist_ok=True)  # one rename where possible: others see four files or none
            pairs = [(raw / file, target / file) for file in FILES] if target.is_dir() else [(raw, target)]
            for source, destination in pairs:
                os.replace(source, destination)
    finally:
        socket.setdefaulttimeout(timeout)
    return target


def sweep_leftovers(data: Path, age: float = 3_600) -> None:
    """Remove what a download that was killed has left, when nothing in it has changed for that many seconds."""
    for folder in data.glob(".download-*"):
        with contextlib.suppress(OSError):  # it has just ended
            if time.time() - max(path.lstat().st_mtime for path in [folder, *folder.rglob("*")]) > age:
                shutil.rmtree(folder, ignore_errors=True)


def _check_folder(folder: Path, name: str) -> None:
    counts: list[int] = []
    for file in FILES:
        found = b""
        try:
            found = content(folder, file)
            fault = _fault(found, file, name, counts)
        except OSError as error:
            fault = error.strerror if error.errno == 0 else f"it cannot be read ({error.strerror})"
        if fault:
            fix = "delete it and load again (what is missing is downloaded), or copy a good one there"
            raise ValueError(f"{file} in {folder} cannot be used: {fault}. To fix: {fix}.")
        counts.append(int.from_bytes(found[4:8], "big"))


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
    if count == official and (hashlib.sha256(content).hexdigest() == SHA256[file]) != (name == "mnist"):
        if name == "mnist":
            return "its sha256 is not that of MNIST's file: it is damaged, or another dataset's"
        return f"it is MNIST's file, not one of {SOURCES[name]}: the datasets use the same names"
    return None


def main(name: str = "mnist") -> int:
    """What `make` and Binder call: says where a dataset lies, or downloads it; exit status 2 for an error."""
    try:
        print(f"{name}: {find(name) or 'the digits inside scikit-learn'}")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0
