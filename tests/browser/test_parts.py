"""What the browser runs of a lesson is what its widgets need, found in the code; needs no browser."""

import json

import pytest
from browser.pages import ROOT
from browser.parts import code_cells, needed, source, widgets_only

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def chosen(*cells):
    return needed([(text, ["widget"] if text.startswith("# widget") else []) for text in cells])


def test_the_last_cell_that_binds_a_name_is_needed_and_what_that_one_needs():
    assert chosen("a = 1", "b = 5", "b = a", "c = 7", "# widget\nb") == {0, 2, 4}


def test_cells_after_the_widget_are_not():
    assert chosen("a = 1", "# widget\na", "a = 2") == {0, 1}


def test_a_name_that_the_cell_binds_first_needs_no_cell_before():
    assert chosen("ax = 1", "# widget\nax = 2\nprint(ax)") == {1}
    assert chosen("n = 1", "# widget\nfor n in range(3):\n    print(n)") == {1}


def test_a_name_that_the_cell_reads_first_needs_one():
    assert chosen("n = 1", "# widget\nn += 1") == {0, 1}
    assert chosen("n = 1", "# widget\nprint(n)\nn = 2") == {0, 1}


def test_a_cell_that_completes_what_another_has_made_is_needed():
    assert chosen("class A: pass", "def run(self): pass\nA.run = run", "b = 2", "# widget\nA()") == {0, 1, 3}
    assert chosen("d = {}", "d[0] = 1", "d = {1: 2}", "# widget\nd") == {2, 3}


@pytest.mark.parametrize(
    "text",
    [
        "f = lambda: a",
        "def f():\n    return a",
        "class F:\n    x = a",
        "[a for _ in range(2)]",
        "def f(x=a):\n    pass",
        "await a",
    ],
)
def test_names_inside_functions_classes_and_comprehensions_count(text):
    assert chosen("a = 1", f"# widget\n{text}") == {0, 1}


def test_names_that_a_function_binds_are_its_own():
    assert chosen("a = 1", "# widget\ndef f(a):\n    return a") == {1}
    assert chosen("a = 1", "def f():\n    a = 2", "# widget\na") == {0, 2}


def test_imports_functions_and_classes_bind():
    assert chosen("import os", "from a import b", "def f(): pass", "class C: pass", "# widget\nos, b, f, C") == {
        *range(5)
    }


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_of_every_lesson_all_prose_and_less_than_all_code_is_shown(notebook):
    whole = json.loads(notebook.read_text())
    part = json.loads(widgets_only(notebook.read_text()))
    prose = [[source(cell) for cell in n["cells"] if cell["cell_type"] == "markdown"] for n in (whole, part)]
    assert prose[0] == prose[1]
    tagged = [cell for cell in code_cells(part) if "widget" in cell["metadata"].get("tags", [])]
    assert tagged and len(tagged) < len(code_cells(part)) < len(code_cells(whole))
