"""The forms in which people have the files, and where they put them; what is odd is named and never waited for."""

import gzip
import os
import time
from http.client import InvalidURL
from pathlib import Path
from urllib.error import HTTPError

import pytest
import torch
from helpers.small_mnist import files_under, set_download, write_small

from course_utils import files
from course_utils.data import load_dataset
from course_utils.files import FILES, SHA256

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = FILES


def numbers(folder, monkeypatch):
    """What is loaded from COURSE_DATA=folder."""
    monkeypatch.setenv("COURSE_DATA", str(folder))
    return load_dataset("mnist").tensors


def compress(path):
    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()


FORMS = {
    "only .gz": compress,
    "gz bytes under the plain name": lambda path: path.write_bytes(gzip.compress(path.read_bytes())),
    "spelt with a dot": lambda path: path.rename(path.with_name(path.name.replace("-idx", ".idx"))),
    "one folder up": lambda path: path.rename(path.parents[1] / path.name),
    "linked": lambda path: path.symlink_to(path.rename(path.with_suffix(".elsewhere"))),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_files_gives_the_same_numbers(form, tmp_path, monkeypatch, request):
    write_small(tmp_path / "plain" / "MNIST" / "raw")
    plain = numbers(tmp_path / "plain", monkeypatch)
    given = tmp_path / "Übung mit 数据"
    write_small(given / "MNIST" / "raw")
    for file in FILES:
        FORMS[form](given / "MNIST" / "raw" / file)
    request.getfixturevalue("forget")()
    assert all(torch.equal(a, b) for a, b in zip(numbers(given, monkeypatch), plain, strict=True))


@pytest.fixture
def forget(monkeypatch):
    from course_utils import data

    return lambda: monkeypatch.setattr(data, "_cache", {})


def test_a_relative_folder_is_the_same_from_everywhere(repository, tmp_path, monkeypatch, forget):
    write_small(repository.parent / "share" / "MNIST" / "raw")
    for place in (repository, repository / "notebooks", tmp_path):
        place.mkdir(exist_ok=True)
        monkeypatch.chdir(place)
        forget()
        numbers("../share", monkeypatch)
        assert files.find("mnist").resolve() == repository.parent / "share" / "MNIST" / "raw"


def test_a_folder_of_a_user_without_a_home(raw, monkeypatch):
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # what it does for a user whom nobody knows
    monkeypatch.setenv("COURSE_DATA", "~nobody-of-this-name/data")
    assert load_dataset("mnist").name == "mnist"  # from the course's own folder


# ------------------------------------------------------------------ files of another dataset


@pytest.mark.parametrize("name", ["fashion_mnist", "kmnist"])
def test_mnist_s_own_files_in_another_dataset_s_folder_are_refused(name, tmp_path, monkeypatch):
    """Of official size; their hash is that of MNIST's by a stand-in, for these are not at hand everywhere."""
    write_small(tmp_path / files.SOURCES[name] / "raw", train=60_000, test=10_000)
    monkeypatch.setenv("COURSE_DATA", str(tmp_path))
    assert load_dataset(name).name == name  # unknown files of that size are taken

    class AsMnist:
        def __init__(self, content):
            count, images = int.from_bytes(content[4:8], "big"), content[3] == 3
            self.file = FILES[(0 if images else 1) if count == 60_000 else (2 if images else 3)]

        def hexdigest(self):
            return SHA256[self.file]

    monkeypatch.setattr(files.hashlib, "sha256", AsMnist)
    with pytest.raises(ValueError, match=f"{TRAIN_IMAGES} in .*: it is MNIST's file, not one of {files.SOURCES[name]}"):
        files.find(name)


# ------------------------------------------------------------------ what is no file, or never ends


def sparse(path):
    with path.open("wb") as stream:
        stream.truncate(60 * 10**9)  # takes no room


def bomb(path):
    piece = gzip.compress(bytes(10**7))
    path.write_bytes(piece * 30)  # 300 MB out of 300 kB


ODD = {
    "a pipe": (os.mkfifo, "a folder, a pipe or a device"),
    "a folder": (Path.mkdir, "a folder, a pipe or a device"),
    "an endless device": (lambda path: path.symlink_to("/dev/zero"), "a folder, a pipe or a device"),
    "a link to nowhere": (lambda path: path.symlink_to("nowhere"), "a link that leads nowhere"),
    "a link to itself": (lambda path: path.symlink_to(path), "a link that leads nowhere"),
    "a file of 60 GB": (sparse, "larger than 100,000,000 bytes"),
    "a compressed file of 300 MB": (bomb, "larger than 100,000,000 bytes"),
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("file", [TRAIN_IMAGES, TEST_LABELS])
def test_what_is_no_such_file_is_named_and_never_waited_for(odd, file, raw):
    make, words = ODD[odd]
    (raw / file).unlink()
    make(raw / file)
    with pytest.raises(ValueError, match=f"{file} in .* cannot be used: it is {words}"):
        load_dataset("mnist")


# ------------------------------------------------------------------ downloads


def leftover(data, age):
    """What a download that was killed that many seconds ago leaves."""
    write_small(data / ".download-abc" / "MNIST" / "raw")
    for path in [*(data / ".download-abc").rglob("*"), data / ".download-abc"]:
        os.utime(path, times=(time.time() - age,) * 2)
    return data / ".download-abc"


def test_what_a_killed_download_left_is_swept_away_and_a_running_one_is_not(raw):
    data = raw.parents[1]
    old = leftover(data, age=7_200)
    load_dataset("mnist")
    assert not old.exists() and files_under(data) == sorted(FILES)
    running = leftover(data, age=7_200)
    os.utime(running / "MNIST" / "raw" / TEST_IMAGES)  # it has just been written to
    files.find("mnist")
    assert running.exists()


def test_course_data_is_not_swept(tmp_path, monkeypatch):
    write_small(tmp_path / "MNIST" / "raw")
    old = leftover(tmp_path, age=10**6)
    numbers(tmp_path, monkeypatch)
    assert old.exists()


REFUSALS = {
    "407": HTTPError("http://mirror", 407, "Proxy Authentication Required", None, None),
    "403": HTTPError("http://mirror", 403, "Forbidden", None, None),
    "no port": InvalidURL("nonnumeric port: 'x'"),
    "no address": ValueError("proxy URL with no authority: 'http:/x'"),
    "no host": UnicodeError("label empty or too long"),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_proxy_or_mirror_that_refuses_gives_digits_with_its_words(refusal, repository, monkeypatch, capsys):
    set_download(monkeypatch, REFUSALS[refusal])
    assert load_dataset("mnist").is_fallback
    banner = capsys.readouterr().out
    assert " ".join(str(REFUSALS[refusal]).split()) in banner and "https_proxy" in banner and ".gz" in banner
    assert files_under(repository / "data") == []
