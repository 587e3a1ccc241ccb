"""What learners get to hand in: no solution, checks that stay, everything else as in the lesson."""

import nbformat
import pytest

from tools import assignment, lessons, markdown

FOUND = {lesson.stem: lesson for lesson in lessons.all_lessons()}


@pytest.mark.parametrize("stem", FOUND)
def test_no_solution_is_left_and_nothing_else_is_lost(stem):
    lesson = FOUND[stem]
    book = nbformat.read(lesson.notebook, as_version=4)
    handed_out = assignment.assignment(book)
    text = "\n".join(cell.source for cell in handed_out.cells)
    solutions = markdown.solutions(lesson.source.read_text(encoding="utf-8"))
    assert all(solution["code"].strip() not in text for solution in solutions.values())
    assert 'class="solution"' not in text and text.count("<details") == text.count("</details")
    code = [[cell.source for cell in each.cells if cell.cell_type == "code"] for each in (book, handed_out)]
    assert code[0] == code[1]
    hints = [each.count("<summary>Hint") for each in (text, "\n".join(cell.source for cell in book.cells))]
    assert hints[0] == hints[1]
    checks = [cell for cell in handed_out.cells if "check" in cell.metadata.get("tags", ())]
    assert checks and not any(cell.metadata.editable or cell.metadata.deletable for cell in checks)
    nbformat.validate(handed_out)


def test_it_is_written_under_the_name_of_its_lesson(tmp_path, capsys):
    assignment.main(["06", "22", "--out", str(tmp_path / "new")])
    assert sorted(path.name[:2] for path in (tmp_path / "new").glob("*.ipynb")) == ["06", "22"]
    with pytest.raises(SystemExit):
        assignment.main(["99", "--out", str(tmp_path)])
    assert "no lesson has the number 99" in capsys.readouterr().err
