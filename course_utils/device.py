"""One line that settles device, seeds and threads."""

import random
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import torch

from course_utils.checks import check_seed, or_none, require, whole

# What is added to a seed for each purpose, so that no two of a run meet the same random numbers. (The order of the
# images shares the weights' seed: whole numbers without repetition and Gaussian ones have nothing in common.)
STREAMS = {
    "weights": 0, "order": 0, "feedback": 1_000_003, "rule": 2_000_003, "training noise": 3_000_017,
    "feedback noise": 4_000_037, "image noise": 5_000_011, "weight noise": 6_000_011, "activity noise": 7_000_003,
}  # fmt: skip
_current = torch.device("cpu")
unattended = ContextVar("unattended", default=False)  # as in a sweep: nobody reads what is said, and half a run is none


def stream_seed(purpose, seed):
    """The seed of a purpose's own random numbers; purpose: one of `STREAMS`."""
    return seed + STREAMS[purpose]


def stream(purpose, seed, device="cpu"):
    """A torch.Generator for one purpose of a run from `seed`; the same numbers, whatever else is drawn."""
    return torch.Generator(device).manual_seed(stream_seed(purpose, seed))


def current_device():
    """The device that `setup` chose (CPU until `setup` is called)."""
    return _current


def setup(seed=0, device=None, threads=None):
    """Seed Python, NumPy and torch, choose the device, and say so in one line. Returns the torch.device.

    device: "cpu", "cuda", "mps" or None (cuda, else mps, else cpu). threads: CPU threads for torch, None leaves its own
    choice. ValueError for a device this machine does not have, a negative seed or fewer than one thread.
    """
    global _current
    seed = check_seed(seed)
    threads = require("threads", threads, or_none(whole(1)))
    _current = choose(device)
    if threads is not None:
        torch.set_num_threads(threads)
    for plant in (random.seed, np.random.seed, torch.manual_seed):
        plant(seed)
    # The first optimiser of a process imports torch's compiler, which takes seconds. Better here than in the
    # first training step, where a learner would think that the lesson hangs.
    torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    print(f"device {_current} · {torch.get_num_threads()} CPU threads · seed {seed} · torch {torch.__version__}")
    return _current


@contextmanager
def use_device(device, threads):
    """Inside: that device and so many CPU threads of torch, and `unattended` true in this thread; then as before."""
    global _current
    before, had, token = _current, torch.get_num_threads(), unattended.set(True)
    try:
        _current = choose(device)
        torch.set_num_threads(threads)
        yield
    finally:
        _current = before
        torch.set_num_threads(had)
        unattended.reset(token)


def choose(device):
    """The torch.device of a name, None for the best there is; ValueError for one that this machine does not have."""
    cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0  # a driver may be too old for those it counts
    counts = {"cuda": cuda, "mps": torch.mps.device_count(), "cpu": 1}
    here = [name for name, count in counts.items() if count]
    try:
        chosen = torch.device(here[0] if device is None else device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f'unknown device {device!r}; use "cpu", "cuda", "mps" or None') from error
    if (chosen.index or 0) >= counts.get(chosen.type, 0):
        raise ValueError(f'this machine has no device "{device}"; it has: {", ".join(here)}. Use device="cpu" or None')
    return chosen
