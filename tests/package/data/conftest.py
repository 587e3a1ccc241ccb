"""Every test of the data has an empty repository of its own, and no network."""

import sys
from urllib.error import URLError

import pytest
from helpers.small_mnist import set_download, write_small

from course_utils import files

module = sys.modules["course_utils.data"]


@pytest.fixture(autouse=True)
def repository(tmp_path, monkeypatch):
    """An empty repository of its own for each test, without network, memory or COURSE_DATA."""
    root = tmp_path / "repository"
    (root / "lessons").mkdir(parents=True)
    monkeypatch.setattr(files, "__file__", str(root / "course_utils" / "files.py"))
    monkeypatch.setattr(module, "_cache", {})
    monkeypatch.setattr(files, "failed", {})
    monkeypatch.delenv("COURSE_DATA", raising=False)
    set_download(monkeypatch, URLError("no route to host"))
    return root


@pytest.fixture
def raw(repository):
    folder = repository / "data" / "MNIST" / "raw"
    write_small(folder)
    return folder
