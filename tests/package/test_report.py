"""The text for bug reports: complete, true, and without a person's name in it."""

import importlib.metadata
import os
import platform
import sys
from pathlib import Path

import psutil
import pytest
import torch

import course_utils as cu
from course_utils import files, report


def lines():
    text = cu.environment()
    return {line.split("  ")[0]: line.split("  ", 1)[1].strip() for line in text.splitlines()}


@pytest.fixture
def empty_house(tmp_path, monkeypatch):
    """No data anywhere, and a home folder of its own."""
    monkeypatch.delenv("COURSE_DATA", raising=False)
    monkeypatch.setattr(files, "__file__", str(tmp_path / "alice" / "course" / "course_utils" / "files.py"))
    (tmp_path / "alice" / "course" / "lessons").mkdir(parents=True)
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "alice")
    monkeypatch.setattr(files, "failed", {})
    return tmp_path / "alice" / "course" / "data" / "MNIST" / "raw"


def test_it_says_all_that_a_bug_report_needs():
    found = lines()
    needed = {"course", "python", "platform", "device", "cores", "memory", "disk", "MNIST", "runs in", "numbers", "set"}
    assert needed < set(found)
    for name in ("torch", "torchvision", "numpy", "ipywidgets", "jupyterlab", "jupyterlab_widgets"):
        assert found[name] == (torch.__version__ if name == "torch" else importlib.metadata.version(name))
    assert found["course"].startswith(importlib.metadata.version("without-backprop"))
    assert found["python"].startswith(platform.python_version()) and Path(sys.executable).name in found["python"]
    assert found["device"].split()[0].strip(":") in ("cpu", "mps", "cuda")
    assert f"torch uses {torch.get_num_threads()} threads" in found["cores"]


def test_every_package_that_the_course_asks_for_has_a_line():
    asked = set(report._packages())
    assert {"torch", "pandas", "ipykernel", "tqdm"} < asked <= set(lines())


def test_it_is_plain_text_in_columns():
    text = cu.environment()
    assert text == text.strip() and len({line.index("  ") >= 0 for line in text.splitlines()}) == 1
    assert "\t" not in text and "\x1b" not in text


def test_no_line_names_the_home_folder(empty_house):
    assert "alice" not in cu.environment() and "~/course/data/MNIST/raw" in cu.environment()


@pytest.mark.parametrize(("home", "kept"), [("/home/al", "/home/alice/x"), ("/", "/usr/bin")])
def test_a_folder_that_only_begins_like_the_home_folder_stays(home, kept, monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: Path(home))
    monkeypatch.setattr(sys, "executable", kept)
    assert lines()["python"].endswith(f", {kept}")


def test_it_says_where_mnist_is_or_what_becomes_of_it(empty_house, monkeypatch):
    assert "not in" in lines()["MNIST"] and "will download" in lines()["MNIST"]
    monkeypatch.setattr(files, "failed", {"mnist": "URLError: no route"})
    assert "no route" in lines()["MNIST"] and "DIGITS STAND IN" in lines()["MNIST"]
    empty_house.mkdir(parents=True)
    for file in files.FILES:
        (empty_house / file).write_bytes(b"")
    assert lines()["MNIST"] == "in ~/course/data/MNIST/raw"


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_it_finds_the_files_in_every_form(ending, empty_house):
    empty_house.mkdir(parents=True)
    for file in files.FILES:
        (empty_house / f"{file}{ending}").write_bytes(b"")
    assert lines()["MNIST"] == "in ~/course/data/MNIST/raw"


def test_it_names_each_condition_that_a_fault_may_hang_on(empty_house, monkeypatch):
    for name in report.os.environ:
        monkeypatch.delenv(name)
    assert lines()["set"] == "nothing"
    for name, value in {"CI": "true", "CUDA_VISIBLE_DEVICES": "", "https_proxy": "http://me:secret@host"}.items():
        monkeypatch.setenv(name, value)
    assert lines()["set"] == "CI=true, CUDA_VISIBLE_DEVICES=, https_proxy (an address)" and "secret" not in str(lines())
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert ", as root, output" in lines()["runs in"] and f"in {Path.cwd()}" in lines()["runs in"]
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "root" not in lines()["runs in"].split(", output")[0]
    assert lines()["numbers"] == "torch.float32, gradients on"
    with torch.no_grad():
        assert lines()["numbers"] == "torch.float32, gradients OFF"
    assert lines()["disk"].endswith("GB free in ~/course")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert lines()["disk"].endswith(", READ-ONLY")
    monkeypatch.setattr(report, "commit", lambda: "abc1234")
    assert "commit abc1234, in" in lines()["course"]


def test_it_works_for_a_user_without_a_home(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert lines()["python"].startswith(platform.python_version())


def test_it_neither_downloads_nor_imports_anything(empty_house, monkeypatch):
    monkeypatch.setattr(files, "_download", lambda *_: pytest.fail("it downloads"))
    before = set(sys.modules)
    cu.environment()
    assert set(sys.modules) == before


def test_a_missing_and_an_old_package_are_told(monkeypatch):
    real = importlib.metadata.version
    fakes = {"jupyterlab_widgets": None, "numpy": "1.26.4"}

    def version(name):
        if name in fakes and fakes[name] is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return fakes.get(name) or real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    found = lines()
    assert found["jupyterlab_widgets"] == "MISSING"
    assert found["numpy"].startswith("1.26.4") and "OUTSIDE >=2.1" in found["numpy"]


def test_it_works_where_the_course_is_not_installed(monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", absent)
    monkeypatch.setattr(importlib.metadata, "version", absent)
    found = lines()
    assert found["course"].startswith("MISSING, commit ") and found["numpy"] == "MISSING"


def test_a_container_s_limit_counts(tmp_path, monkeypatch):
    limit = tmp_path / "memory.max"
    limit.write_text("200000000\n")
    monkeypatch.setattr(report, "LIMITS", (tmp_path / "missing", limit))
    assert report._memory() == "0.2 GB, 0.2 GB available"
    limit.write_text("max\n")
    assert report._memory().split()[0] == f"{psutil.virtual_memory().total / 1e9:.1f}"


def test_the_cores_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    assert lines()["cores"].startswith(f"1 to use of {os.cpu_count()};")
