"""Every damaged file is refused by name, and no download leaves anything half-written."""

import errno
import gzip
import os
import socket
import struct
import sys
import tempfile
from http.client import IncompleteRead
from pathlib import Path
from urllib.error import HTTPError, URLError

import pytest
from helpers.small_mnist import files_under, set_download, write_small

from course_utils import files
from course_utils.data import load_dataset
from course_utils.files import FILES, SOURCES

module = sys.modules["course_utils.data"]
TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = FILES


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
    "compressed badly": (TEST_IMAGES, lambda b: b"\x1f\x8b\x08\x08" + b, "compressed and damaged"),
    "compressed by half": (TEST_IMAGES, lambda b: gzip.compress(b)[:-900], "compressed and damaged"),
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
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
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
    files.failed.clear()
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
    files.failed.clear()
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
    with pytest.raises(ValueError, match="limit is 20000"):
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
        monkeypatch.setattr(Path, "mkdir", fail)
    elif place == "tempfile.mkdtemp":
        monkeypatch.setattr(tempfile, "mkdtemp", fail)
    elif place == "os.replace":
        monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(ValueError) as caught:
        load_dataset("mnist")
    for words in (str(repository / "data"), error.strerror, "make it writable", "COURSE_DATA"):
        assert words in str(caught.value)
    assert files_under(repository) == []
