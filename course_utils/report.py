"""What a bug report has to say about a machine: versions, device, cores, memory, data."""

import contextlib
import importlib.metadata
import os
import platform
import re
import shutil
import sys
from pathlib import Path

import joblib
import psutil
import torch
from packaging.requirements import Requirement

from course_utils import files
from course_utils.device import current_device
from course_utils.runs import commit

COURSE = Requirement("without-backprop")
ALSO = "jupyterlab_widgets"  # not asked for by name, but no slider shows without it
# Bytes that a container may use, as on Binder; psutil knows the whole machine only.
DECIDE = {"CI", "COURSE_DATA", "GOMP_SPINCOUNT", "MKL_NUM_THREADS", "MPLBACKEND", "OMP_NUM_THREADS", "OMP_WAIT_POLICY"}
DECIDE |= {"PYTHONHASHSEED", "PYTHONIOENCODING", "PYTHONPATH"}
LIMITS = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")


def environment():
    """A plain text about this machine and the course's environment, ready to be pasted into a bug report.

    Every package the course asks for with its version; one that is missing or outside the range says so. Nothing
    is downloaded or imported for it. The home folder reads ~, so that no path names a person; of addresses, which
    may hold a password, it only says that they are set.
    """
    device = torch.accelerator.current_accelerator(check_available=True) or "cpu"
    folder = next(place for place in files.folders("mnist")[-1].parents if place.exists())  # of a download
    closed = "" if os.access(folder, os.W_OK) else ", READ-ONLY"
    gpu = f": {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    lines = {
        "course": f"{_version(COURSE)}, commit {commit()}, in {Path(__file__).resolve().parent}",
        "python": f"{platform.python_version()}, {sys.executable}",
        "platform": platform.platform(),
        "device": f"{device}{gpu} (set up: {current_device()})",
        "cores": f"{joblib.cpu_count()} to use of {os.cpu_count()}; torch uses {torch.get_num_threads()} threads",
        "memory": _memory(),
        "disk": f"{shutil.disk_usage(folder).free / 1e9:.1f} GB free in {folder}{closed}",
        "MNIST": _mnist(),
        "runs in": _surroundings(),
        "numbers": f"{torch.get_default_dtype()}, gradients {'on' if torch.is_grad_enabled() else 'OFF'}",
        "set": ", ".join(_set()) or "nothing",
        **_packages(),
    }
    width = max(map(len, lines))
    text = "\n".join(f"{name:{width}}  {value}" for name, value in lines.items())
    with contextlib.suppress(RuntimeError):  # some users have no home
        for home in {Path.home(), Path.home().resolve()}:
            text = re.sub(rf"{re.escape(str(home))}(?=[/\\])", "~", text)
    return text


def _packages():
    """{package: version} of all that the course asks for, the extra `lab` included: lessons are opened in it."""
    known = importlib.metadata.requires(COURSE.name) if _version(COURSE) != "MISSING" else None
    lines = known or ["torch", "numpy", "ipywidgets", "jupyterlab"]
    asked = [r for r in map(Requirement, [*lines, ALSO]) if r.marker is None or r.marker.evaluate({"extra": "lab"})]
    return {r.name: _version(r) for r in sorted(asked, key=str)}


def _version(asked):
    """The version of a package that is asked for, with a word where it is missing or outside the range."""
    try:
        version = importlib.metadata.version(asked.name)
    except importlib.metadata.PackageNotFoundError:
        return "MISSING"
    version = torch.__version__ if asked.name == "torch" else version  # +cpu or +cu…
    return version if asked.specifier.contains(version, prereleases=True) else f"{version}  OUTSIDE {asked.specifier}"


def _memory():
    """In total and available now, within a container's own limit where it has one."""
    memory = psutil.virtual_memory()
    limits = [path.read_text().strip() for path in LIMITS if path.exists()]
    total = min([memory.total, *(int(limit) for limit in limits if limit.isdigit())])
    return f"{total / 1e9:.1f} GB, {min(total, memory.available) / 1e9:.1f} GB available"


def _surroundings():
    """Notebook or program, as whom, and what its output can show."""
    place = "a notebook" if "ipykernel" in sys.modules and not hasattr(sys.stdout, "reconfigure") else "a program"
    user = ", as root" if getattr(os, "geteuid", lambda: 1)() == 0 else ""
    return f"{place}{user}, output {sys.stdout.encoding}, in {Path.cwd()}"


def _set():
    """name=value of the variables that decide what runs how; of those that hold an address the name alone."""
    for name, value in sorted(os.environ.items()):
        if name.lower() in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
            yield f"{name} (an address)"
        elif name in DECIDE or name.startswith(("CUDA_", "PYTORCH_", "TORCH_")):
            yield f"{name}={value}"


def _mnist():
    if found := files.where("mnist"):
        return f"in {found}"
    folders = files.folders("mnist")
    error = files.failed.get("mnist")
    then = f"download failed ({error}): DIGITS STAND IN" if error else "the first load will download it"
    return f"not in {' or '.join(map(str, folders))}; {then}"
