"""What does a lesson cost? Seconds and peak memory of each notebook, run from top to bottom in a fresh kernel.

    python -m tools.cost           all lessons: prints a table, writes each lesson's made/cost.yaml
    python -m tools.cost 06 02     these lessons

Memory is that of the kernel and whatever it starts. "private" belongs to them alone and cannot be taken away: what
Binder's limit of 2,000 MB is about. "resident" adds the pages of shared libraries, which a system short of memory
drops and reads again. Two threads, as on Binder; keep the machine quiet.
"""

import argparse
import os
import threading
import time

import nbformat
import pandas as pd
import psutil
import torch
import yaml
from nbclient import NotebookClient

from course_utils.data import load_dataset
from course_utils.runs import provenance
from tools import maps
from tools.lessons import Lesson, chosen, read, write

THREADS, INTERVAL, MB = 2, 0.1, 1e6


def of(lesson: Lesson) -> dict:
    """What a lesson costs: {"lesson": {seconds, private_mb, resident_mb, …}, "results": {runs, core_seconds, …}}."""
    path = lesson.made / "cost.yaml"
    return read(path) if path.exists() else {}


def note(lesson: Lesson, part: str, words: dict):
    """Enter one of the two parts and leave the other."""
    write(lesson.made / "cost.yaml", yaml.safe_dump(of(lesson) | {part: words}, sort_keys=False))


class PeakMemory(threading.Thread):
    """Watches everything this process has started, until it is told to stop."""

    def __init__(self):
        super().__init__(daemon=True)
        self.done = threading.Event()
        self.private = self.resident = 0.0

    def run(self):
        me = psutil.Process()
        while not self.done.wait(INTERVAL):
            found = [memory(process) for process in me.children(recursive=True)]
            self.private = max(self.private, sum(private for private, _ in found))
            self.resident = max(self.resident, sum(resident for _, resident in found))

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.join()


def memory(process):
    """(private, resident) MB of one process; nothing for one that has just ended."""
    try:
        info = process.memory_info()
        # Only Linux says how much of it is shared; elsewhere the slower way.
        private = info.rss - info.shared if hasattr(info, "shared") else process.memory_full_info().uss
        return private / MB, info.rss / MB
    except psutil.Error:
        return 0.0, 0.0


def measure(path):
    """Run one notebook: {"seconds", "private_mb", "resident_mb"}. Raises when a cell does."""
    client = NotebookClient(nbformat.read(path, as_version=4), timeout=600, kernel_name="python3")
    client.resources = {"metadata": {"path": str(path.parent)}}
    begin = time.perf_counter()
    with PeakMemory() as peak:
        client.execute()
    seconds = time.perf_counter() - begin
    return {"seconds": round(seconds, 1), "private_mb": round(peak.private), "resident_mb": round(peak.resident)}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lessons", nargs="*", help="numbers, such as 06; all when none is given")
    try:
        lessons = chosen(parser.parse_args(arguments).lessons)
    except ValueError as error:
        parser.error(str(error))
    if load_dataset("mnist").is_fallback:
        raise SystemExit("costs are measured on MNIST; it could not be loaded")
    os.environ |= {"CI": "true", "OMP_NUM_THREADS": str(THREADS)}  # for the kernels
    torch.set_num_threads(THREADS)  # for what provenance says of them
    rows = {}
    for lesson in lessons:
        print(f"[cost] {lesson.stem}", flush=True)
        rows[lesson.stem] = measure(lesson.notebook)
        note(lesson, "lesson", rows[lesson.stem] | provenance(torch.device("cpu")))
    print(pd.DataFrame(rows).T.to_string())


if __name__ == "__main__":
    main()
    maps.write()  # the README quotes it
