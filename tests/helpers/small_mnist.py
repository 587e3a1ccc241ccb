"""Small files in MNIST's format, and a download that fails or writes as a test wants it."""

import os
import struct
from pathlib import Path

import numpy as np
import torchvision

from course_utils.files import FILES


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


def set_download(monkeypatch, error=None, write=None):
    """torchvision's download first lets `write` put files into its raw folder, then raises `error`."""
    calls = []

    def download(dataset):
        calls.append(dataset.raw_folder)
        if write:
            os.makedirs(dataset.raw_folder, exist_ok=True)
            write(Path(dataset.raw_folder))
        if error:
            raise error

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", download)
    return calls
