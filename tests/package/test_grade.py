"""Hand-ins run by the course's own checks: right, wrong, undone, endless, greedy, dishonest, none at all."""

import csv
import sys
from pathlib import Path

import nbformat
import pytest

from course_utils import grade

ROOT = Path(__file__).resolve().parents[2]
LESSON = next((ROOT / "notebooks").glob("06_*.ipynb"))
HELPER = "def both(error, weights, feedback):\n    return (error @ weights) * (error @ feedback)"
RIGHT = """def my_share_helped(error, weights, feedback):
    return (both(error, weights, feedback).sum(1) > 0).to(error.dtype).mean()"""
WRONG = """def my_share_helped(error, weights, feedback):
    return ((error @ weights) * (error @ feedback)).sum(1).mean()"""
ENDLESS = "def my_hidden_update(x, weights, error, feedback):\n    while True:\n        pass"
GREEDY = "def my_hidden_update(x, weights, error, feedback):\n    return torch.empty(2**33)"
ONLINE = """def my_hidden_update(x, weights, error, feedback):
    import socket
    return socket.create_connection(("127.0.0.1", 9), 2)"""
DISHONEST = "cu.check_update = lambda mine, *_, **__: mine"
GUESSES = 'my_prediction = {"a": 1, "b": None, "c": "about 90"}'


def hand_in(path, *answers, added=(), checks=None):
    """The lesson with these cells in place of those that define the same, others in front, its checks replaced."""
    book = nbformat.read(LESSON, as_version=4)
    for cell in book.cells:
        if cell.cell_type == "code":
            for answer in answers:
                same = (
                    grade.defined(cell.source) & grade.defined(answer)
                    or grade.asked(cell.source)
                    and grade.asked(answer)
                )
                cell.source = answer if same else cell.source
            if checks and "check_update(" in cell.source:
                cell.source = checks
    book.cells = [*map(nbformat.v4.new_code_cell, added), *book.cells]
    nbformat.write(book, path)


def rows(folder, *arguments):
    grade.main([str(folder), "--out", str(folder / "grades.csv"), *arguments])
    with open(folder / "grades.csv", newline="", encoding="utf-8") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def test_every_hand_in_gets_its_row(tmp_path):
    own_checks = "hidden_update, share_helped = my_hidden_update, my_share_helped  # check_update("
    hand_in(tmp_path / "endless.ipynb", ENDLESS, RIGHT, GUESSES, added=[HELPER], checks=own_checks)
    hand_in(tmp_path / "greedy.ipynb", GREEDY, WRONG, added=[DISHONEST])
    (tmp_path / "below").mkdir()
    hand_in(tmp_path / "below" / "undone.ipynb", ONLINE)
    (tmp_path / "06_nothing.ipynb").write_text("")
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "poem.ipynb")
    found = rows(tmp_path, "--seconds", "15")
    assert list(found) == ["06_nothing.ipynb", "undone.ipynb", "endless.ipynb", "greedy.ipynb", "poem.ipynb"]
    endless, greedy, undone = (found[f"{name}.ipynb"] for name in ("endless", "greedy", "undone"))
    assert {row["lesson"] for row in (endless, greedy, undone)} == {LESSON.stem}
    assert [row["passed"] for row in found.values()] == ["0", "0", "1", "0", "0"]
    assert [row["exercises"] for row in (endless, greedy, undone)] == ["2"] * 3
    assert (endless["predictions"], undone["predictions"], undone["of"]) == ("2", "0", "4")
    assert endless["messages"] == "my_hidden_update: no end within its time; my_share_helped: passed"
    assert "my_share_helped: ✗ not yet" in greedy["messages"] and "not the share of positive ones" in greedy["messages"]
    assert "my_share_helped: NOT DONE: your function returned None." in undone["messages"]
    if sys.platform == "linux":
        assert "it stopped with RuntimeError" in greedy["messages"] and "alloc" in greedy["messages"]
    assert "no notebook" in found["06_nothing.ipynb"]["messages"]
    assert "answers no exercise" in found["poem.ipynb"]["messages"]


def test_a_folder_without_notebooks_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        grade.main([str(tmp_path)])
    assert "holds no notebook" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_every_exercise_of_the_course_has_its_check(path):
    lesson = grade.Lesson(path)
    book = nbformat.read(path, as_version=4)
    steps = grade.plan(book, lesson, "mark")
    assert lesson.exercises and [name for name, _ in steps if name.startswith("my_")][::2] == lesson.exercises
    assert grade.lesson_of(book, Path("handed_in.ipynb"), [lesson]) is lesson
    assert all(source.startswith(grade.HONEST) for name, source in steps if "check_update(" in source)
