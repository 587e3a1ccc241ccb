"""What a bug report has to say about a machine: versions, device, cores, memory, data, widgets."""

import importlib.metadata
import os
import platform
import re
import sys
from pathlib import Path

import torch
from packaging.requirements import Requirement

from course_utils import files
from course_utils.device import current_device

COURSE = "without-backprop"
ALSO = ("jupyterlab_widgets",)  # not asked for by name, but no slider shows without it
GB = 1e9
QUOTA = "/sys/fs/cgroup/cpu.max"
LIMITS = "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"  # of a container, as on Binder


def environment():
    """A plain text about this machine and the course's environment, ready to be pasted into a bug report.

    Every package the course asks for with its version; one that is missing or outside the range says so. Nothing
    is downloaded or imported for it. The home folder reads ~, so that no path names a person.
    """
    where = Path(__file__).resolve().parent
    lines = {
        "course": f"{_version(COURSE) or 'not installed'}, in {where}",
        "python": f"{platform.python_version()}, {sys.executable}",
        "platform": platform.platform(),
        "device": f"{_device()} (set up: {current_device()})",
        "cores": f"{_cores()} to use of {os.cpu_count()}; torch uses {torch.get_num_threads()} threads",
        "memory": _memory(),
        "MNIST": _mnist(),
        "widgets": _widgets(),
        **{name: _judged(name, wanted) for name, wanted in _wanted()},
    }
    width = max(map(len, lines))
    return _without_home("\n".join(f"{name:{width}}  {value}" for name, value in lines.items()))


def _wanted():
    """(package, version range) of all that the course asks for, the extra `lab` included: lessons are opened in it."""
    try:
        asked = [Requirement(line) for line in importlib.metadata.requires(COURSE) or []]
    except importlib.metadata.PackageNotFoundError:
        asked = [Requirement(name) for name in ("torch", "torchvision", "numpy", "ipywidgets", "jupyterlab")]
    asked = [r for r in asked if r.marker is None or r.marker.evaluate({"extra": "lab"})]
    return [*sorted((r.name, r.specifier) for r in asked), *((name, None) for name in ALSO)]


def _judged(name, wanted):
    version = _version(name)
    if version is None:
        return "MISSING"
    fits = not wanted or wanted.contains(version, prereleases=True)
    return version if fits else f"{version}  OUTSIDE {wanted}"


def _version(name):
    if name == "torch":
        return torch.__version__  # with its +cpu or +cu…
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _device():
    if torch.cuda.is_available():
        return f"cuda: {torch.cuda.get_device_name()}"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _cores():
    """The cores this process may use: a container, as on Binder, often has fewer than its machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = re.fullmatch(r"(\d+) (\d+)", _read(QUOTA).strip())  # µs of work allowed in so many µs
    return min(cores, max(1, round(int(quota[1]) / int(quota[2])))) if quota else cores


def _memory():
    """In total, and available now where the system says so; a container's own limit where it has one."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return "unknown to Python on this system"
    limits = [text for path in LIMITS if (text := _read(path).strip()).isdigit()]
    total = min([total, *map(int, limits)])
    available = re.search(r"^MemAvailable:\s+(\d+) kB", _read("/proc/meminfo"), re.M)
    now = f", {min(total, 1024 * int(available[1])) / GB:.1f} GB available" if available else ""
    return f"{total / GB:.1f} GB{now}"


def _read(path):
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _mnist():
    folders = files.folders("mnist")
    found = [folder for folder in folders if all((folder / file).is_file() for file in files.FILES)]
    if found:
        return f"in {found[0]}"
    looked = f"not in {' or '.join(map(str, folders))}"
    if "mnist" in files.failed:
        return f"{looked}; download failed ({files.failed['mnist']}): DIGITS STAND IN"
    return f"{looked}; the first load will download it"


def _widgets():
    """Whether a slider can show, as far as Python knows; the page has its own part in it."""
    missing = [name for name in ("ipywidgets", *ALSO) if _version(name) is None]
    if missing:
        return f"no: {' and '.join(missing)} missing in this Python"
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if not hasattr(shell, "kernel"):
        return "not here: this Python runs outside a notebook"
    return "yes, if the page has loaded them (an old page: reload it)"


def _without_home(text):
    for home in {str(Path.home()), str(Path.home().resolve())}:
        if len(home) > 1:  # not the root folder
            text = re.sub(re.escape(home) + r"(?![\w.-])", "~", text)
    return text
