"""A lesson to hand in: its notebook without the folded solutions, checks that an editor does not change by accident.

python -m tools.assignment 06 07     writes assignments/06_….ipynb, assignments/07_….ipynb
"""

import argparse
import re
from pathlib import Path

import nbformat

from tools import lessons

SOLUTION = re.compile(r'<details class="solution">.*?</details>\s*', re.S)


def assignment(book):
    """The notebook as learners get it; the one given stays as it is."""
    book = nbformat.from_dict(book)
    for cell in book.cells:
        if cell.cell_type == "markdown":
            cell.source = SOLUTION.sub("", cell.source).strip()
        elif "check" in cell.metadata.get("tags", ()):
            cell.metadata.update(editable=False, deletable=False)
    book.cells = [cell for cell in book.cells if cell.source]
    return book


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m tools.assignment", description=__doc__.split("\n")[0])
    parser.add_argument("numbers", nargs="+", help="of lessons")
    parser.add_argument("--out", type=Path, default=Path("assignments"))
    given = parser.parse_args(argv)
    try:
        chosen = lessons.chosen(given.numbers)
    except ValueError as error:
        parser.error(str(error))
    given.out.mkdir(parents=True, exist_ok=True)
    for lesson in chosen:
        path = given.out / lesson.notebook.name
        nbformat.write(assignment(nbformat.read(lesson.notebook, as_version=4)), path)
        print(path)


if __name__ == "__main__":
    main()
