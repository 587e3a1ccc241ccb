"""What was edited in JupyterLab comes back into the lesson: sources alone, and only when the cells are the same."""

import nbformat
import pytest
from helpers import small_course as course
from helpers.small_course import EXERCISE, NOTEBOOK, RULE, SOURCE, cells, change, lesson_text, run

from tools import build, lessons, markdown


@pytest.fixture
def tree(tmp_path):
    """A built course whose lesson 06 has placeholders, links, equal cells and slips."""
    course.small_course(tmp_path)
    change(tmp_path, exercise=EXERCISE + "\n\nMore.", facts="Same.", mnist="Same.", play="Same.")
    assert run(tmp_path) == 0
    return tmp_path


def edit(tree, changes=(), cells_of=list):
    """Save lesson 06's notebook as JupyterLab would, with (old, new) in its sources and outputs under its cells."""
    notebook = nbformat.read(tree / NOTEBOOK, as_version=4)
    for old, new in changes:
        cell = next(cell for cell in notebook.cells if old in cell.source)
        cell.source = cell.source.replace(old, new)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.execution_count = 7
            cell.outputs = [nbformat.v4.new_output("stream", text="seen")]
    notebook.cells = cells_of(notebook.cells)
    nbformat.write(notebook, tree / NOTEBOOK)
    return run(tree, "--from", tree / NOTEBOOK)


def test_an_unedited_notebook_leaves_the_lesson_as_it_was(tree):
    lesson, notebook = ((tree / name).read_bytes() for name in (SOURCE, NOTEBOOK))
    assert edit(tree) == 0
    assert (tree / SOURCE).read_bytes() == lesson
    assert (tree / NOTEBOOK).read_bytes() == notebook  # built anew: the outputs are gone


def test_edited_sources_come_back_and_everything_else_stays(tree):
    before = (tree / SOURCE).read_text()
    changes = [("print(1)", "print(1)\nprint(2)"), ("math.pi", "math.tau"), ("Brain.", "A brain.\n\nTwo.")]
    assert edit(tree, changes) == 0
    after = (tree / SOURCE).read_text()
    for old, new in changes:
        before = before.replace(old, new)
    assert after == before
    assert "math.tau" in (tree / course.MODULE).read_text()
    assert [cell.source for cell in cells(tree)].count("A brain.\n\nTwo.") == 1


def test_placeholders_links_and_slips_survive_an_edit_of_their_cell(tree):
    changes = [("# Toy rule", "# A toy rule"), ("Derive it.", "Derive, see [x](../lessons/06_toy_rule/made/x.svg).")]
    changes += [("More.", "Still more."), ("return x", "return 1 * x")]
    expected = (tree / SOURCE).read_text()
    for old, new in changes:
        new = new.replace("../lessons/06_toy_rule/", "")
        expected = expected.replace(old, new, 1)
    assert "{{badges}}" in expected and "{slips}" in expected
    edit(tree, changes)
    assert (tree / SOURCE).read_text() == expected


def test_of_equal_cells_the_edited_one_is_changed(tree):
    notebook = nbformat.read(tree / NOTEBOOK, as_version=4)
    second = [cell for cell in notebook.cells if cell.source == "Same."][1]
    second.source = "Other."
    nbformat.write(notebook, tree / NOTEBOOK)
    assert run(tree, "--from", tree / NOTEBOOK) == 0
    parts = RULE | {"exercise": EXERCISE + "\n\nMore.", "facts": "Same.", "mnist": "Other.", "play": "Same."}
    assert (tree / SOURCE).read_text() == lesson_text(parts)


@pytest.mark.parametrize(
    "cells_of", [lambda cells: cells[:-1], lambda cells: cells[:2] + cells[:1:-1], lambda cells: [*cells, NEW]]
)
def test_cells_that_came_went_or_moved_are_named_and_nothing_is_written(tree, capsys, cells_of):
    before = (tree / SOURCE).read_bytes()
    assert edit(tree, [("Brain.", "A brain.")], cells_of) == 1
    assert "in the lesson" in capsys.readouterr().out
    assert (tree / SOURCE).read_bytes() == before


NEW = nbformat.v4.new_code_cell("new = 1")


@pytest.mark.parametrize("text", ["Brain.\n\n+++\n\nTwo cells.", "Brain.\n\n```{code-cell}\n1\n```"])
def test_an_edit_that_would_end_its_cell_is_not_written(tree, capsys, text):
    before = (tree / SOURCE).read_bytes()
    assert edit(tree, [("Brain.", text)]) == 1
    assert "would end it" in capsys.readouterr().out
    assert (tree / SOURCE).read_bytes() == before


@pytest.mark.parametrize("lesson", lessons.all_lessons(), ids=lambda lesson: lesson.stem)
def test_every_cell_of_the_course_finds_its_way_back(lesson):
    """From the lesson to the notebook and back: links, placeholders and slips as they were."""
    text, address = lesson.source.read_text(encoding="utf-8"), build.repository(lessons.ROOT)
    page, filled = markdown.read(lesson, text), build.filled_page(lesson, text, address)
    for cell, full in zip(page.cells, filled.cells, strict=True):
        if cell.type == "markdown":
            source = markdown.to_notebook(markdown.without_slips(full.source), lesson)
            values = {cell.number: build.fillings(page, cell.number, address)}
            assert build.edits.in_lesson(cell, source, page, values) == cell.source
