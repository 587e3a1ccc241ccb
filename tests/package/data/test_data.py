"""Datasets: exact splits, one copy per process, where they are looked for, what the command line says."""

import os
import sys
from pathlib import Path

import pytest
import torch
from helpers.small_mnist import listing, set_download, write_small

from course_utils import files
from course_utils.data import load_dataset
from course_utils.files import FILES, SOURCES, main

module = sys.modules["course_utils.data"]
TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = FILES
REAL_FOLDERS = [os.environ.get("COURSE_DATA"), str(Path(files.__file__).parents[1] / "data")]


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
    monkeypatch.setattr(files, "find", None)  # must not be asked again
    assert load_dataset("mnist") is first
    assert load_dataset("mnist", device="cpu") is first


def test_limit_keeps_the_first_training_images_only(raw):
    whole, part = load_dataset("mnist"), load_dataset("mnist", limit=30)
    assert torch.equal(part.x_train, whole.x_train[:30]) and torch.equal(part.y_train, whole.y_train[:30])
    assert part.x_train.data_ptr() == whole.x_train.data_ptr() and part.x_train.is_contiguous()
    assert part.x_val is whole.x_val and part.x_test is whole.x_test
    assert len(load_dataset("mnist").x_train) == 110  # the limit did not stick
    assert len(load_dataset("mnist", limit=110).x_train) == 110


@pytest.mark.parametrize("limit", [0, -5, 1.5, "10", True, 111, 10**400])
def test_bad_limit(raw, limit):
    with pytest.raises(ValueError, match="limit is .*from 1 to 110"):
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
    before = listing(Path(found[0]))
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
    assert listing(Path(found[0])) == before
    # One changed pixel in a file of the official size is noticed.
    damaged = repository / "data" / "MNIST" / "raw"
    damaged.mkdir(parents=True)
    for file in FILES:
        content = bytearray((Path(found[0]) / "MNIST" / "raw" / file).read_bytes())
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
