"""Datasets: exact splits, one copy per process, every damaged file refused, no half-written downloads."""

import errno
import importlib
import os
import socket
import struct
import tempfile
from http.client import IncompleteRead
from urllib.error import HTTPError, URLError

import numpy as np
import pytest
import torch
import torchvision

from course_utils.data import FILES, SOURCES, load_dataset, main

module = importlib.import_module("course_utils.data")
REAL_REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(module.__file__)))
REAL_FOLDERS = [os.environ.get("COURSE_DATA"), os.path.join(REAL_REPOSITORY, "data")]
TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = FILES


def write_small(raw, train=120, test=24, seed=0):
    """Write four well-formed idx files; image i of each begins with the pixels (i % 256, label)."""
    raw.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    for images_file, labels_file, count in ((FILES[0], FILES[1], train), (FILES[2], FILES[3], test)):
        pixels = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        pixels[:, 0, 0], pixels[:, 0, 1] = np.arange(count) % 256, labels
        pixels[0, 27, 26:] = 0, 255
        (raw / images_file).write_bytes(struct.pack(">4I", 2051, count, 28, 28) + pixels.tobytes())
        (raw / labels_file).write_bytes(struct.pack(">2I", 2049, count) + labels.tobytes())


def listing(folder):
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in folder.rglob("*")}


def files_under(folder):
    return sorted(p.name for p in folder.rglob("*") if p.is_file() or p.name.startswith("."))


@pytest.fixture(autouse=True)
def repository(tmp_path, monkeypatch):
    """An empty repository of its own for each test, without network, memory or COURSE_DATA."""
    root = tmp_path / "repository"
    (root / "lessons").mkdir(parents=True)
    monkeypatch.setattr(module, "__file__", str(root / "course_utils" / "data.py"))
    monkeypatch.setattr(module, "_cache", {})
    monkeypatch.setattr(module, "_failed", {})
    monkeypatch.delenv("COURSE_DATA", raising=False)
    set_download(monkeypatch, URLError("no route to host"))
    return root


def set_download(monkeypatch, error=None, write=None):
    """torchvision's download first lets `write` put files into its raw folder, then raises `error`."""
    calls = []

    def download(dataset):
        calls.append(dataset.raw_folder)
        if write:
            os.makedirs(dataset.raw_folder, exist_ok=True)
            write(module.Path(dataset.raw_folder))
        if error:
            raise error

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", download)
    return calls


@pytest.fixture
def raw(repository):
    folder = repository / "data" / "MNIST" / "raw"
    write_small(folder)
    return folder


# --- what a good load gives -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SOURCES)
def test_shapes_types_range_and_split(name, repository):
    write_small(repository / "data" / SOURCES[name] / "raw")
    data = load_dataset(name)
    assert (data.name, data.requested, data.is_fallback) == (name, name, False)
    for x, y, count in (
        (data.x_train, data.y_train, 110),
        (data.x_val, data.y_val, 10),
        (data.x_test, data.y_test, 24),
    ):
        assert x.shape == (count, 784) and y.shape == (count,)
        assert x.dtype == torch.float32 and y.dtype == torch.int64
        assert x.is_contiguous() and y.is_contiguous() and x.device.type == "cpu"
        assert x.min() >= 0 and x.max() <= 1
        assert torch.equal((x[:, 1] * 255).round().long(), y)  # image and label still belong together
    first_pixels = (torch.cat([data.x_train, data.x_val])[:, 0] * 255).round()
    assert torch.equal(first_pixels, torch.arange(120.0))  # the last twelfth is validation, in order
    assert data.x_train[0, 782:].tolist() == [0.0, 1.0]


def test_a_second_load_is_the_same_object(raw, monkeypatch):
    first = load_dataset("mnist")
    monkeypatch.setattr(module, "_find_or_download", None)  # must not be asked again
    assert load_dataset("mnist") is first
    assert load_dataset("mnist", device="cpu") is first


def test_limit_keeps_the_first_training_images_only(raw):
    whole, part = load_dataset("mnist"), load_dataset("mnist", limit=30)
    assert torch.equal(part.x_train, whole.x_train[:30]) and torch.equal(part.y_train, whole.y_train[:30])
    assert part.x_train.data_ptr() == whole.x_train.data_ptr() and part.x_train.is_contiguous()
    assert part.x_val is whole.x_val and part.x_test is whole.x_test
    assert len(load_dataset("mnist").x_train) == 110  # the limit did not stick
    assert len(load_dataset("mnist", limit=110).x_train) == 110


@pytest.mark.parametrize("limit", [0, -5, 1.5, "10", True, 111])
def test_bad_limit(raw, limit):
    with pytest.raises(ValueError, match="limit=.*from 1 to 110"):
        load_dataset("mnist", limit=limit)


@pytest.mark.parametrize("name", ["cifar10", "MNIST", "", None])
def test_unknown_name(name):
    with pytest.raises(ValueError, match='unknown dataset.*"mnist".*"kmnist".*"digits"'):
        load_dataset(name)


def test_digits():
    data = load_dataset("digits")
    assert (len(data.x_train), len(data.x_val), len(data.x_test)) == (1297, 200, 300)
    assert not data.is_fallback
    for x, y in ((data.x_train, data.y_train), (data.x_val, data.y_val), (data.x_test, data.y_test)):
        assert x.shape == (len(y), 784) and x.dtype == torch.float32 and y.dtype == torch.int64
        assert x.is_contiguous() and x.min() == 0 and 0.99 <= x.max() <= 1
        assert sorted(set(y.tolist())) == list(range(10))
    monkey = load_dataset("digits")
    assert monkey is data
    module._cache.clear()
    assert torch.equal(load_dataset("digits").x_test, data.x_test)  # the shuffle is fixed


def test_official_mnist(monkeypatch, repository):
    found = [f for f in REAL_FOLDERS if f and os.path.isfile(os.path.join(f, "MNIST", "raw", FILES[0]))]
    if not found:
        pytest.skip("MNIST is neither in COURSE_DATA nor in data/")
    monkeypatch.setenv("COURSE_DATA", found[0])
    before = listing(module.Path(found[0]))
    data = load_dataset("mnist")
    assert (len(data.x_train), len(data.x_val), len(data.x_test)) == (55000, 5000, 10000)
    assert data.y_train[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert data.y_test[:5].tolist() == [7, 2, 1, 0, 4]
    counts = torch.bincount(torch.cat([data.y_train, data.y_val]))
    assert counts.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert torch.bincount(data.y_test).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    pixels = torch.cat([data.x_train, data.x_val]).double()
    assert pixels.mean().item() == pytest.approx(0.1307, abs=5e-5)  # the well-known mean and deviation
    assert pixels.std().item() == pytest.approx(0.3081, abs=5e-5)
    assert listing(module.Path(found[0])) == before
    # One changed pixel in a file of the official size is noticed.
    damaged = repository / "data" / "MNIST" / "raw"
    damaged.mkdir(parents=True)
    for file in FILES:
        content = bytearray((module.Path(found[0]) / "MNIST" / "raw" / file).read_bytes())
        content[5000] ^= 1 if file == TEST_IMAGES else 0
        (damaged / file).write_bytes(content)
    monkeypatch.delenv("COURSE_DATA")
    module._cache.clear()
    with pytest.raises(ValueError, match=f"{TEST_IMAGES} in .*sha256"):
        load_dataset("mnist")


# --- where it is looked for -------------------------------------------------------------------------------


def test_course_data_comes_first_and_is_never_written_to(raw, tmp_path, monkeypatch):
    given = tmp_path / "given"
    write_small(given / "MNIST" / "raw", train=240, seed=1)
    paths = sorted(given.rglob("*")) + [given]
    for path in paths:
        path.chmod(0o444 if path.is_file() else 0o555)
    before = listing(given)
    monkeypatch.setenv("COURSE_DATA", str(given))
    assert len(load_dataset("mnist").x_train) == 220
    set_download(monkeypatch, write=write_small)
    assert len(load_dataset("kmnist").x_train) == 110  # not there: downloaded, into data/
    assert listing(given) == before
    for path in paths:
        path.chmod(0o755)


@pytest.mark.parametrize("given", ["", "nowhere", "empty"])
def test_course_data_without_the_dataset_is_passed_over_silently(given, raw, tmp_path, monkeypatch, capsys):
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / given) if given else "")
    assert load_dataset("mnist").name == "mnist"
    assert capsys.readouterr().out == ""


def test_without_a_repository_data_is_in_the_working_folder(repository, tmp_path, monkeypatch):
    (repository / "lessons").rmdir()
    write_small(tmp_path / "data" / "MNIST" / "raw")
    monkeypatch.chdir(tmp_path)
    assert load_dataset("mnist").name == "mnist"


# --- damaged files ----------------------------------------------------------------------------------------


def change(path, content):
    path.write_bytes(content(path.read_bytes()))


def swap(first, second):
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)


def header(magic, *sizes):
    return struct.pack(f">{1 + len(sizes)}I", magic, *sizes)


DAMAGE = {
    "truncated images": (TRAIN_IMAGES, lambda b: b[:-1], "truncated: 1 bytes"),
    "truncated labels": (TEST_LABELS, lambda b: b[:-3], "truncated: 3 bytes"),
    "truncated header": (TEST_IMAGES, lambda b: b[:9], "truncated: 9 bytes"),
    "empty file": (TRAIN_LABELS, lambda b: b"", "truncated: 0 bytes"),
    "trailing bytes": (TRAIN_IMAGES, lambda b: b + b"xy", "too long: 2 bytes"),
    "wrong magic": (TRAIN_IMAGES, lambda b: header(2052) + b[4:], "magic number is 2052, images have 2051"),
    "a web page": (TEST_LABELS, lambda b: b"<!DOCTYPE html><html>", "magic number"),
    "compressed": (TEST_IMAGES, lambda b: b"\x1f\x8b\x08\x08" + b, "magic number"),
    "other image size": (TEST_IMAGES, lambda b: header(2051, 24, 14, 56) + b[16:], "14×56 pixels, not 28×28"),
    "no images": (TEST_IMAGES, lambda b: header(2051, 0, 28, 28), "0 images are too few"),
    "label 10": (TRAIN_LABELS, lambda b: b[:-1] + b"\x0a", "label 10; labels are 0 … 9"),
    "fewer labels": (TRAIN_LABELS, lambda b: header(2049, 119) + b[8:-1], "119 labels for 120 images"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_file_is_named_with_its_folder_and_the_fix(damage, raw):
    file, content, words = DAMAGE[damage]
    change(raw / file, content)
    with pytest.raises(ValueError) as caught:
        load_dataset("mnist")
    message = str(caught.value)
    assert message.startswith(f"{file} in {raw} cannot be used") and words in message
    assert "delete it and load again" in message


@pytest.mark.parametrize("name", ["fashion_mnist", "kmnist"])
def test_damage_is_seen_in_the_other_datasets_too(name, repository):
    folder = repository / "data" / SOURCES[name] / "raw"
    write_small(folder)
    change(folder / TEST_LABELS, lambda b: b[:-1] + b"\xff")
    with pytest.raises(ValueError, match=f"{TEST_LABELS} in .*label 255"):
        load_dataset(name)


def test_swapped_images_and_labels(raw):
    swap(raw / TRAIN_IMAGES, raw / TRAIN_LABELS)
    with pytest.raises(ValueError, match=f"{TRAIN_IMAGES} in .*2049.*images and labels swapped"):
        load_dataset("mnist")


def test_swapped_train_and_test(raw):
    swap(raw / TRAIN_IMAGES, raw / TEST_IMAGES)
    swap(raw / TRAIN_LABELS, raw / TEST_LABELS)
    with pytest.raises(ValueError, match=f"{TEST_IMAGES} in .*120 images.*only 24.*train and test swapped"):
        load_dataset("mnist")


def test_swapped_label_files_only(raw):
    swap(raw / TRAIN_LABELS, raw / TEST_LABELS)
    with pytest.raises(ValueError, match=f"{TRAIN_LABELS} in .*24 labels for 120 images"):
        load_dataset("mnist")


def test_unreadable_file(raw, monkeypatch):
    def read_bytes(path):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(module.Path, "read_bytes", read_bytes)
    with pytest.raises(ValueError, match=f"{TRAIN_IMAGES} in .*cannot be read .Permission denied"):
        load_dataset("mnist")


def test_missing_file_in_course_data(tmp_path, monkeypatch):
    write_small(tmp_path / "MNIST" / "raw")
    (tmp_path / "MNIST" / "raw" / TEST_LABELS).unlink()
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=f"{TEST_LABELS} in .*missing"):
        load_dataset("mnist")


def test_missing_file_in_data_is_named_offline_and_downloaded_online(raw, monkeypatch):
    (raw / TEST_LABELS).unlink()
    with pytest.raises(ValueError, match=f"{TEST_LABELS} in .*missing"):
        load_dataset("mnist")
    module._failed.clear()
    set_download(monkeypatch, write=write_small)
    assert load_dataset("mnist").name == "mnist"
    assert files_under(raw) == sorted(FILES)


# --- downloads --------------------------------------------------------------------------------------------


def test_download_goes_to_data_and_happens_once(repository, monkeypatch, capsys):
    calls = set_download(monkeypatch, write=write_small)
    seen = []
    create = tempfile.mkdtemp

    def watched(*arguments, **options):
        seen.append(socket.getdefaulttimeout())
        return create(*arguments, **options)

    monkeypatch.setattr(tempfile, "mkdtemp", watched)
    assert not load_dataset("mnist").is_fallback
    target = repository / "data" / "MNIST" / "raw"
    assert files_under(repository / "data") == sorted(FILES) == files_under(target)
    assert f"mnist: downloading to {target}" in capsys.readouterr().out
    module._cache.clear()
    load_dataset("mnist")
    assert len(calls) == 1 and calls[0] != str(target)
    assert calls[0].startswith(str(repository / "data"))  # same disk, so that moving is renaming
    assert seen[0] and seen[0] <= 30 and socket.getdefaulttimeout() is None


def half(raw):
    write_small(raw)
    (raw / TEST_IMAGES).write_bytes(b"half")
    (raw / TEST_LABELS).unlink()


INTERRUPTIONS = [URLError("gone"), KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left")]


@pytest.mark.parametrize("error", INTERRUPTIONS, ids=lambda e: type(e).__name__)
def test_interrupted_download_leaves_nothing_and_the_next_succeeds(error, repository, monkeypatch):
    set_download(monkeypatch, error, write=half)
    try:
        assert load_dataset("mnist").is_fallback
    except (KeyboardInterrupt, ValueError):
        pass
    assert files_under(repository / "data") == []
    assert socket.getdefaulttimeout() is None
    module._failed.clear()
    set_download(monkeypatch, write=write_small)
    assert not load_dataset("mnist").is_fallback
    assert files_under(repository / "data") == sorted(FILES)


def test_damaged_download_is_not_moved_in_place(repository, monkeypatch):
    set_download(monkeypatch, write=lambda raw: (write_small(raw), (raw / TEST_IMAGES).write_bytes(b"half")))
    with pytest.raises(ValueError, match=f"{TEST_IMAGES} in .*truncated"):
        load_dataset("mnist")
    assert files_under(repository / "data") == []


NETWORK_FAILURES = [
    URLError("Name or service not known"),
    HTTPError("http://mirror", 503, "Service Unavailable", None, None),
    TimeoutError("timed out"),
    ConnectionResetError("reset by peer"),
    IncompleteRead(b"half"),
    RuntimeError("Error downloading train-images-idx3-ubyte.gz:\nTried http://mirror, got:\n403"),
]


@pytest.mark.parametrize("error", NETWORK_FAILURES, ids=lambda e: type(e).__name__)
def test_no_network_gives_digits_and_says_so(error, repository, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "given"))
    calls = set_download(monkeypatch, error)
    data = load_dataset("mnist")
    assert (data.name, data.requested, data.is_fallback) == ("digits", "mnist", True)
    assert len(data.x_train) == 1297
    banner = capsys.readouterr().out
    for words in (
        "=" * 80,
        'WARNING: "mnist"',
        "digits",
        str(tmp_path / "given" / "MNIST" / "raw"),
        str(repository / "data" / "MNIST" / "raw"),
        "COURSE_DATA",
        type(error).__name__,
        *FILES,
    ):
        assert words in banner
    assert load_dataset("mnist").is_fallback  # warned again, but the mirrors are not waited for again
    assert "WARNING" in capsys.readouterr().out and len(calls) == 1
    assert not load_dataset("digits").is_fallback
    write_small(repository / "data" / "MNIST" / "raw")  # files put there by hand are found without a restart
    assert not load_dataset("mnist").is_fallback


def test_limit_of_a_fallback_is_cut_to_its_size():
    assert len(load_dataset("mnist", limit=20000).x_train) == 1297
    assert len(load_dataset("mnist", limit=100).x_train) == 100
    assert load_dataset("mnist", limit=100).is_fallback
    with pytest.raises(ValueError, match="limit=20000"):
        load_dataset("digits", limit=20000)


DISK_FAILURES = [
    PermissionError(errno.EACCES, "Permission denied"),
    OSError(errno.EROFS, "Read-only file system"),
    OSError(errno.ENOSPC, "No space left on device"),
]


@pytest.mark.parametrize("error", DISK_FAILURES, ids=lambda e: e.strerror)
@pytest.mark.parametrize("place", ["Path.mkdir", "tempfile.mkdtemp", "os.replace", "download"])
def test_unwritable_folder_is_named(place, error, repository, monkeypatch):
    def fail(*arguments, **options):
        raise error

    set_download(monkeypatch, error if place == "download" else None, write=write_small)
    if place == "Path.mkdir":
        monkeypatch.setattr(module.Path, "mkdir", fail)
    elif place == "tempfile.mkdtemp":
        monkeypatch.setattr(tempfile, "mkdtemp", fail)
    elif place == "os.replace":
        monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(ValueError) as caught:
        load_dataset("mnist")
    for words in (str(repository / "data"), error.strerror, "make it writable", "COURSE_DATA"):
        assert words in str(caught.value)
    assert files_under(repository) == []


# --- the command line -------------------------------------------------------------------------------------


def test_main_says_where_the_data_is(raw, capsys):
    assert main("mnist") == 0
    assert capsys.readouterr().out == f"mnist: {raw}\n"
    assert main("digits") == 0
    assert "scikit-learn" in capsys.readouterr().out


def test_main_refuses_an_unknown_name_and_a_damaged_file(raw, capsys):
    assert main("cifar10") == 2
    assert "unknown dataset" in capsys.readouterr().err
    (raw / TRAIN_LABELS).write_bytes(b"")
    assert main("mnist") == 2
    assert TRAIN_LABELS in capsys.readouterr().err


def test_main_without_network_says_so_and_goes_on(capsys):
    assert main("mnist") == 0
    assert "WARNING" in capsys.readouterr().out
