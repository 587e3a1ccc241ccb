"""Grade handed-in notebooks: python -m course_utils.grade folder/ runs their exercises and writes one CSV.

From a hand-in come only the functions my_… that answer the exercises, the cells that its author has added, and the
predictions; the checks are the course's own, whatever stands in the hand-in. Each runs in a kernel and a folder of its
own, with limits on time and memory, and without network where the system can. That keeps accidents apart, not attacks:
strangers' code runs as you. Grade it in a container.
"""

import argparse
import ast
import asyncio
import csv
import ctypes
import re
import sys
import tempfile
import time
import uuid
from pathlib import Path
from threading import Timer

import nbformat
from joblib import Parallel, delayed
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError

from course_utils.runs import ROOT

COLUMNS = ["file", "lesson", "passed", "exercises", "predictions", "of", "seconds", "messages"]
CELL_SECONDS, MINUTES, GIGABYTES = 60, 5, 3
HONEST = """import importlib, course_utils as cu
cu.check_update = importlib.reload(importlib.import_module("course_utils.exercises")).check_update
"""
NETWORK, USER = 0x40000000, 0x10000000  # CLONE_NEWNET and CLONE_NEWUSER of Linux


def code_cells(book):
    return [cell for cell in book.cells if cell.cell_type == "code"]


def tree_of(source):
    """What a cell says, parsed; nothing of what does not parse, or is a magic."""
    try:
        return ast.parse(re.sub(r"^\s*[%!].*$", "", source, flags=re.M))
    except (SyntaxError, ValueError):
        return ast.parse("")


def defined(source):
    """The functions my_… that a cell defines."""
    body = tree_of(source).body
    return {node.name for node in body if isinstance(node, ast.FunctionDef) and node.name.startswith("my_")}


class Lesson:
    """A notebook of the course, as far as grading reads it."""

    def __init__(self, path):
        self.name, cells = path.stem, code_cells(nbformat.read(path, as_version=4))
        self.own = {cell.id for cell in cells} | {"".join(cell.source.split()) for cell in cells}
        self.checks = [cell.source for cell in cells if "check" in cell.metadata.get("tags", ())]
        self.exercises = [
            n for cell in cells if "exercise" in cell.metadata.get("tags", ()) for n in defined(cell.source)
        ]
        self.predictions = sum("my_prediction" in cell.source and asked(cell.source) for cell in cells)
        imports = (node for cell in cells for node in tree_of(cell.source).body)
        self.imports = [ast.unparse(node) for node in imports if isinstance(node, (ast.Import, ast.ImportFrom))]

    def check_of(self, name):
        """(the check of an exercise, the name that what it returns goes by)."""
        asks = re.compile(rf"^(\w+) = cu\.check_update\(\s*{name}\b", re.M)
        return next((source, match[1]) for source in self.checks if (match := asks.search(source)))


def asked(source):
    """How many predictions a cell asks for: the entries of my_prediction, or one."""
    for node in tree_of(source).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "my_prediction":
            return len(node.value.keys) if isinstance(node.value, ast.Dict) else 1
    return 0


def lesson_of(book, path, lessons):
    """The lesson that a hand-in answers: by its functions, else by the number that its name begins with; or None."""
    mine = set().union(*(defined(cell.source) for cell in code_cells(book)))
    best = max(lessons, key=lambda lesson: len(mine & set(lesson.exercises)))
    if mine & set(best.exercises):
        return best
    number = re.search(r"(?<!\d)\d\d(?=_)", path.stem)
    return next((lesson for lesson in lessons if number and lesson.name.startswith(number[0])), None)


def plan(book, lesson, mark):
    """[(name of the exercise, "" or "prediction"; source)]: what runs of a hand-in, in order."""
    cells, names = code_cells(book), set(lesson.exercises)
    added = [
        cell.source
        for cell in cells
        if cell.get("id") not in lesson.own
        and "".join(cell.source.split()) not in lesson.own
        and not defined(cell.source) & names
        and "check_update(" not in cell.source
    ]
    steps = [("", "\n".join(["import torch", "import course_utils as cu", *lesson.imports])), *(("", s) for s in added)]
    for name in lesson.exercises:
        if answers := [cell.source for cell in cells if name in defined(cell.source)]:
            check, returned = lesson.check_of(name)
            steps += [("", answers[-1]), (name, HONEST + check), (name, f"print('{mark}', {returned} is {name})")]
    given = [cell.source for cell in cells if asked(cell.source)]
    count = "print('{}', sum(v is not None for v in (p.values() if isinstance(p, dict) else [p])))"
    return steps + [("prediction", f"{source}\np = my_prediction\n{count.format(mark)}") for source in given[:1]]


def limits(gigabytes):
    """What a kernel does before it begins: give up the network and all memory beyond this, where the system can."""

    def before():
        if sys.platform == "linux":
            libc = ctypes.CDLL(None)
            libc.unshare(NETWORK) and libc.unshare(NETWORK | USER)  # a guest of the system asks as its own user
        if sys.platform != "win32":
            import resource

            resource.setrlimit(resource.RLIMIT_DATA, (int(gigabytes * 2**30),) * 2)

    return before


def run(steps, seconds, minutes, gigabytes):
    """The outputs of a kernel that runs these, [(name, its text)]; those that an end by force leaves."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for _, source in steps])
    with tempfile.TemporaryDirectory() as folder:
        kernel = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=f"{folder}/k")
        client = NotebookClient(book, km=kernel, allow_errors=True, resources={"metadata": {"path": folder}})
        client.timeout_func = lambda cell: (
            None if cell.source == steps[0][1] else seconds
        )  # imports take what they take
        client.iopub_timeout = CELL_SECONDS  # what was printed may come late on a busy machine
        client.interrupt_on_timeout, client.error_on_timeout = True, {"ename": "Endless", "evalue": ""}
        guard = Timer(60 * minutes, lambda: kernel.provisioner and asyncio.run(kernel.provisioner.kill()))
        guard.start()
        try:
            client.execute(preexec_fn=limits(gigabytes))
        except DeadKernelError:
            pass  # by the guard, or by its own memory: what it has said until then counts
        finally:
            guard.cancel()
    return [(name, said(cell)) for (name, _), cell in zip(steps, book.cells, strict=True)]


def said(cell):
    """All that a cell has printed, and the error that it ended with."""
    words = [out.get("text", "") or f"{out.get('ename', '')}: {out.get('evalue', '')}" for out in cell.outputs]
    return "".join(words).strip()


def verdict(texts, mark):
    """(passed, in words) of the outputs of one exercise: its check's, and whether the function came back."""
    if not texts:
        return False, "not there"
    check, returned = texts
    if returned.startswith(mark):
        passed = returned == f"{mark} True"
        return passed, "passed" if passed else " ".join(check.partition("The reference is used")[0].split())
    return False, "no end within its time" if "KeyboardInterrupt" in check + returned or not check else check[:200]


def grade(path, lessons, seconds=CELL_SECONDS, minutes=MINUTES, gigabytes=GIGABYTES):
    """The row of one hand-in, {column: value}; it never raises for what a learner may hand in."""
    row, begin = dict.fromkeys(COLUMNS, "") | {"file": path.name, "passed": 0}, time.monotonic()
    try:
        book = nbformat.read(path, as_version=4)
        lesson = lesson_of(book, path, lessons)
    except Exception as error:  # nbformat and json have many
        return row | {"messages": f"no notebook: {type(error).__name__}"}
    if lesson is None:
        return row | {"messages": "answers no exercise of the course, and its name begins with no lesson's number"}
    mark = uuid.uuid4().hex
    outputs = run(plan(book, lesson, mark), seconds, minutes, gigabytes)
    found = {name: verdict([text for n, text in outputs if n == name], mark) for name in lesson.exercises}
    guesses = [text.removeprefix(mark) for name, text in outputs if name == "prediction" and text.startswith(mark)]
    return row | {
        "lesson": lesson.name,
        "passed": sum(passed for passed, _ in found.values()),
        "exercises": len(found),
        "predictions": int(guesses[0]) if guesses else 0,
        "of": lesson.predictions,
        "seconds": round(time.monotonic() - begin),
        "messages": "; ".join(f"{name}: {words}" for name, (_, words) in found.items()),
    }


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m course_utils.grade", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="with the notebooks that were handed in, also in folders below")
    parser.add_argument("--out", type=Path, default=Path("grades.csv"))
    parser.add_argument("--seconds", type=float, default=CELL_SECONDS, help="for a cell; then it is interrupted")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for a hand-in; then its kernel is killed")
    parser.add_argument("--gigabytes", type=float, default=GIGABYTES, help="of memory for a kernel")
    parser.add_argument("--jobs", type=int, default=1, help="hand-ins at once")
    given = parser.parse_args(argv)
    paths = [p for p in sorted(given.folder.rglob("*.ipynb")) if ".ipynb_checkpoints" not in p.parts]
    if not paths:
        parser.error(f"{given.folder} holds no notebook (*.ipynb)")
    lessons = [Lesson(path) for path in sorted((ROOT / "notebooks").glob("*.ipynb"))]
    work = (delayed(grade)(path, lessons, given.seconds, given.minutes, given.gigabytes) for path in paths)
    with given.out.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        for row in Parallel(n_jobs=given.jobs, return_as="generator")(work):
            table.writerow(row)
            file.flush()  # a long folder that is interrupted leaves what it has
            print(f"{row['file']}: {row['passed']} of {row['exercises'] or '?'} passed. {row['messages']}")
    print(given.out)


if __name__ == "__main__":
    main()
