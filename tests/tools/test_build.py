"""tools/build.py on a small course: what it makes, and that this repository is in step."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import nbformat
import pytest
from helpers import small_course as course
from helpers.small_course import (
    EXERCISE,
    FIRST_EXPORT,
    MODULE,
    NOTEBOOK,
    SECOND_EXPORT,
    SYNTHESIS,
    cells,
    change,
    code,
    lesson_text,
    run,
    write,
)

from tools import lessons, refuse


@pytest.fixture
def tree(tmp_path):
    return course.small_course(tmp_path)


# ---------------------------------------------------------------- what it makes


def test_notebook_is_clean_valid_and_byte_stable(tree):
    assert run(tree) == 0
    made = (tree / NOTEBOOK).read_bytes()
    assert run(tree) == 0 and (tree / NOTEBOOK).read_bytes() == made
    notebook = json.loads(made)
    nbformat.validate(nbformat.reads(made.decode(), as_version=4))
    assert made.endswith(b"}\n") and b"\r" not in made and made.startswith(b'{\n "cells"')
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"] == {
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook["cells"]:
        assert set(cell["metadata"]) <= {"tags"} or cell["id"] == "on-colab"
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
    assert len(list((tree / "notebooks").iterdir())) == 2


def test_windows_line_ends_make_the_same_notebook(tree):
    assert run(tree) == 0
    source = tree / "lessons/06_toy_rule/lesson.md"
    source.write_bytes(source.read_bytes().replace(b"\n", b"\r\n"))
    assert run(tree, "--check") == 0


def test_only_the_edited_cell_gets_a_new_id(tree):
    run(tree)
    before = [cell.id for cell in cells(tree)]
    change(tree, facts="Other facts.")
    run(tree)
    after = [cell.id for cell in cells(tree)]
    differ = [k for k, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
    assert [cells(tree)[k].source for k in differ] == ["Other facts."]


def test_equal_cells_get_different_ids(tree):
    change(tree, facts="Same.", mnist="Same.", play="Same.")
    run(tree)
    ids = [cell.id for cell in cells(tree) if cell.source == "Same."]
    assert ids == [ids[0], f"{ids[0]}-2", f"{ids[0]}-3"] and len(ids[0]) == 8


def test_links_lead_from_the_notebooks(tree):
    html = '<img alt="the same circuit once more" src="made/x.svg"> <a href="../02_measuring/lesson.md">m</a>'
    plain = "`[a](b.md)` and $f[0](x)$\n\n```md\n[a](b.md)\n```\n"
    nested = "[![the circuit as a link](made/x.svg)](../02_measuring/lesson.md)\n\n[named]: ../../README.md"
    other = "[t](../_template/lesson.md) [m](mailto:a@b.c) [h](#here) [w](https://a.b/c.md)"
    change(tree, facts="\n\n".join([html, plain, nested, other]))
    assert run(tree) == 0
    text = "\n".join(cell.source for cell in cells(tree))
    assert "![the circuit, forward and back](../lessons/06_toy_rule/made/x.svg)" in text
    assert "[measuring](02_measuring.ipynb#angles) and [read me](../README.md)" in text
    html = html.replace("made", "../lessons/06_toy_rule/made").replace(
        "../02_measuring/lesson.md", "02_measuring.ipynb"
    )
    assert html in text and plain.strip() in text
    assert "](../lessons/06_toy_rule/made/x.svg)](02_measuring.ipynb)\n\n[named]: ../README.md" in text
    assert other.replace("../_template", "../lessons/_template") in text


def test_badges_and_links_come_from_the_one_address(tree):
    change(tree, sum="[Report]({{repository}}/issues), not `{{repository}}`.")
    assert run(tree) == 0
    title, last = cells(tree)[0].source, cells(tree)[-1].source
    assert "https://mybinder.org/v2/gh/someone/course/HEAD?urlpath=lab/tree/" + NOTEBOOK in title
    assert "https://colab.research.google.com/github/someone/course/blob/main/" + NOTEBOOK in title
    assert "https://github.com/someone/course/blob/main/lessons/06_toy_rule/lesson.md" in title
    assert "35 min to read · 1 min to run" in title and "{{" not in title
    assert last == "[Report](https://github.com/someone/course/issues), not `{{repository}}`."

    write(tree, "pyproject.toml", course.PYPROJECT.replace("someone/course", "else/where"))
    assert run(tree) == 0
    assert "someone" not in (tree / NOTEBOOK).read_text() and "gh/else/where/HEAD" in cells(tree)[0].source


def test_address_that_makes_no_badges_is_named(tree):
    write(tree, "pyproject.toml", course.PYPROJECT.replace("https://github.com/someone/course", "nowhere"))
    with pytest.raises(SystemExit, match="Repository must read"):
        run(tree)


def test_exported_module_is_the_export_cells(tree):
    assert run(tree) == 0
    text = (tree / MODULE).read_text()
    header = "# Exported from lessons/06_toy_rule/lesson.md. Edit the lesson, not this file.\n\n"
    assert text == header + FIRST_EXPORT + "\n\n\n" + SECOND_EXPORT + "\n"
    shown = [cell.source for cell in cells(tree) if "export" in cell.metadata.get("tags", [])]
    assert shown == [FIRST_EXPORT, SECOND_EXPORT]
    namespace: dict = {}
    exec(compile(text, MODULE, "exec"), namespace)
    assert namespace["Other"]().area() == pytest.approx(3.14159, abs=1e-4)
    assert not (tree / "course_utils/rules/measuring.py").exists()


def test_cells_for_a_study_become_a_module_of_their_own(tree):
    second = code("import json", "export-study")
    change(tree, facts=f"F.\n\n{second}\n\n{code('x = 1', 'export-study')}")
    write(tree, "course_utils/studies/__init__.py", "")
    assert run(tree) == 0
    header = "# Exported from lessons/06_toy_rule/lesson.md. Edit the lesson, not this file.\n\n"
    assert (tree / "course_utils/studies/toy_rule.py").read_text() == header + "import json\n\n\nx = 1\n"
    assert "json" not in (tree / MODULE).read_text()
    assert run(tree, "--check") == 0


def test_wrong_answers_stay_in_the_lesson(tree):
    change(tree, exercise=EXERCISE + "\n\nMore.")
    assert run(tree) == 0
    text = (tree / NOTEBOOK).read_text()
    assert "slips" not in text and "return -x" not in text
    assert EXERCISE.split("\n\n```{slips}")[0] + "\n\nMore." in [cell.source for cell in cells(tree)]
    before = (tree / NOTEBOOK).read_bytes()
    change(tree, exercise=EXERCISE.replace("-x", "x + 1") + "\n\nMore.")
    assert run(tree) == 0 and (tree / NOTEBOOK).read_bytes() == before


def colab(root, name=NOTEBOOK):
    """The one cell that the build itself writes."""
    (cell,) = [cell for cell in cells(root, name) if cell.id == "on-colab"]
    return cell


def test_install_cell_follows_the_title_of_every_notebook(tree):
    assert run(tree) == 0
    for name in (NOTEBOOK, "notebooks/02_measuring.ipynb"):
        title, second = cells(tree, name)[:2]
        assert title.source.startswith("# ") and second == colab(tree)
    assert colab(tree).metadata == {"tags": ["setup", "hide-input"], "jupyter": {"source_hidden": True}}
    assert set(colab(tree).metadata.tags) <= refuse.TAGS
    assert 'address, course = "https://github.com/someone/course", "/content/course"' in colab(tree).source
    assert max(map(len, colab(tree).source.splitlines())) <= 100


def test_install_cell_does_nothing_outside_colab(tree, monkeypatch):
    run(tree)
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    monkeypatch.setattr(subprocess, "run", None)
    before, path, folder = set(sys.modules), list(sys.path), Path.cwd()
    namespace: dict = {}
    exec(colab(tree).source, namespace)
    assert set(namespace) - {"__builtins__"} == {"sys"}
    assert (set(sys.modules), sys.path, Path.cwd()) == (before, path, folder)


def test_install_cell_fetches_the_course_on_colab(tree, monkeypatch, tmp_path):
    """In a world where google.colab is imported, /content is a folder of ours, and git and pip are listened to."""
    run(tree)
    calls: list = []

    def listen(command, check):
        calls.append(command)
        assert check
        if command[0] == "git":
            assert command[1] == "clone" and command[-2] == "https://github.com/someone/course"
            shutil.copytree(tree / "notebooks", f"{command[-1]}/notebooks")

    course = str(tmp_path / "content" / "course")
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    monkeypatch.setattr(subprocess, "run", listen)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    for _ in range(2):  # a learner may run it twice
        exec(colab(tree).source.replace("/content/course", course), {})
        assert Path.cwd() == Path(course, "notebooks") and sys.path[0] == course
        assert [command[0] for command in calls] == ["git", sys.executable]
    assert calls[1][1:] == ["-m", "pip", "install", "--quiet", "--no-deps", "-e", course]


def test_parts_of_each_kind(tree):
    outline = (tree / "lessons/outline.yaml").read_text() + "  28_all: {part: III, title: All}\n"
    write(tree, "lessons/outline.yaml", outline)
    write(tree, "lessons/28_all/lesson.md", lesson_text(SYNTHESIS, "synthesis"))
    free = {"title": "# T", "play": "Play.", "objectives": "O.", "toy": "Toy.", "question": "Q?", "sum": "S."}
    write(tree, "lessons/02_measuring/lesson.md", lesson_text(free, "tool"))
    assert run(tree) == 0 and (tree / "notebooks/28_all.ipynb").exists()


# ---------------------------------------------------------------- --check


def test_check_passes_after_a_build_and_writes_nothing(tree, capsys):
    assert run(tree, "--check") == 1 and not (tree / NOTEBOOK).exists()
    run(tree)
    assert run(tree, "--check") == 0
    assert "4 files checked, 0 out of date, 0 left over" in capsys.readouterr().out


@pytest.mark.parametrize("name", [NOTEBOOK, MODULE])
def test_check_finds_drift(tree, capsys, name):
    run(tree)
    path = tree / name
    path.write_bytes(path.read_bytes() + b"\n")
    assert run(tree, "--check") == 1
    assert f"{name}: not what its lesson makes" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name", ["notebooks/07_gone.ipynb", "course_utils/rules/gone.py", "course_utils/studies/gone.py"]
)
def test_check_finds_left_over_files(tree, capsys, name):
    run(tree)
    write(tree, name, "")
    assert run(tree, "--check") == 1
    assert f"{name}: no lesson makes this file" in capsys.readouterr().out


def test_this_repository_is_in_step(capsys):
    assert run(lessons.ROOT, "--check") == 0, capsys.readouterr().out
